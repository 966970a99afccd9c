"""What was fetched for a Pod, and what is around it: values that env, files and DNS are made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vknix.core.claims import Claim

Kind = Literal["ConfigMap", "Secret"]


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """An object in the Pod's namespace."""

    kind: Kind
    name: str


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A token of the Pod's ServiceAccount. No audience: the API server's own."""

    audience: str
    expiration_s: int


@dataclass(frozen=True, slots=True)
class Token:
    text: str = field(repr=False)
    issued: float
    expires: float


@dataclass(frozen=True, slots=True)
class ServicePort:
    name: str
    port: int
    protocol: str


@dataclass(frozen=True, slots=True)
class Service:
    """A Service with a ClusterIP."""

    namespace: str
    name: str
    cluster_ip: str
    ports: tuple[ServicePort, ...]


@dataclass(frozen=True, slots=True)
class FileKey:
    """A file in an emptyDir of the Pod."""

    volume: str
    path: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """None: there is no such object. `files` are those that were looked for."""

    objects: Mapping[ObjectKey, Mapping[str, bytes] | None] = field(default_factory=dict, repr=False)
    tokens: Mapping[TokenKey, Token] = field(default_factory=dict, repr=False)
    services: tuple[Service, ...] = ()
    claims: Mapping[str, Claim | None] = field(default_factory=dict)
    files: Mapping[FileKey, bytes | None] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The node and the host that a Pod is on."""

    node_name: str
    host_ips: tuple[str, ...]
    pod_ips: tuple[str, ...]
    cpu_milli: int
    memory_bytes: int
    storage_bytes: int
    cluster_dns: tuple[str, ...]
    cluster_domain: str
    host_resolv_conf: str
    host_name: str = ""
    host_hosts: str = ""  # its /etc/hosts
