"""A shape of host in, the tree that each host of that shape is a copy of out. Made once, into the cache."""

import hashlib
import shutil
from pathlib import Path

from tests.lab.layout import CACHE, HERE, locked
from tests.lab.shell import run, step

SUITE = "trixie"
# All shapes are made of one base tree: systemd, sshd, Nix, and what NixOS has on its PATH and a minimal Debian has not.
PACKAGES = (
    "acl",
    "attr",
    "busybox-static",
    "bzip2",
    "ca-certificates",
    "cpio",
    "curl",
    "dbus",
    "dbus-broker",
    "gawk",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "less",
    "libcap2-bin",
    "libpam-systemd",
    "netcat-openbsd",
    "nftables",
    "nix-bin",
    "nix-setup-systemd",
    "openssh-server",
    "patch",
    "procps",
    "rsync",
    "systemd",
    "systemd-container",
    "systemd-sysv",
    "time",
    "xz-utils",
    "zstd",
)
KERNEL = "linux-image-cloud-amd64"
NFS = "nfs-kernel-server"  # of a virtual machine, whose kernel has NFS: it serves, and has no mount.nfs on its PATH


def is_cold(shape: str) -> bool:
    """Whether the shape's tree is still to be made."""
    return not _tree(shape).exists()


def tree(shape: str) -> Path:
    """The tree of `debian`, `nixos` or `vm`."""
    target = _tree(shape)
    with locked(CACHE / "locks" / "trees.lock"):
        if not target.exists():
            base = _base()
            draft = _draft(target)
            parts = [_unpacked("kernel", KERNEL), _unpacked("nfs", NFS)] if shape == "vm" else []
            with step(f"making the {shape} tree"):
                run([_script(shape), base, draft, *parts])
            draft.rename(target)
    return target


def _base() -> Path:
    target = CACHE / f"base-{_digest(SUITE, *PACKAGES)}.tar"
    if not target.exists():
        draft = _draft(target)
        with step(f"fetching Debian {SUITE} for the hosts"):
            run(["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, draft])
        draft.rename(target)
    return target


def _unpacked(name: str, package: str) -> Path:
    """A Debian package with what it needs, unpacked only: nothing of it is to be installed."""
    target = CACHE / f"{name}-{_digest(SUITE, package)}.tar"
    if not target.exists():
        draft = _draft(target)
        with step(f"fetching {package} of Debian {SUITE}"):
            run(["mmdebstrap", "--variant=extract", f"--include={package}", SUITE, draft])
        draft.rename(target)
    return target


def _tree(shape: str) -> Path:
    sources = [_script(shape), *HERE.glob(f"{shape}_shape.py"), *([_script("debian")] if shape == "vm" else [])]
    more = (KERNEL, NFS) if shape == "vm" else ()
    return CACHE / "trees" / f"{shape}-{_digest(SUITE, *PACKAGES, *more, *(source.read_text() for source in sources))}"


def _draft(target: Path) -> Path:
    """Where a thing is made, emptied of what an earlier run left there; mmdebstrap goes by the end of the name."""
    draft = target.with_name(f"new-{target.name}")
    draft.parent.mkdir(parents=True, exist_ok=True)
    if draft.is_dir():
        shutil.rmtree(draft)
    draft.unlink(missing_ok=True)
    return draft


def _script(shape: str) -> Path:
    return HERE / f"{shape}-shape.sh"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
