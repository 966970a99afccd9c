"""What of a container's plan goes by its handler: mounts, capabilities, where programs are. Pure; see service.py, system.py."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from vknix.core.container import Container
from vknix.core.handlers import Handler
from vknix.core.image import Image
from vknix.nspawn import capabilities, paths
from vknix.nspawn.mounts import Mount

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SYSTEM_PATH = "/run/wrappers/bin:/run/current-system/sw/bin:/run/current-system/sw/sbin"
# What nspawn leaves to a system that it boots with a network of its own (nspawn.c, arg_caps_retain).
_INIT_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST
    NET_ADMIN NET_RAW IPC_OWNER SYS_CHROOT SYS_PTRACE SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TTY_CONFIG MKNOD LEASE
    AUDIT_WRITE AUDIT_CONTROL SETFCAP
    """.split()
)
# A unit has the host's own /dev/shm. A system replaces these files of /etc by its own, which it can't where they are mount points.
_NOT_MOUNTED = {Handler.UNIT: ("/dev/shm",), Handler.NIXOS: ("/etc/hosts", "/etc/resolv.conf")}  # noqa: S108  # no use of it


def mounts(of: Iterable[Mount], handler: Handler) -> Iterator[Mount]:
    """/var/run is a link to /run on a host, and is to be one in a system."""
    for mount in of:
        if handler is Handler.NSPAWN:
            yield mount
        elif mount.target not in _NOT_MOUNTED[handler]:
            target = paths.below_run(mount.target)
            yield replace(_plain(mount) if handler is Handler.UNIT else mount, target=target)


def _plain(mount: Mount) -> Mount:
    """A unit's mounts are systemd's: all of a volume, as it is on the host."""
    if mount.made is None:
        return mount
    return replace(mount, source=mount.made.volume, read_only=any(letter in mount.made.how for letter in "rR"), made=None)


def granted(path: str, container: Container, handler: Handler, bounding: int) -> tuple[str, ...]:
    """`bounding` is what the host itself has."""
    if handler is not Handler.NIXOS:
        return capabilities.capabilities(path, container)
    return tuple(name for name in _INIT_CAPABILITIES if bounding & capabilities.mask((name,)))


def search_path(image: Image, handler: Handler) -> str:
    if handler is Handler.NIXOS:
        return _SYSTEM_PATH
    return _PATH if image.is_root else f"{image.path}/bin:{image.path}/sbin:{_PATH}"
