"""Pod + inputs + host -> MachinePlan: what a host is to have, as values. Pure; unit.py turns it into a tar and a script."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from vknix.core import accounts, host_ports, qos, resources, user
from vknix.core import pod as pods
from vknix.core.container import Container
from vknix.core.facts import StorePath
from vknix.core.files import File as VolumeFile
from vknix.core.handlers import DEFAULT, Handler
from vknix.core.host_ports import Port
from vknix.core.image import Image
from vknix.core.inputs import ContainerInputs, Inputs
from vknix.core.pod import Kind, Member, Pod
from vknix.core.resources import Amounts
from vknix.core.storage import Closure, Storage
from vknix.errors import Refused
from vknix.nspawn import capabilities, kinds, limits, mounts, nix, paths
from vknix.nspawn.mounts import Mount
from vknix.nspawn.spaces import Spaces, spaces


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Of one container's log: how large a file of it gets (bytes), and how many are kept."""

    size: int
    files: int


LOG_LIMITS = LogLimits(10 * 1024**2, 5)  # a kubelet's


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the whole backend. `tool` is vktool's path on the host, `bounding` the capabilities that the host itself has,
    `memory_bytes` its memory, `huge` the sizes of its huge pages; `pod_pids`: how many processes a Pod may have; `nft` is the
    program.
    """

    tool: str
    epoch: int
    seccomp_default: bool = False
    bounding: int = -1
    pod_pids: int | None = None
    memory_bytes: int = 0
    logs: LogLimits = LOG_LIMITS
    nft: str = "nft"
    huge: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """One container. Capabilities as in the kernel's sets; `groups` are all of them; `env` has all of it.

    `unmasked`: nothing of /proc is hidden.

    `closure_files` are the store paths that are files: an overlay redirects directories only. `images` are the closures that it has
    as volumes, `view` is what it sees of the store with them. `limits` is the file.
    """

    container: str
    image: Image
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
    privileged: bool
    unmasked: bool
    mounts: tuple[Mount, ...]
    limits: bytes
    requests: Amounts
    oom_score_adj: int
    restart: str  # systemd's Restart=
    image_name: str  # as the Pod has it
    stop_signal: str
    stdin: bool
    stdin_once: bool
    tty: bool
    target: str | None  # the container among whose processes it is to be
    fallback_to_logs: bool
    images: tuple[StorePath, ...] = ()
    view: nix.Closure | None = None

    @property
    def closure(self) -> StorePath:
        return self.image.path

    @property
    def roots(self) -> tuple[StorePath, ...]:
        """The closures that it needs."""
        return (self.closure, *self.images)

    def farm(self, uid32: str) -> str:
        """Where its view of the store is: its closure's, else one of its own where it has closures as volumes."""
        return paths.farm(self.closure) if self.view is None else f"{paths.var_of(uid32, self.container)}/farm"

    @property
    def made_mounts(self) -> tuple[Mount, ...]:
        """Those that vktool makes, in the order in which it numbers them."""
        return tuple(mount for mount in self.mounts if mount.made is not None)


@dataclass(frozen=True, slots=True)
class PodPlan:
    """`machines` are the containers that can be configured, in the Pod's order; which of them start is the caller's to say.

    `closures` are of all containers, `images` those that are volumes. `slice` are the properties of its slice. `ports` are those of
    its host that lead to it.
    """

    uid32: str
    namespace: str
    name: str
    addresses: tuple[str, ...]
    hostname: str
    hosts: bytes
    resolv_conf: bytes
    closures: Mapping[str, StorePath]
    images: tuple[StorePath, ...]
    machines: tuple[MachinePlan, ...]
    spaces: Spaces
    volumes: Mapping[str, tuple[VolumeFile, ...]]
    storage: Mapping[str, Storage]
    fs_group: int | None
    fs_group_always: bool
    grace_s: int
    slice: tuple[tuple[str, str], ...]
    handler: Handler = DEFAULT
    ports: tuple[Port, ...] = ()

    @property
    def roots(self) -> frozenset[StorePath]:
        """All closures that it uses."""
        return frozenset((*self.closures.values(), *self.images))

    def target(self, machine: MachinePlan) -> str | None:
        """The container whose processes this one joins; none where all of the Pod's containers see each other's anyway."""
        return None if self.spaces.processes or self.spaces.host_processes else machine.target

    def shares_processes(self, machine: MachinePlan) -> bool:
        return self.spaces.processes or self.spaces.host_processes or machine.target is not None


_RESTART = {"Always": "always", "OnFailure": "on-failure", "Never": "no"}


def pod_plan(
    pod: Pod,
    inputs: Inputs,
    addresses: tuple[str, ...],
    settings: Settings,
    known: Mapping[StorePath, nix.Closure],
    users: int | None = None,
) -> PodPlan:
    """`known` are the closures that the host has, by root; `users`: where the Pod's own users begin, if it has any.

    Refused where something in the Pod can't be made on any host.
    """
    uid32 = paths.uid32(pod.uid)
    whole = pod.spec.security_context
    _check_names(pod, uid32, addresses)
    return PodPlan(
        uid32=uid32,
        namespace=pod.namespace,
        name=pod.name,
        addresses=addresses,
        hostname=inputs.hostname,
        hosts=inputs.hosts,
        resolv_conf=inputs.resolv_conf,
        closures={container.name: pod.image(path, container).path for path, container in pods.containers(pod)},
        spaces=Spaces() if inputs.handler is Handler.UNIT else spaces(pod, _lasting(pod), users),
        images=tuple(dict.fromkeys(of.path for of in inputs.storage.values() if isinstance(of, Closure))),
        machines=tuple(
            _machine(pod, member, inputs, uid32, settings, known)
            for member in pods.members(pod)
            if member.name in inputs.containers
        ),
        volumes=inputs.volumes,
        storage=inputs.storage,
        fs_group=pod.fs_group,
        fs_group_always=not (whole and whole.fs_group_change_policy == "OnRootMismatch"),
        grace_s=max(2, pod.spec.grace_s),
        slice=tuple(limits.pod_slice(pod, settings.pod_pids)),
        handler=inputs.handler,
        ports=tuple(sorted(host_ports.published(pod))),
    )


def _lasting(pod: Pod) -> int:
    """How many containers a Pod has from its beginning on: what comes later changes nothing for those that run."""
    return sum(member.kind is not Kind.EPHEMERAL for member in pods.members(pod))


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
    inputs: Inputs,
    uid32: str,
    settings: Settings,
    known: Mapping[StorePath, nix.Closure],
) -> MachinePlan:
    path, container, handler = member.path, member.container, inputs.handler
    given = inputs.containers[member.name]
    own, whole = container.security_context, pod.spec.security_context
    image = pod.image(path, container)
    of_closure = known[image.path].accounts if image.path in known else None
    own_accounts = user.known(image, handler, of_closure) or accounts.DEFAULT
    who = user.user(pod, path, container, own_accounts)
    privileged = bool(own and own.privileged)
    images = _images(container, inputs)
    view = nix.union(image.path, images, known)
    profile = (own and own.seccomp_profile) or (whole and whole.seccomp_profile)
    own_env = {"PATH": kinds.search_path(image, handler), **({"TERM": "xterm"} if container.tty else {})}
    return MachinePlan(
        container=container.name,
        image=image,
        closure_files=view.files if view is not None else (),
        images=images,
        view=view if images else None,
        argv=given.argv,
        env=_environment(own_env, image, own_accounts.home(who.uid), inputs.hostname, given),
        directory=paths.inside(container.working_dir or image.directory),
        uid=who.uid,
        gid=who.gid,
        groups=who.groups,
        capabilities=kinds.granted(path, container, handler, settings.bounding),
        no_new_privileges=bool(own and own.allow_privilege_escalation is False),
        read_only_root=bool(own and own.read_only_root_filesystem),
        seccomp=not privileged and (profile.type == "RuntimeDefault" if profile else settings.seccomp_default),
        privileged=privileged,
        unmasked=privileged or bool(own and own.proc_mount == "Unmasked"),
        mounts=tuple(kinds.mounts(mounts.mounts(pod, path, container, inputs, uid32), handler)),
        limits=limits.cgroup(pod, container, settings.huge),
        requests=resources.requests(container),
        oom_score_adj=_oom_score_adj(pod, container, settings),
        restart=_RESTART[member.host_policy],
        image_name=container.image,
        stop_signal=(container.lifecycle and container.lifecycle.stop_signal) or "SIGTERM",
        stdin=bool(container.stdin),
        stdin_once=bool(container.stdin and container.stdin_once),
        tty=bool(container.tty),
        target=member.target,
        fallback_to_logs=container.termination_message_policy == "FallbackToLogsOnError",
    )


def _images(container: Container, inputs: Inputs) -> tuple[StorePath, ...]:
    """The closures among the volumes that it mounts."""
    each = (inputs.storage.get(mount.name) for mount in container.volume_mounts or ())
    return tuple(dict.fromkeys(of.path for of in each if isinstance(of, Closure)))


def _oom_score_adj(pod: Pod, container: Container, settings: Settings) -> int:
    """A host that is a container itself may not protect a process more than it is."""
    score = qos.oom_score_adj(pod, container, settings.memory_bytes)
    return score if settings.bounding & capabilities.mask(("CAP_SYS_RESOURCE",)) else max(0, score)


def _environment(
    runtimes: Mapping[str, str], image: Image, home: str, hostname: str, inputs: ContainerInputs
) -> tuple[tuple[str, str], ...]:
    """A runtime's own variables come first, then the image's; the Pod's override them."""
    own = {
        **runtimes,
        "HOSTNAME": hostname,
        "HOME": home,
    }
    return tuple({**own, **dict(image.env), **dict(inputs.env)}.items())
