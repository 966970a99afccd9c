"""Volumes that are no files made by vknix: emptyDir, hostPath, NFS, images and claims -> what a host is to have. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vknix.core import claims, quantity, resources
from vknix.core.container import Container
from vknix.core.facts import StorePath
from vknix.core.fetched import Fetched, Surroundings
from vknix.core.pod import Pod
from vknix.core.volume import ClaimSource, EmptyDir, Volume
from vknix.errors import Refused


@dataclass(frozen=True, slots=True)
class Disk:
    """An emptyDir on the host's disk. The Pod that has more than `limit_bytes` in it is evicted."""

    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """An emptyDir in memory: a tmpfs of that size."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class HostDir:
    """A path of the host. `type` as in hostPath; `owned`: the Pod's fsGroup gets it."""

    path: str
    type: str = ""
    read_only: bool = False
    owned: bool = False


@dataclass(frozen=True, slots=True)
class Nfs:
    server: str
    path: str
    options: tuple[str, ...] = ()
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Closure:
    """A store path as a volume, with what it needs beside it in /nix/store."""

    path: StorePath


Storage = Disk | Memory | HostDir | Nfs | Closure


def storages(pod: Pod, fetched: Fetched, around: Surroundings) -> Mapping[str, Storage]:
    """By volume. Refused with FailedMount where a claim is not (yet) bound to what vknix can mount."""
    return {volume.name: of for volume, of in _each(pod, fetched, around)}


def empty_dirs(pod: Pod) -> Iterator[tuple[Volume, Storage]]:
    """Of which kind each is; not how large."""
    for volume in pod.spec.volumes or ():
        if volume.empty_dir is not None:
            yield volume, Memory(0) if volume.empty_dir.medium == "Memory" else Disk()


def images(pod: Pod) -> Iterator[tuple[str, StorePath]]:
    """The volumes that are closures, by name."""
    for index, volume in enumerate(pod.spec.volumes or ()):
        if volume.image is not None:
            yield volume.name, pod.aliases.find(volume.image.reference, f"spec.volumes[{index}].image.reference").path


def roots(pod: Pod, path: str, container: Container) -> dict[str, StorePath]:
    """The closures that a container needs, its own first, by the name of their image."""
    volumes = {volume.name: (f"spec.volumes[{index}]", volume) for index, volume in enumerate(pod.spec.volumes or ())}
    needed = {container.image: pod.image(path, container).path}
    for mount in container.volume_mounts or ():
        at, volume = volumes.get(mount.name, ("", None))
        if volume is not None and volume.image is not None:
            needed[volume.image.reference] = pod.aliases.find(volume.image.reference, f"{at}.image.reference").path
    return needed


def readable(pod: Pod, path: str, container: Container) -> dict[str, StorePath]:
    """The same; none where one of their names names no closure (any more)."""
    try:
        return roots(pod, path, container)
    except Refused:
        return {}


def unreadable(pod: Pod, path: str, container: Container) -> Refused | None:
    """Which of a container's images names no closure: one that was changed, or whose alias has gone from the configuration."""
    try:
        roots(pod, path, container)
    except Refused as refusal:
        return refusal
    return None


def _each(pod: Pod, fetched: Fetched, around: Surroundings) -> Iterator[tuple[Volume, Storage]]:
    for index, volume in enumerate(pod.spec.volumes or ()):
        of = _storage(pod, f"spec.volumes[{index}]", volume, fetched, around)
        if of is not None:
            yield volume, of


def _storage(pod: Pod, path: str, volume: Volume, fetched: Fetched, around: Surroundings) -> Storage | None:
    if volume.empty_dir is not None:
        return _empty(pod, volume.empty_dir, around)
    if volume.host_path is not None:
        return HostDir(_absolute(path, volume, volume.host_path.path), volume.host_path.type or "")
    if volume.nfs is not None:
        of = volume.nfs
        return Nfs(of.server, _absolute(path, volume, of.path), (), bool(of.read_only))
    if volume.image is not None:
        return Closure(pod.aliases.find(volume.image.reference, f"{path}.image.reference").path)
    source = claims.source(pod, volume)
    return _claimed(pod, path, volume, source, fetched) if source is not None else None


def _empty(pod: Pod, of: EmptyDir, around: Surroundings) -> Disk | Memory:
    limit = quantity.whole(of.size_limit) if of.size_limit is not None else 0
    if of.medium != "Memory":
        return Disk(limit or None)
    whole = resources.limited(pod).memory_bytes or 0
    return Memory(min((each for each in (limit, whole, around.memory_bytes) if each), default=0))


def _claimed(pod: Pod, path: str, volume: Volume, source: ClaimSource, fetched: Fetched) -> Storage:
    bound = claims.bound(pod, path, volume, fetched.claims.get(source.claim_name))
    read_only = bool(source.read_only)
    if bound.local is not None:
        return HostDir(_absolute(path, volume, bound.local.path), "Exists", read_only, owned=not read_only)
    if bound.host_path is not None:
        return HostDir(_absolute(path, volume, bound.host_path.path), bound.host_path.type or "", read_only)
    assert bound.nfs is not None
    of = bound.nfs
    return Nfs(of.server, _absolute(path, volume, of.path), tuple(bound.mount_options or ()), read_only or bool(of.read_only))


def _absolute(field: str, volume: Volume, path: str) -> str:
    """Refused where a path has what no path of a host has: `..`, a NUL, a beginning in nowhere."""
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise Refused(
            field,
            f'MountVolume.SetUp failed for volume "{volume.name}": {path[:80]!r} is no path of a host',
            remedy="write an absolute path without ..",
            reason="FailedMount",
        )
    return path
