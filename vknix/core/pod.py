"""A Pod as the API server sends it -> typed values. Only the fields that vknix reads; core/fields.py judges all of them.

Optional lists and maps are None where absent or null: Go clients send both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import msgspec

from vknix.core.facts import Uid


class _Api(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A piece of the API's JSON; unknown fields are left out."""


class KeySelector(_Api, frozen=True):
    name: str = ""
    key: str = ""
    optional: bool | None = None


class FieldSelector(_Api, frozen=True):
    field_path: str


class ResourceSelector(_Api, frozen=True):
    resource: str
    container_name: str | None = None
    divisor: str | int | float | None = None


class EnvSource(_Api, frozen=True):
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceSelector | None = None


class EnvVar(_Api, frozen=True):
    name: str
    value: str | None = None
    value_from: EnvSource | None = None


class ObjectRef(_Api, frozen=True):
    name: str = ""
    optional: bool | None = None


class EnvFrom(_Api, frozen=True):
    prefix: str | None = None
    config_map_ref: ObjectRef | None = None
    secret_ref: ObjectRef | None = None


class Capabilities(_Api, frozen=True):
    add: list[str] | None = None
    drop: list[str] | None = None


class SeccompProfile(_Api, frozen=True):
    type: str


class SecurityContext(_Api, frozen=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    capabilities: Capabilities | None = None
    allow_privilege_escalation: bool | None = None
    read_only_root_filesystem: bool | None = None
    seccomp_profile: SeccompProfile | None = None


class PodSecurityContext(_Api, frozen=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: list[int] | None = None
    seccomp_profile: SeccompProfile | None = None


class Resources(_Api, frozen=True):
    limits: dict[str, str | int | float] | None = None
    requests: dict[str, str | int | float] | None = None


class VolumeMount(_Api, frozen=True):
    name: str
    mount_path: str
    read_only: bool | None = None


class ExecAction(_Api, frozen=True):
    command: list[str] | None = None


class HttpHeader(_Api, frozen=True):
    name: str
    value: str = ""


class HttpGetAction(_Api, frozen=True):
    port: int | str
    path: str | None = None
    host: str | None = None
    scheme: str | None = None
    http_headers: list[HttpHeader] | None = None


class TcpSocketAction(_Api, frozen=True):
    port: int | str
    host: str | None = None


class GrpcAction(_Api, frozen=True):
    port: int
    service: str | None = None


class SleepAction(_Api, frozen=True):
    seconds: int = 0


class Probe(_Api, frozen=True):
    """Its numbers are never null after the API server's defaults, but for one that is not set."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    grpc: GrpcAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class Hook(_Api, frozen=True):
    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(_Api, frozen=True):
    post_start: Hook | None = None
    pre_stop: Hook | None = None


class ContainerPort(_Api, frozen=True):
    container_port: int
    name: str | None = None


class Container(_Api, frozen=True):
    name: str
    ports: list[ContainerPort] | None = None
    startup_probe: Probe | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    restart_policy: str | None = None
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    working_dir: str | None = None
    env: list[EnvVar] | None = None
    env_from: list[EnvFrom] | None = None
    resources: Resources | None = None
    volume_mounts: list[VolumeMount] | None = None
    image_pull_policy: str | None = None
    termination_message_path: str | None = None
    termination_message_policy: str | None = None
    security_context: SecurityContext | None = None


class KeyToPath(_Api, frozen=True):
    key: str
    path: str
    mode: int | None = None


class ConfigMapSource(_Api, frozen=True):
    name: str = ""
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool | None = None


class SecretSource(_Api, frozen=True):
    secret_name: str = ""
    name: str = ""  # in a projection
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool | None = None


class DownwardItem(_Api, frozen=True):
    path: str
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceSelector | None = None
    mode: int | None = None


class DownwardSource(_Api, frozen=True):
    items: list[DownwardItem] | None = None
    default_mode: int | None = None


class TokenSource(_Api, frozen=True):
    path: str
    audience: str | None = None
    expiration_seconds: int | None = None


class Projection(_Api, frozen=True):
    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    downward_api: DownwardSource | None = msgspec.field(default=None, name="downwardAPI")
    service_account_token: TokenSource | None = None


class ProjectedSource(_Api, frozen=True):
    sources: list[Projection] | None = None
    default_mode: int | None = None


class Volume(_Api, frozen=True):
    name: str
    empty_dir: dict[str, Any] | None = None
    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    downward_api: DownwardSource | None = msgspec.field(default=None, name="downwardAPI")
    projected: ProjectedSource | None = None


class HostAlias(_Api, frozen=True):
    ip: str
    hostnames: list[str] | None = None


class DnsOption(_Api, frozen=True):
    name: str | None = None
    value: str | None = None


class DnsConfig(_Api, frozen=True):
    nameservers: list[str] | None = None
    searches: list[str] | None = None
    options: list[DnsOption] | None = None


class ReadinessGate(_Api, frozen=True):
    condition_type: str


class PodSpec(_Api, frozen=True):
    containers: list[Container]
    init_containers: list[Container] | None = None
    ephemeral_containers: list[Container] | None = None
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

    @property
    def grace_s(self) -> int:
        grace = self.termination_grace_period_seconds
        return 30 if grace is None else max(1, grace)


class Metadata(_Api, frozen=True):
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


class Pod(_Api, frozen=True):
    """The whole Pod. `status` stays JSON: it is what was last told, compared with what is to be told."""

    metadata: Metadata
    spec: PodSpec
    status: dict[str, Any] = msgspec.field(default_factory=dict)

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
    def leaving(self) -> bool:
        return self.metadata.deletion_timestamp is not None

    @property
    def phase(self) -> str:
        return str(self.status.get("phase") or "Pending")

    @property
    def ended(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

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


class _Identified(_Api, frozen=True):
    metadata: Metadata


_identity = msgspec.json.Decoder(_Identified)
_pod = msgspec.json.Decoder(Pod)


def record(raw: bytes) -> PodRecord:
    """Raises msgspec.ValidationError where `raw` is no Pod."""
    metadata = _identity.decode(raw).metadata
    return PodRecord(metadata.uid, metadata.namespace, metadata.name, metadata.resource_version, bytes(raw))


def decode(raw: bytes) -> Pod:
    return _pod.decode(raw)


class Kind(Enum):
    """`INIT` runs to its end before what comes after it; a `SIDECAR` starts in the same order and runs beside the others."""

    INIT = "init"
    SIDECAR = "sidecar"
    REGULAR = "regular"


@dataclass(frozen=True, slots=True)
class Member:
    """A container in its Pod. `policy` is the restart policy that holds for it."""

    path: str
    container: Container
    kind: Kind
    policy: str

    @property
    def name(self) -> str:
        return self.container.name


def members(pod: Pod) -> Iterator[Member]:
    """Init containers and sidecars in their order, then the regular ones."""
    whole = pod.spec.restart_policy
    for index, container in enumerate(pod.spec.init_containers or ()):
        path = f"spec.initContainers[{index}]"
        if container.restart_policy == "Always":
            yield Member(path, container, Kind.SIDECAR, "Always")
        else:
            yield Member(path, container, Kind.INIT, "Never" if whole == "Never" else "OnFailure")
    for index, container in enumerate(pod.spec.containers):
        yield Member(f"spec.containers[{index}]", container, Kind.REGULAR, whole)


def containers(pod: Pod) -> Iterator[tuple[str, Container]]:
    """Each container with its path in the Pod."""
    for member in members(pod):
        yield member.path, member.container
