"""What a container shows of its volumes and of the files that vknix makes: sources on the host, targets inside. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from vknix.core.container import Container
from vknix.core.pod import Pod
from vknix.errors import Refused
from vknix.nspawn import paths


@dataclass(frozen=True, slots=True)
class Mount:
    """`source` on the host, `target` in the container. `file`: both are files."""

    source: str
    target: str
    read_only: bool
    file: bool = False


def mounts(pod: Pod, path: str, container: Container, uid32: str) -> Iterator[Mount]:
    """Parents before what is mounted in them; what the Pod mounts itself is not mounted by vknix."""
    made = {volume.name: volume for volume in pod.spec.volumes or ()}
    asked = {}
    for index, mount in enumerate(container.volume_mounts or ()):
        target = _target(f"{path}.volumeMounts[{index}].mountPath", "/" + mount.mount_path)
        volume = made.get(mount.name)
        if volume is None:
            raise Refused(
                f"{path}.volumeMounts[{index}].name", f"there is no volume {mount.name!r}", remedy="name one of spec.volumes"
            )
        if volume.empty_dir is not None:
            asked[target] = Mount(f"{paths.var(uid32)}/empty/{volume.name}", target, bool(mount.read_only))
        else:
            asked[target] = Mount(f"{paths.run(uid32)}/vol/{volume.name}", target, read_only=True)
    own = {
        "/etc/hosts": Mount(f"{paths.run(uid32)}/hosts", "/etc/hosts", read_only=False, file=True),
        "/etc/resolv.conf": Mount(f"{paths.run(uid32)}/resolv.conf", "/etc/resolv.conf", read_only=False, file=True),
        "/dev/shm": Mount(f"{paths.run(uid32)}/shm", "/dev/shm", read_only=False),  # noqa: S108  # the container's, not ours
    }
    message = _target(f"{path}.terminationMessagePath", container.termination_message_path or "/dev/termination-log")
    own[message] = Mount(f"{paths.var_of(uid32, container.name)}/message", message, read_only=False, file=True)
    yield from sorted({**own, **asked}.values(), key=lambda mount: (mount.target.count("/"), mount.target))


def _target(field_path: str, asked: str) -> str:
    """Where a mount goes, without detours. The plan makes mount points in the root: a path must stay in it, and out of /nix."""
    target = paths.inside(asked)
    if ".." in asked.split("/") or target == "/" or not asked.startswith("/") or "\0" in asked:
        raise Refused(field_path, f"{asked!r} is no place in a container", remedy="use an absolute path without ..")
    if target == "/nix" or target.startswith("/nix/"):
        raise Refused(field_path, "/nix is the closure's", remedy="mount elsewhere")
    return target
