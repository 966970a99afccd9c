"""The roots that the lab has built in, the `images:` of vknix.yaml out: under the names that the upstream tests use."""

from collections.abc import Iterator, Mapping
from typing import Any

REGISTRY = "registry.k8s.io"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What an image says beside its files: as the upstream images have it.
_TESTS = f"{REGISTRY}/e2e-test-images"
_SAYS: Mapping[str, Mapping[str, Any]] = {
    f"{_TESTS}/agnhost": {"root": "agnhost", "entrypoint": ["/agnhost"], "args": ["pause"]},
    f"{_TESTS}/busybox": {"root": "busybox", "args": ["sh"]},
    f"{_TESTS}/kitten": {"root": "kitten", "args": ["sh"]},
    f"{_TESTS}/nginx": {"root": "nginx", "args": ["busybox", "httpd", "-f", "-p", "80", "-h", "/usr/share/nginx/html"]},
    f"{_TESTS}/nonewprivs": {"root": "nonewprivs", "args": ["nnp"], "modes": {"/usr/local/bin/nnp": "4755"}},
    f"{_TESTS}/nonroot": {"root": "agnhost", "entrypoint": ["/agnhost"], "args": ["pause"], "user": "1234"},
    f"{REGISTRY}/pause": {"root": "pause", "entrypoint": ["/pause"], "user": "65535:65535"},
}


def aliases(roots: Mapping[str, str]) -> list[dict[str, Any]]:
    """An entry for each image, whatever its tag or digest."""
    return list(_aliases(roots))


def _aliases(roots: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for name, says in _SAYS.items():
        rest = {key: value for key, value in says.items() if key not in ("root", "modes")}
        modes = {"/tmp": "1777"} if says["root"] != "pause" else {}
        modes |= says.get("modes", {})
        yield {
            "name": f"{name}:*",
            "path": roots[says["root"]],
            "root": True,
            "env": {"PATH": PATH},
            "workingDir": "/",
            **({"modes": modes} if modes else {}),
            **rest,
        }
