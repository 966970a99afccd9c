"""A Kubernetes release in, its own test programs out: e2e.test, the ginkgo that runs it, and what the images of its tests hold.

All come from the Go module of the release and are built once into the cache.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.lab import kubernetes, machine
from tests.lab.layout import CACHE, locked
from tests.lab.shell import run, step

E2E, GINKGO, AGNHOST, NNP, PAUSE = "e2e.test", "ginkgo", "agnhost", "nnp", "pause"
OF_IMAGES = (AGNHOST, NNP, PAUSE)
OF_TESTS = (GINKGO, E2E)


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
        (work / "go.mod").write_text(kubernetes.go_mod(release))
        flags = ["-mod=mod", "-trimpath", "-ldflags", kubernetes.version_flags(release), "-o", str(work / "program")]
        run([machine.go(), verb, *flags, *what], cwd=work, env={**kubernetes.go_env(), "CGO_ENABLED": "0"})

    return build


def _pause(release: str, work: Path) -> None:
    source = kubernetes.module(release) / "build/pause/linux/pause.c"
    run(["cc", "-Os", "-s", "-static", f"-DVERSION={release}", "-o", work / "program", source])


_HOW: dict[str, Callable[[str, Path], None]] = {
    AGNHOST: _go("build", "k8s.io/kubernetes/test/images/agnhost"),
    NNP: _go("build", "k8s.io/kubernetes/test/images/nonewprivs"),
    PAUSE: _pause,
    GINKGO: _go("build", "github.com/onsi/ginkgo/v2/ginkgo"),
    E2E: _go("test", "-c", "k8s.io/kubernetes/test/e2e"),
}
