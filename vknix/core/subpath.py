"""Which part of its volume each volumeMount shows: subPath, and subPathExpr expanded with the container's environment. Pure.

Rules: kubelet_pods.go (makeMounts), volume/validation. That a link in the volume does not lead out of it is seen to on the host.
"""

import re
from collections.abc import Mapping

from vknix.core import env
from vknix.core.container import Container
from vknix.errors import Refused

_VARIABLE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def sub_paths(path: str, container: Container, made: Mapping[str, str]) -> tuple[str, ...]:
    """In the order of the mounts. Refused with CreateContainerConfigError, which heals when the Pod changes."""
    found = []
    for index, mount in enumerate(container.volume_mounts or ()):
        field, text = f"{path}.volumeMounts[{index}].subPath", mount.sub_path or ""
        if mount.sub_path_expr:
            field, text = f"{field}Expr", _expanded(f"{field}Expr", mount.sub_path_expr, made)
        found.append(_inside(field, text))
    return tuple(found)


def _expanded(field: str, text: str, made: Mapping[str, str]) -> str:
    for match in _VARIABLE.finditer(text):
        if match[1] is not None and match[1] not in made:
            raise _error(field, f"missing value for {match[1]!r}", "set it in env, or write $$(NAME) for the text itself")
    return env.expand(text, made)


def _inside(field: str, text: str) -> str:
    if text.startswith("/"):
        raise _error(field, f"error SubPath `{text[:80]}` must not be an absolute path", "use a path in the volume")
    if ".." in text.split("/"):
        raise _error(field, f"unable to provision SubPath `{text[:80]}`: must not contain '..'", "use a path without ..")
    if "\0" in text or len(text.encode()) > 4000:
        raise _error(field, "it is no path", "use a shorter one without NUL")
    return "/".join(part for part in text.split("/") if part not in ("", "."))


def _error(field: str, why: str, remedy: str) -> Refused:
    return Refused(field, why, remedy=remedy, reason="CreateContainerConfigError")
