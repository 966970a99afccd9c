"""Pod + inputs + host -> MachinePlan: what a host is to have, as values. Pure; unit.py turns it into a tar and a script."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from vknix.core import pod as pods
from vknix.core import resources
from vknix.core.facts import StorePath
from vknix.core.files import File as VolumeFile
from vknix.core.handlers import DEFAULT, Handler
from vknix.core.image import Image
from vknix.core.inputs import ContainerInputs, Inputs
from vknix.core.pod import Member, Pod
from vknix.core.resources import Amounts
from vknix.errors import Refused
from vknix.nspawn import kinds, mounts, paths


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the whole backend. `tool` is vktool's path on the host, `bounding` the capabilities that the host itself has."""

    tool: str
    epoch: int
    seccomp_default: bool = False
    bounding: int = -1


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """One container. `seccomp`: nspawn's filter stays on. Capabilities as in the kernel's sets; `env` has all of it.

    `closure_files` are the store paths of the closure that are files: an overlay redirects directories only.
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
    mounts: tuple[mounts.Mount, ...]
    limits: Amounts
    requests: Amounts
    restart: str  # systemd's Restart=
    fallback_to_logs: bool

    @property
    def closure(self) -> StorePath:
        return self.image.path


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
    handler: Handler = DEFAULT


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
        closures={container.name: pod.image(path, container).path for path, container in pods.containers(pod)},
        shared_ipc=inputs.handler is not Handler.UNIT and sum(1 for _ in pods.members(pod)) > 1,
        machines=tuple(
            _machine(pod, member, inputs.containers[member.name], uid32, settings, closure_files, inputs.handler)
            for member in pods.members(pod)
            if member.name in inputs.containers
        ),
        volumes=inputs.volumes,
        empty=tuple(volume.name for volume in pod.spec.volumes or () if volume.empty_dir is not None),
        grace_s=max(2, pod.spec.grace_s),
        limits=resources.limited(pod),
        handler=inputs.handler,
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
    handler: Handler,
) -> MachinePlan:
    path, container = member.path, member.container
    own, whole = container.security_context, pod.spec.security_context
    image = pod.image(path, container)
    user = _first(own.run_as_user if own else None, whole.run_as_user if whole else None)
    uid = _first(user, image.user) or 0
    profile = (own and own.seccomp_profile) or (whole and whole.seccomp_profile)
    return MachinePlan(
        container=container.name,
        image=image,
        closure_files=closure_files.get(image.path, ()),
        argv=inputs.argv,
        env=_environment(kinds.search_path(image, handler), image, uid, pod, inputs),
        directory=paths.inside(container.working_dir or image.directory),
        uid=uid,
        gid=_first(
            own.run_as_group if own else None,
            whole.run_as_group if whole else None,
            image.group if user is None else None,
        )
        or 0,
        groups=tuple((whole and whole.supplemental_groups) or ()),
        capabilities=kinds.granted(path, container, handler, settings.bounding, host_network=bool(pod.spec.host_network)),
        no_new_privileges=bool(own and own.allow_privilege_escalation is False),
        read_only_root=bool(own and own.read_only_root_filesystem),
        seccomp=profile.type == "RuntimeDefault" if profile else settings.seccomp_default,
        mounts=tuple(kinds.mounts(mounts.mounts(pod, path, container, uid32), handler)),
        limits=resources.limits(container),
        requests=resources.requests(container),
        restart=_RESTART[member.policy],
        fallback_to_logs=container.termination_message_policy == "FallbackToLogsOnError",
    )


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _environment(path: str, image: Image, uid: int, pod: Pod, inputs: ContainerInputs) -> tuple[tuple[str, str], ...]:
    """A runtime's own variables come first, then the image's; the Pod's override them."""
    own = {
        "PATH": path,
        "HOSTNAME": pod.spec.hostname or pod.name[:63].rstrip("-."),
        "HOME": "/root" if uid == 0 else "/",
    }
    return tuple({**own, **dict(image.env), **dict(inputs.env)}.items())
