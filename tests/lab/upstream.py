"""A Kubernetes release in, its own test programs out: e2e.test, the ginkgo that runs it, and what the images of its tests hold.

All come from the Go module of the release and are built once into the cache; so are metrics-server and virtual-kubelet's own tests,
each of a release of its own.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.lab import kubernetes, machine
from tests.lab.layout import CACHE, locked
from tests.lab.shell import run, step

E2E, GINKGO, AGNHOST, NNP, PAUSE = "e2e.test", "ginkgo", "agnhost", "nnp", "pause"
VIRTUAL_KUBELET, METRICS_SERVER = "virtual-kubelet-e2e.test", "metrics-server"
OF_IMAGES = (AGNHOST, NNP, PAUSE)
OF_TESTS = (GINKGO, E2E)


_VIRTUAL_KUBELET = ("github.com/virtual-kubelet/virtual-kubelet", "v1.12.0")
_METRICS_SERVER = ("sigs.k8s.io/metrics-server", "v0.9.0")


def is_cold(release: str) -> bool:
    """Whether what the images hold would have to be built."""
    return not all(_target(release, name).exists() for name in OF_IMAGES)


def program(release: str, name: str) -> Path:
    """Where the program of that release is; built when it is not there yet."""
    target = _target(release, name)
    if not target.exists():
        with locked(CACHE / "locks" / "upstream.lock"):
            if not target.exists():
                _build(release, name, target)
    return target


def _target(release: str, name: str) -> Path:
    return CACHE / f"upstream-{release}" / name


def _build(release: str, name: str, target: Path) -> None:
    """Build it in a folder of its own; the target appears when it is whole."""
    work = target.parent / f"{name}.src"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with step(f"building {name} {release} (minutes when the Go cache is cold)"):
        _HOW[name](release, work)
    (work / "program").rename(target)
    shutil.rmtree(work)


def _go(verb: str, *what: str) -> Callable[[str, Path], None]:
    """Static, and the same wherever it is built: its store path follows from it."""

    def build(release: str, work: Path) -> None:
        _go_build(kubernetes.go_mod(release), release, work, verb, *what)

    return build


def _own(module: tuple[str, str], verb: str, *what: str, with_release: bool) -> Callable[[str, Path], None]:
    """A module beside Kubernetes: with the release's libraries, whose compiled packages are shared, or with those that it names."""
    name, version = module

    def build(release: str, work: Path) -> None:
        base = kubernetes.go_mod(release) if with_release else "module lab\n\ngo 1.26\n"
        _go_build(f"{base}\nrequire {name} {version}\n", release, work, verb, *what)

    return build


def _go_build(go_mod: str, release: str, work: Path, verb: str, *what: str) -> None:
    (work / "go.mod").write_text(go_mod)
    flags = ["-mod=mod", "-trimpath", "-ldflags", kubernetes.version_flags(release), "-o", str(work / "program")]
    run([machine.go(), verb, *flags, *what], cwd=work, env={**kubernetes.go_env(), "CGO_ENABLED": "0"})


def _pause(release: str, work: Path) -> None:
    source = kubernetes.module(release) / "build/pause/linux/pause.c"
    run(["cc", "-Os", "-s", "-static", f"-DVERSION={release}", "-o", work / "program", source])


_HOW: dict[str, Callable[[str, Path], None]] = {
    AGNHOST: _go("build", "k8s.io/kubernetes/test/images/agnhost"),
    NNP: _go("build", "k8s.io/kubernetes/test/images/nonewprivs"),
    PAUSE: _pause,
    GINKGO: _go("build", "github.com/onsi/ginkgo/v2/ginkgo"),
    E2E: _go("test", "-c", "k8s.io/kubernetes/test/e2e"),
    VIRTUAL_KUBELET: _own(
        _VIRTUAL_KUBELET, "test", "-c", "-tags=e2e", f"{_VIRTUAL_KUBELET[0]}/internal/test/e2e", with_release=False
    ),
    METRICS_SERVER: _own(_METRICS_SERVER, "build", f"{_METRICS_SERVER[0]}/cmd/metrics-server", with_release=True),
}
