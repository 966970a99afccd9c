"""What a container shows of its volumes and of the files that vknix makes: sources on the host, targets inside. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vknix.core.container import Container, VolumeMount
from vknix.core.inputs import Inputs
from vknix.core.pod import Pod
from vknix.core.storage import Closure, Disk, HostDir, Memory, Nfs, Storage
from vknix.errors import Refused
from vknix.nspawn import paths


@dataclass(frozen=True, slots=True)
class Made:
    """A mount that vktool makes: `sub` is a path in the volume, `how` the letters of `vktool mount`."""

    volume: str
    sub: str
    how: str


@dataclass(frozen=True, slots=True)
class Mount:
    """`source` on the host, `target` in the container. `file`: both are files. `made` by vktool: it sees what they are."""

    source: str
    target: str
    read_only: bool
    file: bool = False
    made: Made | None = None


def mounts(pod: Pod, path: str, container: Container, inputs: Inputs, uid32: str) -> Iterator[Mount]:
    """Parents before what is mounted in them; what the Pod mounts itself is not mounted by vknix."""
    subs = inputs.containers[container.name].sub_paths
    asked = {}
    for index, mount in enumerate(container.volume_mounts or ()):
        field = f"{path}.volumeMounts[{index}]"
        target = _target(f"{field}.mountPath", "/" + mount.mount_path)
        asked[target] = _asked(field, target, mount, subs[index], inputs, uid32)
    own = {
        "/etc/hosts": Mount(f"{paths.run(uid32)}/hosts", "/etc/hosts", read_only=False, file=True),
        "/etc/resolv.conf": Mount(f"{paths.run(uid32)}/resolv.conf", "/etc/resolv.conf", read_only=False, file=True),
        "/dev/shm": Mount(f"{paths.run(uid32)}/shm", "/dev/shm", read_only=False),  # noqa: S108  # the container's, not ours
    }
    message = _target(f"{path}.terminationMessagePath", container.termination_message_path or "/dev/termination-log")
    own[message] = Mount(f"{paths.var_of(uid32, container.name)}/message", message, read_only=False, file=True)
    number = 0
    for each in sorted({**own, **asked}.values(), key=lambda mount: (mount.target.count("/"), mount.target)):
        if each.made is None:
            yield each
        else:
            yield replace(each, source=f"{points(uid32, container.name)}/{number}")
            number += 1


def points(uid32: str, container: str) -> str:
    """Where vktool makes mounts, numbered, for this container's nspawn alone."""
    return f"{paths.run_of(uid32, container)}/mnt"


def specification(made: Iterable[Mount]) -> bytes:
    """What `vktool mount` reads: four fields a mount, each ended by a NUL."""
    fields = ((of.made.volume, of.made.sub, of.target, of.made.how) for of in made if of.made is not None)
    return b"".join(each.encode() + b"\0" for of in fields for each in of)


def where(uid32: str, name: str, of: Storage | None) -> str:
    """Where a volume is on its host; None: it is one of files."""
    match of:
        case None:
            return f"{paths.run(uid32)}/vol/{name}"
        case Disk():
            return f"{paths.var(uid32)}/empty/{name}"
        case Memory():
            return f"{paths.run(uid32)}/mem/{name}"
        case Nfs():
            return f"{paths.run(uid32)}/nfs/{name}"
        case HostDir(path) | Closure(path):
            return path


def _asked(field: str, target: str, mount: VolumeMount, sub: str, inputs: Inputs, uid32: str) -> Mount:
    """A plain bind, where it is all of a volume that vknix made; else what vktool makes."""
    of = inputs.storage.get(mount.name)
    if of is None and mount.name not in inputs.volumes:
        raise Refused(f"{field}.name", f"there is no volume {mount.name!r}", remedy="name one of spec.volumes")
    volume = where(uid32, mount.name, of)
    read_only = bool(mount.read_only) or of is None
    if not sub and (of is None or isinstance(of, Disk | Memory)):
        return Mount(volume, target, read_only)
    return Mount("", target, read_only=False, made=Made(volume, sub, _how(mount, of)))


def _how(mount: VolumeMount, of: Storage | None) -> str:
    """Letters for `vktool mount`."""
    image = isinstance(of, Closure)
    read_only = mount.read_only or of is None or (isinstance(of, HostDir | Nfs) and of.read_only)
    recursive = image or mount.recursive_read_only in ("Enabled", "IfPossible")
    show_later = "s" if mount.mount_propagation == "HostToContainer" else ""
    kept = "R" if recursive else "r"
    return ("x" if image else "c") + (kept if read_only or image else "") + show_later


def _target(field_path: str, asked: str) -> str:
    """Where a mount goes, without detours. The plan makes mount points in the root: a path must stay in it, and out of /nix."""
    target = paths.inside(asked)
    if ".." in asked.split("/") or target == "/" or not asked.startswith("/") or "\0" in asked:
        raise Refused(field_path, f"{asked!r} is no place in a container", remedy="use an absolute path without ..")
    if target == "/nix" or target.startswith("/nix/"):
        raise Refused(field_path, "/nix is the closure's", remedy="mount elsewhere")
    return target
