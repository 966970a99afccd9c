"""Pod + inputs + host -> MachinePlan: what a host is to have, as values. Pure; unit.py turns it into a tar and a script."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vknix.core import image, resources
from vknix.core import pod as pods
from vknix.core.container import Container
from vknix.core.facts import StorePath
from vknix.core.files import File as VolumeFile
from vknix.core.inputs import ContainerInputs, Inputs
from vknix.core.pod import Member, Pod
from vknix.core.resources import Amounts
from vknix.errors import Refused
from vknix.nspawn import paths

# What containerd gives a container that asks for nothing (oci/spec.go, defaultUnixCaps).
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
# In the kernel's order: the number of each is its bit.
CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST
    NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE
    SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
    BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
    """.split()
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the whole backend. `tool` is vktool's path on the host."""

    tool: str
    epoch: int
    seccomp_default: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """`source` on the host, `target` in the container. `file`: both are files."""

    source: str
    target: str
    read_only: bool
    file: bool = False


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """One container. `seccomp`: nspawn's filter stays on. Capabilities as in the kernel's sets; `env` has all of it.

    `closure_files` are the store paths of the closure that are files: an overlay redirects directories only.
    """

    container: str
    closure: StorePath
    closure_files: tuple[str, ...]
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = field(repr=False)
    directory: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: tuple[str, ...]
    no_new_privileges: bool
    read_only_root: bool
    seccomp: bool
    mounts: tuple[Mount, ...]
    limits: Amounts
    requests: Amounts
    restart: str  # systemd's Restart=
    fallback_to_logs: bool


@dataclass(frozen=True, slots=True)
class PodPlan:
    """`machines` are the containers that can be configured, in the Pod's order; which of them start is the caller's to say.

    `closures` are of all containers. `shared_ipc`: not where a Pod of one container has the IPC namespace to itself anyway.
    """

    uid32: str
    namespace: str
    name: str
    addresses: tuple[str, ...]
    hostname: str
    hosts: bytes
    resolv_conf: bytes
    closures: Mapping[str, StorePath]
    machines: tuple[MachinePlan, ...]
    shared_ipc: bool
    volumes: Mapping[str, tuple[VolumeFile, ...]]
    empty: tuple[str, ...]
    grace_s: int
    limits: Amounts


_RESTART = {"Always": "always", "OnFailure": "on-failure", "Never": "no"}


def pod_plan(
    pod: Pod, inputs: Inputs, addresses: tuple[str, ...], settings: Settings, closure_files: Mapping[StorePath, tuple[str, ...]]
) -> PodPlan:
    """`closure_files` by the closure's root. Refused where something in the Pod can't be made on any host."""
    uid32 = paths.uid32(pod.uid)
    _check_names(pod, uid32, addresses)
    return PodPlan(
        uid32=uid32,
        namespace=pod.namespace,
        name=pod.name,
        addresses=addresses,
        hostname=inputs.hostname,
        hosts=inputs.hosts,
        resolv_conf=inputs.resolv_conf,
        closures={container.name: image.parse(container.image, f"{path}.image").path for path, container in pods.containers(pod)},
        shared_ipc=sum(1 for _ in pods.members(pod)) > 1,
        machines=tuple(
            _machine(pod, member, inputs.containers[member.name], uid32, settings, closure_files)
            for member in pods.members(pod)
            if member.name in inputs.containers
        ),
        volumes=inputs.volumes,
        empty=tuple(volume.name for volume in pod.spec.volumes or () if volume.empty_dir is not None),
        grace_s=max(2, pod.spec.grace_s),
        limits=resources.limited(pod),
    )


_UID32 = re.compile("[0-9a-f]{32}")
_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def _check_names(pod: Pod, uid32: str, addresses: tuple[str, ...]) -> None:
    """The API server sees to it; but paths, units and scripts are made of names, and no address means the host's network."""
    named = [(f"{path}.name", container.name) for path, container in pods.containers(pod)]
    named += [(f"spec.volumes[{index}].name", volume.name) for index, volume in enumerate(pod.spec.volumes or ())]
    for field_path, name in named:
        if not _LABEL.fullmatch(name):
            raise Refused(field_path, f"{name!r} is no DNS label", remedy="use lower case letters, digits and dashes")
    if not _UID32.fullmatch(uid32):
        raise Refused("metadata.uid", f"{pod.uid!r} is no UUID", remedy="create the Pod through an API server")
    if not addresses and not pod.spec.host_network:
        raise Refused("", "the Pod has no address", remedy="create it anew")


def _machine(
    pod: Pod,
    member: Member,
    inputs: ContainerInputs,
    uid32: str,
    settings: Settings,
    closure_files: Mapping[StorePath, tuple[str, ...]],
) -> MachinePlan:
    path, container = member.path, member.container
    own, whole = container.security_context, pod.spec.security_context
    closure = image.parse(container.image, f"{path}.image").path
    uid = _first(own.run_as_user if own else None, whole.run_as_user if whole else None)
    profile = (own and own.seccomp_profile) or (whole and whole.seccomp_profile)
    return MachinePlan(
        container=container.name,
        closure=closure,
        closure_files=closure_files.get(closure, ()),
        argv=inputs.argv,
        env=_environment(closure, uid, pod, inputs),
        directory=paths.inside(container.working_dir or "/"),
        uid=uid,
        gid=_first(own.run_as_group if own else None, whole.run_as_group if whole else None),
        groups=tuple((whole and whole.supplemental_groups) or ()),
        capabilities=_capabilities(path, container),
        no_new_privileges=bool(own and own.allow_privilege_escalation is False),
        read_only_root=bool(own and own.read_only_root_filesystem),
        seccomp=profile.type == "RuntimeDefault" if profile else settings.seccomp_default,
        mounts=tuple(_mounts(pod, path, container, uid32)),
        limits=resources.limits(container),
        requests=resources.requests(container),
        restart=_RESTART[member.policy],
        fallback_to_logs=container.termination_message_policy == "FallbackToLogsOnError",
    )


def _first(*values: int | None) -> int:
    return next((value for value in values if value is not None), 0)


def _environment(closure: StorePath, uid: int, pod: Pod, inputs: ContainerInputs) -> tuple[tuple[str, str], ...]:
    """A runtime's own variables come first; the Pod's override them."""
    own = {
        "PATH": f"{closure}/bin:{closure}/sbin:{_PATH}",
        "HOSTNAME": pod.spec.hostname or pod.name[:63].rstrip("-."),
        "HOME": "/root" if uid == 0 else "/",
    }
    return tuple({**own, **dict(inputs.env)}.items())


def _capabilities(path: str, container: Container) -> tuple[str, ...]:
    asked = container.security_context and container.security_context.capabilities
    if not asked:
        return DEFAULT_CAPABILITIES
    drop, add = _named(path, "drop", asked.drop or []), _named(path, "add", asked.add or [])
    kept = [] if "ALL" in drop else [name for name in DEFAULT_CAPABILITIES if name not in drop]
    if "ALL" in add:
        kept = [name for name in CAPABILITIES if name not in drop]
    return tuple(dict.fromkeys((*kept, *(name for name in add if name != "ALL"))))


def _named(path: str, kind: str, names: list[str]) -> list[str]:
    full = [name if name == "ALL" else "CAP_" + name.removeprefix("CAP_") for name in (name.upper() for name in names)]
    for index, name in enumerate(full):
        if name != "ALL" and name not in CAPABILITIES:
            raise Refused(
                f"{path}.securityContext.capabilities.{kind}[{index}]",
                f"{names[index]!r} is no capability",
                remedy="see capabilities(7)",
            )
    return full


def mask(capabilities: tuple[str, ...]) -> int:
    return sum(1 << CAPABILITIES.index(name) for name in capabilities)


def _mounts(pod: Pod, path: str, container: Container, uid32: str) -> Iterator[Mount]:
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


def oci(plan: PodPlan, machine: MachinePlan) -> bytes:
    """config.json of the bundle. nspawn wants 1.0.0, and mounts on its command line."""
    sets = ("bounding", "effective", "permitted")
    process: dict[str, Any] = {
        "terminal": False,
        "user": {"uid": machine.uid, "gid": machine.gid, "additionalGids": list(machine.groups)},
        "args": list(machine.argv),
        "env": [f"{name}={value}" for name, value in machine.env],
        "cwd": machine.directory,
        "capabilities": {**{kind: list(machine.capabilities) for kind in sets}, "inheritable": [], "ambient": []},
        "noNewPrivileges": machine.no_new_privileges,
    }
    namespaces = ["pid", "mount", "uts", *([] if plan.shared_ipc else ["ipc"])]
    return json.dumps(
        {
            "ociVersion": "1.0.0",
            "process": process,
            "root": {"path": f"{paths.var_of(plan.uid32, machine.container)}/root", "readonly": machine.read_only_root},
            "hostname": plan.hostname,
            "linux": {"namespaces": [{"type": kind} for kind in namespaces]},
        }
    ).encode()


def identity(machine: MachinePlan) -> bytes:
    """What a process of the container is, for `vktool exec`: fields ended by NUL."""
    env = [f"{name}={value}" for name, value in machine.env]
    groups = ",".join(str(group) for group in machine.groups) or "-"
    privileges = "1" if machine.no_new_privileges else "0"
    fields = [
        f"{mask(machine.capabilities):x}",
        str(machine.uid),
        str(machine.gid),
        groups,
        privileges,
        machine.directory,
        str(len(env)),
        *env,
    ]
    return b"".join(each.encode() + b"\0" for each in fields)
