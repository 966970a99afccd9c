"""PodPlan -> the files that a host gets: config, volumes, the skeleton of each root, and the script that goes with them. Pure."""

import hashlib
import json
from collections.abc import Iterator

from vknix.core import accounts
from vknix.core.files import File as VolumeFile
from vknix.core.handlers import Handler
from vknix.core.image import Image
from vknix.core.storage import Disk
from vknix.nspawn import mounts, nix, oci, paths, service, system
from vknix.nspawn.plan import MachinePlan, PodPlan
from vknix.nspawn.tree import Dir, Entry, File, Link

HOSTS, RESOLV_CONF = "hosts", "resolv.conf"


def files(plan: PodPlan, script: str, nonce: str) -> list[Entry]:
    """Everything but what the first start alone may write; the script comes last, so a torn tar never has it."""
    return [
        *_pod_files(plan),
        *(entry for machine in plan.machines for entry in _machine_files(plan, machine)),
        script_file(plan.uid32, script, nonce),
    ]


def script_file(uid32: str, script: str, nonce: str) -> File:
    return File(f"{paths.run(uid32)}/sync-{nonce}", script.encode(), 0o700)


def _pod_files(plan: PodPlan) -> Iterator[Entry]:
    run, var = paths.run(plan.uid32), paths.var(plan.uid32)
    yield Dir(paths.RUN, 0o700)
    yield Dir(run, 0o700)
    yield Dir(f"{run}/c", 0o700)
    yield Dir(f"{run}/vol", 0o755)
    yield Dir(f"{run}/shm", 0o1777)
    if any(not isinstance(of, Disk) for of in plan.storage.values()):
        yield Dir(f"{run}/mem", 0o755)
        yield Dir(f"{run}/nfs", 0o755)
        yield Dir(f"{run}/made", 0o700)
    yield Dir(paths.VAR, 0o700)
    yield Dir(var, 0o700)
    yield Dir(f"{var}/c", 0o700)
    yield Dir(f"{var}/empty", 0o755)
    for name, of in plan.volumes.items():
        yield from _volume(f"{run}/vol/{name}", of, plan.fs_group)
    yield Dir(f"{run}/new", 0o700)
    for name, data in ((HOSTS, plan.hosts), (RESOLV_CONF, plan.resolv_conf)):
        yield File(f"{run}/new/{name}", data, 0o644)
    yield File(f"{var}/pod.json", _record(plan), 0o600)
    text = "[Slice]\n" + "".join(f"{name}={value}\n" for name, value in plan.slice)
    yield File(f"{paths.UNITS}/{paths.pod_slice(plan.uid32)}", text.encode(), 0o644)


def _record(plan: PodPlan) -> bytes:
    """What vknix must know to take the Pod over again."""
    users = {"users": plan.spaces.users} if plan.spaces.users is not None else {}
    of = {
        "namespace": plan.namespace,
        "name": plan.name,
        "addresses": plan.addresses,
        "closures": dict(plan.closures),
        "images": plan.images,
        "handler": plan.handler.value,
        **users,
    }
    return json.dumps(of).encode()


def _volume(root: str, of: tuple[VolumeFile, ...], fs_group: int | None) -> Iterator[Entry]:
    """What is to be in a volume, beside what is: the script puts it in place as a whole, unless it is there already."""
    fresh = f"{root}/..new-{digest(of)}"
    mode, group = (0o2755, fs_group) if fs_group is not None else (0o755, 0)
    yield Dir(root, mode, group=group)
    yield Dir(fresh, mode, group=group)
    made: set[str] = set()
    for file in of:
        parts = file.path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent not in made:
                made.add(parent)
                yield Dir(f"{fresh}/{parent}", mode, group=group)
        yield File(f"{fresh}/{file.path}", file.data, file.mode, file.user, group)


def digest(of: tuple[VolumeFile, ...]) -> str:
    digest = hashlib.sha256()
    for file in sorted(of, key=lambda file: file.path):
        digest.update(f"{file.path}\0{file.mode}\0{file.user}\0{len(file.data)}\0".encode() + file.data)
    return digest.hexdigest()[:20]


def _machine_files(plan: PodPlan, machine: MachinePlan) -> Iterator[Entry]:
    run, var = paths.run_of(plan.uid32, machine.container), paths.var_of(plan.uid32, machine.container)
    yield Dir(run, 0o700)
    yield File(f"{run}/limits.new", machine.limits)
    yield File(f"{run}/identity", oci.identity(plan, machine))
    if machine.made_mounts:
        yield File(f"{run}/mounts", mounts.specification(machine.made_mounts))
        yield Dir(f"{run}/mnt", 0o700)
    yield Dir(var, 0o700)
    yield Dir(f"{var}/log", 0o700)
    if machine.view is not None:
        yield from nix.view(machine.view, f"{machine.farm(plan.uid32)}.new")
    match plan.handler:
        case Handler.NSPAWN:
            yield File(f"{run}/config.json", oci.config(plan, machine))
            yield from _skeleton(f"{var}/skeleton", machine)
            if machine.image.is_root:
                yield File(f"{var}/skeleton.image", _image(machine.image))
        case Handler.UNIT:
            yield from service.files(plan, machine)
        case Handler.NIXOS:
            yield File(f"{run}/config.json", oci.config(plan, machine))
            yield from _mount_points(f"{var}/skeleton", machine, set())
            yield from system.files(plan, machine)


def _image(image: Image) -> bytes:
    """For vktool: the tree that a root begins with, then modes of files in it."""
    return "".join((f"{image.path}\n", *(f"{mode:o} {path}\n" for path, mode in image.modes))).encode()


def _skeleton(root: str, machine: MachinePlan) -> Iterator[Entry]:
    """What each attempt's fresh root is copied from, after its image's own: mount points (a read-only root gets no more), /bin."""
    made: set[str] = set()
    yield from _mount_points(root, machine, made)
    for path in ("/bin", "/usr/bin") if not machine.image.is_root else ():
        if path not in made:  # as the place of a volume
            yield Link(root + path, f"{machine.closure}/bin")
    for path, data in (("/etc/passwd", accounts.PASSWD), ("/etc/group", accounts.GROUP)):
        if path not in made:
            yield File(root + path, data.encode(), 0o644)


def _mount_points(root: str, machine: MachinePlan, made: set[str]) -> Iterator[Entry]:
    """`made` gets what there is then."""
    made.add("")

    def parents(path: str) -> Iterator[Entry]:
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            yield from directory("/" + "/".join(parts[:depth]))

    def directory(path: str, mode: int = 0o755) -> Iterator[Entry]:
        if path not in made:
            made.add(path)
            yield Dir(root + path, mode)

    yield Dir(root)
    for path in ("/dev", "/etc", "/nix", "/proc", "/run", "/sys", "/usr", "/var", "/var/tmp"):  # noqa: S108  # the container's
        yield from directory(path, 0o1777 if path == "/var/tmp" else 0o755)  # noqa: S108
    yield from directory("/root", 0o700)
    yield from directory("/tmp", 0o1777)  # noqa: S108
    if not f"{machine.directory}/".startswith(("/nix/", "/bin/", "/usr/bin/")):  # those are the closure's, as they are
        yield from parents(machine.directory + "/x")
    for mount in machine.mounts:
        yield from parents(mount.target)
        if mount.target.startswith("/dev/") or mount.made is not None:
            continue  # nspawn makes /dev anew, and vktool knows whether a part of a volume is a file
        if mount.file:
            yield File(root + mount.target, b"", 0o644)
        else:
            yield from directory(mount.target)
