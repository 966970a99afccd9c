"""A Pod as the API server sends it -> typed values, and its containers in their order.

Optional lists and maps are None where absent or null: Go clients send both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import msgspec

from vknix.core.container import Amount, Api, Container, EphemeralContainer, Resources, RestartRule, SeccompProfile
from vknix.core.facts import Uid
from vknix.core.image import NONE as NO_ALIASES
from vknix.core.image import Aliases, Image
from vknix.core.volume import Volume

RESTART_ALL = "RestartAllContainers"


class HostAlias(Api, frozen=True):
    ip: str
    hostnames: list[str] | None = None


class DnsOption(Api, frozen=True):
    name: str | None = None
    value: str | None = None


class DnsConfig(Api, frozen=True):
    nameservers: list[str] | None = None
    searches: list[str] | None = None
    options: list[DnsOption] | None = None


class ReadinessGate(Api, frozen=True):
    condition_type: str


class Sysctl(Api, frozen=True):
    name: str
    value: str = ""


class PodSecurityContext(Api, frozen=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: list[int] | None = None
    seccomp_profile: SeccompProfile | None = None
    supplemental_groups_policy: str | None = None
    fs_group: int | None = None
    fs_group_change_policy: str | None = None
    sysctls: list[Sysctl] | None = None


class PodSpec(Api, frozen=True):
    containers: list[Container]
    init_containers: list[Container] | None = None
    ephemeral_containers: list[EphemeralContainer] | None = None
    volumes: list[Volume] | None = None
    restart_policy: str = "Always"
    termination_grace_period_seconds: int | None = None
    dns_policy: str | None = None
    dns_config: DnsConfig | None = None
    host_aliases: list[HostAlias] | None = None
    hostname: str | None = None
    subdomain: str | None = None
    node_name: str | None = None
    service_account_name: str | None = None
    enable_service_links: bool | None = None
    security_context: PodSecurityContext | None = None
    readiness_gates: list[ReadinessGate] | None = None
    node_selector: dict[str, str] | None = None
    host_network: bool | None = None
    host_pid: bool | None = msgspec.field(default=None, name="hostPID")
    host_ipc: bool | None = msgspec.field(default=None, name="hostIPC")
    host_users: bool | None = None
    share_process_namespace: bool | None = None
    set_hostname_as_fqdn: bool | None = msgspec.field(default=None, name="setHostnameAsFQDN")
    hostname_override: str | None = None
    active_deadline_seconds: int | None = None
    runtime_class_name: str | None = None
    overhead: dict[str, Amount] | None = None
    resources: Resources | None = None
    priority: int | None = None

    @property
    def grace_s(self) -> int:
        grace = self.termination_grace_period_seconds
        return 30 if grace is None else max(1, grace)


class Metadata(Api, frozen=True):
    name: str
    uid: Uid
    namespace: str = "default"
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Pod(Api, frozen=True):
    """The whole Pod. `status` stays JSON: it is what was last told, compared with what is to be told.

    `aliases` do not come from the API server: they are the node's, by which image names are read. Nor does `late`, the ephemeral
    containers that are refused (see late.py), nor `evicted`, a sentence: why it is to fail (see eviction.py).
    """

    metadata: Metadata
    spec: PodSpec
    status: dict[str, Any] = msgspec.field(default_factory=dict)
    aliases: Aliases = msgspec.field(default=NO_ALIASES, name="vknix.io/aliases")
    late: dict[str, Any] = msgspec.field(default_factory=dict, name="vknix.io/late")
    evicted: str = msgspec.field(default="", name="vknix.io/evicted")

    @property
    def uid(self) -> Uid:
        return self.metadata.uid

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def together(self) -> bool:
        """Whether the exit of one container may be that of all (see rounds.py)."""
        each = (*(self.spec.init_containers or ()), *self.spec.containers)
        return any(rule.action == RESTART_ALL for container in each for rule in container.restart_policy_rules or ())

    @property
    def fs_group(self) -> int | None:
        return self.spec.security_context.fs_group if self.spec.security_context else None

    @property
    def leaving(self) -> bool:
        return self.metadata.deletion_timestamp is not None

    @property
    def phase(self) -> str:
        return str(self.status.get("phase") or "Pending")

    @property
    def ended(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    def image(self, path: str, container: Container) -> Image:
        """Refused (InvalidImageName) where the container's image names no closure; `path` is the container's in the Pod."""
        return self.aliases.find(container.image, f"{path}.image")

    def told(self, container: str) -> dict[str, Any]:
        """What the API server last heard of a container; empty where it heard nothing."""
        for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
            for status in self.status.get(kind) or ():
                if status.get("name") == container:
                    return dict(status)
        return {}


class PodRecord(msgspec.Struct, frozen=True, gc=False):
    """What the ledger keeps of each Pod: little, and the bytes from which the rest is decoded when it is looked at."""

    uid: Uid
    namespace: str
    name: str
    resource_version: str
    raw: bytes


class _Identified(Api, frozen=True):
    metadata: Metadata


_identity = msgspec.json.Decoder(_Identified)
_pod = msgspec.json.Decoder(Pod)


def record(raw: bytes) -> PodRecord:
    """Raises msgspec.ValidationError where `raw` is no Pod."""
    metadata = _identity.decode(raw).metadata
    return PodRecord(metadata.uid, metadata.namespace, metadata.name, metadata.resource_version, bytes(raw))


def decode(raw: bytes, aliases: Aliases = NO_ALIASES) -> Pod:
    return msgspec.structs.replace(_pod.decode(raw), aliases=aliases)


class Kind(Enum):
    """`INIT` runs to its end before what comes after it; a `SIDECAR` starts in the same order and runs beside the others; an
    `EPHEMERAL` one comes to a Pod that is there, whenever that is, runs once, and counts for nothing else of it.
    """

    INIT = "init"
    SIDECAR = "sidecar"
    REGULAR = "regular"
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True, slots=True)
class Member:
    """A container in its Pod. `policy` is the restart policy that holds for it, where no rule of its own does. `together`: as the
    Pod has it.
    """

    path: str
    container: Container
    kind: Kind
    policy: str
    together: bool = False

    @property
    def name(self) -> str:
        return self.container.name

    @property
    def rules(self) -> tuple[RestartRule, ...]:
        return tuple(self.container.restart_policy_rules or ())

    @property
    def host_policy(self) -> str:
        """What its host does by itself, also while vknix is away: it knows no rules, not those of another
        container either, and reads no files for a new attempt."""
        reads = any(var.value_from is not None and var.value_from.file_key_ref is not None for var in self.container.env or ())
        return "Never" if self.rules or self.together or reads else self.policy

    @property
    def target(self) -> str | None:
        """The container whose processes an ephemeral one is to be among."""
        return (self.container.target_container_name or None) if isinstance(self.container, EphemeralContainer) else None


def members(pod: Pod) -> Iterator[Member]:
    """Init containers and sidecars in their order, then the regular ones, then the ephemeral ones."""
    whole, together = pod.spec.restart_policy, pod.together
    for index, container in enumerate(pod.spec.init_containers or ()):
        path = f"spec.initContainers[{index}]"
        if container.restart_policy == "Always":
            yield Member(path, container, Kind.SIDECAR, "Always", together)
        else:
            own = container.restart_policy or whole
            yield Member(path, container, Kind.INIT, "Never" if own == "Never" else "OnFailure", together)
    for index, container in enumerate(pod.spec.containers):
        yield Member(f"spec.containers[{index}]", container, Kind.REGULAR, container.restart_policy or whole, together)
    for index, container in enumerate(pod.spec.ephemeral_containers or ()):
        yield Member(f"spec.ephemeralContainers[{index}]", container, Kind.EPHEMERAL, "Never")


def containers(pod: Pod) -> Iterator[tuple[str, Container]]:
    """Each container with its path in the Pod."""
    for member in members(pod):
        yield member.path, member.container
