"""A Kubernetes release in, a folder with its programs out: found on this machine, else built once into the cache."""

import json
import os
import re
import shutil
from pathlib import Path

from tests.lab import machine
from tests.lab.layout import CACHE, HERE, LABS, locked
from tests.lab.shell import LabError, run, step

DEFAULT = "1.36.3"
OLD_KUBECTL = "1.32.3"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
VERSION_PACKAGE = "k8s.io/component-base/version"


def is_cold(release: str) -> bool:
    """Whether the release would have to be built."""
    return _found(release) is None and not _built(release).exists()


def programs(release: str) -> dict[str, Path]:
    """Where each program of the release is. KUBEBUILDER_ASSETS and the PATH serve when they have all of them."""
    if not re.fullmatch(r"1\.\d+\.\d+", release):
        raise LabError(f"{release!r} is no Kubernetes release; write it as {DEFAULT}")
    return _found(release) or _build_release(release)


def old_kubectl() -> Path:
    """kubectl of 1.32: the PATH's when it is of that release, else built."""
    there = shutil.which("kubectl", path=_path())
    if there and re.fullmatch(r"1\.32\.\d+", _client_version(Path(there))):
        return Path(there)
    target = CACHE / f"kubectl-{OLD_KUBECTL}" / "kubectl"
    with locked(CACHE / "locks" / "kubectl.lock"):
        if not target.exists():
            minor = OLD_KUBECTL.removeprefix("1.")
            module_text = f"module kubectl\n\ngo 1.23.0\n\nrequire k8s.io/kubectl v0.{minor}\n"
            _go_build(OLD_KUBECTL, HERE / "kubectl" / "main.go", module_text, target)
    return target


def module(release: str) -> Path:
    """The folder of the Go module k8s.io/kubernetes, fetched when it is not there yet."""
    answer = run([machine.go(), "mod", "download", "-json", f"k8s.io/kubernetes@v{release}"], check=False, cwd=Path("/"))
    told = json.loads(answer.stdout or "{}")
    if "Dir" not in told:
        raise LabError(f"Kubernetes {release} can't be fetched: {told.get('Error') or answer.stderr.strip()}")
    return Path(told["Dir"])


def go_mod(release: str) -> str:
    """k8s.io/kubernetes replaces its staging modules by folders, which its published module has not: name them instead."""
    minor = release.removeprefix("1.")
    text = (module(release) / "go.mod").read_text()
    needed, etcd = (_group(pattern, text) for pattern in (r"(?m)^go (\S+)", r"go\.etcd\.io/etcd/client/v3 (\S+)"))
    staging = re.findall(r"(?m)^\s*(k8s\.io/\S+) => \./staging", text)
    lines = [
        f"module kubelab\n\ngo {needed}\n",
        f"require (\n\tk8s.io/kubernetes v{release}\n\tgo.etcd.io/etcd/server/v3 {etcd}\n)\n",
        "replace (",
        *(f"\t{name} => {name} v0.{minor}" for name in staging),
        ")\n",
    ]
    return "\n".join(lines)


def go_env() -> dict[str, str]:
    """Of every `go`: the toolchain at hand, and nothing of this checkout in what it builds."""
    return {**os.environ, "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}


def version_flags(release: str) -> str:
    """What the linker is told, so that a program calls itself by its release and has no debugging symbols."""
    major, minor, _ = release.split(".")
    values = {"gitVersion": f"v{release}", "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {VERSION_PACKAGE}.{name}={value}" for name, value in values.items())])


def _build_release(release: str) -> dict[str, Path]:
    folder = _built(release)
    with locked(CACHE / "locks" / "kubelab.lock"):
        if not folder.exists():
            draft = folder.with_name(folder.name + ".new")
            shutil.rmtree(draft, ignore_errors=True)
            _go_build(release, HERE / "kubelab" / "main.go", go_mod(release), draft / "kubelab")
            for program in PROGRAMS:
                (draft / program).symlink_to("kubelab")
            draft.rename(folder)
    return {program: folder / program for program in PROGRAMS}


def _built(release: str) -> Path:
    return CACHE / f"kubelab-{release}"


def _go_build(release: str, main: Path, module_text: str, target: Path) -> None:
    """Build one program in a folder of its own; the target appears when it is whole."""
    go = machine.go()
    work = target.parent.with_name(target.parent.name + ".src")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(main, work / "main.go")
    (work / "go.mod").write_text(module_text)
    with step(f"building {target.name} {release} (minutes when the Go cache is cold)"):
        run([go, "mod", "tidy"], cwd=work, env=go_env())
        run([go, "build", "-ldflags", version_flags(release), "-o", work / "program", "."], cwd=work, env=go_env())
    (work / "program").rename(target)
    shutil.rmtree(work)


def _found(release: str) -> dict[str, Path] | None:
    search = [os.environ.get("KUBEBUILDER_ASSETS") or "", _path()]
    found = {program: shutil.which(program, path=os.pathsep.join(filter(None, search))) for program in PROGRAMS}
    if not all(found.values()) or _server_version(Path(found["kube-apiserver"] or "")) != release:
        return None
    return {program: Path(path) for program, path in found.items() if path}


def _path() -> str:
    """The PATH without the labs' own folders, which only link to what is found here."""
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(entry for entry in entries if not Path(entry).is_relative_to(LABS))


def _server_version(program: Path) -> str:
    return run([program, "--version"], check=False).stdout.strip().removeprefix("Kubernetes v")


def _client_version(program: Path) -> str:
    answer = run([program, "version", "--client", "--output=json"], check=False).stdout
    try:
        version: str = json.loads(answer)["clientVersion"]["gitVersion"]
    except (ValueError, KeyError):
        return ""
    return version.removeprefix("v")


def _group(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise LabError(f"the go.mod of Kubernetes has no line like {pattern}")
    return match.group(1)
