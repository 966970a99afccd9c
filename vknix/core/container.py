"""A container of a Pod as the API server sends it -> typed values. Only the fields that vknix reads; core/fields.py judges all.

Optional lists and maps are None where absent or null: Go clients send both.
"""

import msgspec


class Api(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A piece of the API's JSON; unknown fields are left out."""


Amount = str | int | float  # a Kubernetes quantity


class KeySelector(Api, frozen=True):
    name: str = ""
    key: str = ""
    optional: bool | None = None


class FieldSelector(Api, frozen=True):
    field_path: str


class ResourceSelector(Api, frozen=True):
    resource: str
    container_name: str | None = None
    divisor: Amount | None = None


class FileKeySelector(Api, frozen=True):
    volume_name: str
    path: str
    key: str
    optional: bool | None = None


class EnvSource(Api, frozen=True):
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceSelector | None = None
    file_key_ref: FileKeySelector | None = None


class EnvVar(Api, frozen=True):
    name: str
    value: str | None = None
    value_from: EnvSource | None = None


class ObjectRef(Api, frozen=True):
    name: str = ""
    optional: bool | None = None


class EnvFrom(Api, frozen=True):
    prefix: str | None = None
    config_map_ref: ObjectRef | None = None
    secret_ref: ObjectRef | None = None


class Capabilities(Api, frozen=True):
    add: list[str] | None = None
    drop: list[str] | None = None


class SeccompProfile(Api, frozen=True):
    type: str
    localhost_profile: str | None = None


class SecurityContext(Api, frozen=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    capabilities: Capabilities | None = None
    allow_privilege_escalation: bool | None = None
    read_only_root_filesystem: bool | None = None
    seccomp_profile: SeccompProfile | None = None
    privileged: bool | None = None
    proc_mount: str | None = None


class Resources(Api, frozen=True):
    limits: dict[str, Amount] | None = None
    requests: dict[str, Amount] | None = None


class VolumeMount(Api, frozen=True):
    name: str
    mount_path: str
    read_only: bool | None = None
    recursive_read_only: str | None = None
    mount_propagation: str | None = None
    sub_path: str | None = None
    sub_path_expr: str | None = None


class ExecAction(Api, frozen=True):
    command: list[str] | None = None


class HttpHeader(Api, frozen=True):
    name: str
    value: str = ""


class HttpGetAction(Api, frozen=True):
    port: int | str
    path: str | None = None
    host: str | None = None
    scheme: str | None = None
    http_headers: list[HttpHeader] | None = None


class TcpSocketAction(Api, frozen=True):
    port: int | str
    host: str | None = None


class GrpcAction(Api, frozen=True):
    port: int
    service: str | None = None


class SleepAction(Api, frozen=True):
    seconds: int = 0


class Probe(Api, frozen=True):
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


class Hook(Api, frozen=True):
    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Api, frozen=True):
    post_start: Hook | None = None
    pre_stop: Hook | None = None
    stop_signal: str | None = None


class ContainerPort(Api, frozen=True):
    container_port: int
    name: str | None = None
    protocol: str = "TCP"
    host_port: int | None = None
    host_ip: str | None = msgspec.field(default=None, name="hostIP")


class ExitCodes(Api, frozen=True):
    operator: str
    values: list[int] | None = None


class RestartRule(Api, frozen=True):
    action: str
    exit_codes: ExitCodes | None = None


class ResizePolicy(Api, frozen=True):
    resource_name: str
    restart_policy: str


class Container(Api, frozen=True):
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
    restart_policy_rules: list[RestartRule] | None = None
    resize_policy: list[ResizePolicy] | None = None
    stdin: bool | None = None
    stdin_once: bool | None = None
    tty: bool | None = None


class EphemeralContainer(Container, frozen=True):
    target_container_name: str | None = None
