"""The configuration file in, frozen dataclasses out; or all its mistakes at once, each by its path."""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from vknix import strict
from vknix.core import sysctls
from vknix.core.facts import HostName, StorePath
from vknix.core.handlers import Handler
from vknix.errors import ConfigError, Mistake
from vknix.scalars import Address, Cidr, Count, Directory, HostKey, LogFiles, Modes, NodeName, Port, Size, UserId, scalars

API_VERSION = "vknix.io/v1alpha1"
KIND = "Configuration"

_HANDLERS = tuple(handler.value for handler in Handler)
_SSH, _KUBELET, _PODS, _NO_MODES = Port(22), Port(10250), Count(110), Modes(())
_LOG_SIZE, _LOG_FILES = Size(10 * 1024**2), LogFiles(5)  # a kubelet's
_WHY_CA = "the CA of the API server's kubelet client certificate; a node may not read it from the cluster"
_WHY_KEYS = "the host's public keys, as `ssh-keyscan HOST` prints them; without, anybody could be this host"


@dataclass(frozen=True, slots=True)
class Cluster:
    kubeconfig: Path | None = None
    dns: tuple[Address, ...] = ()
    domain: str = "cluster.local"
    service_cidrs: tuple[Cidr, ...] = field(default=(), metadata={"key": "serviceCIDRs"})
    pod_cidrs: tuple[Cidr, ...] = field(default=(), metadata={"key": "podCIDRs"})


@dataclass(frozen=True, slots=True)
class Kubelet:
    """`listen` None: on each node's own address. `cert_directory`: where what the cluster has signed is kept for the next start.
    `anonymous_auth`: who shows nothing is system:anonymous, who may be let in.
    """

    client_ca_file: Path = field(metadata={"key": "clientCAFile", "missing": _WHY_CA})
    listen: Address | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    cert_directory: Directory | None = None
    web_sockets: bool = True
    anonymous_auth: bool = False


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    value: str = ""


# Keeps Pods away that do not mean a virtual node.
DEFAULT_TAINT = Taint("virtual-kubelet.io/provider", "NoSchedule", "vknix")


@dataclass(frozen=True, slots=True)
class Host:
    """`address` may be a name. `host_keys` are as `ssh-keyscan` prints them, without the address in front."""

    name: HostName
    address: str
    key_file: Path
    host_keys: tuple[HostKey, ...] = field(metadata={"missing": _WHY_KEYS})
    port: Port = _SSH
    user: str = "root"
    pod_cidr: Cidr | None = field(default=None, metadata={"key": "podCIDR"})


@dataclass(frozen=True, slots=True)
class Node:
    """A pool of hosts. `kubeconfig` is never None after `load` where `cluster.kubeconfig` is set."""

    name: NodeName
    address: Address
    hosts: tuple[Host, ...]
    kubeconfig: Path | None = None
    port: Port = _KUBELET
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = (DEFAULT_TAINT,)
    pod_cidrs: tuple[Cidr, ...] = field(default=(), metadata={"key": "podCIDRs"})
    max_pods: Count = _PODS


@dataclass(frozen=True, slots=True)
class Image:
    """What stands for the image names that the pattern `name` fits. `root`: the files of `path` are the container's root."""

    name: str
    path: StorePath
    root: bool = False
    entrypoint: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: UserId | None = None
    working_dir: str = "/"
    modes: Modes = _NO_MODES


@dataclass(frozen=True, slots=True)
class Config:
    kubelet: Kubelet
    nodes: tuple[Node, ...]
    cluster: Cluster = Cluster()
    images: tuple[Image, ...] = ()
    seccomp_default: bool = False
    strict_limits: bool = False
    allowed_unsafe_sysctls: tuple[str, ...] = ()
    runtime_handlers: Mapping[str, str] = field(default_factory=dict)
    pod_pids_limit: Count | None = None
    container_log_max_size: Size = _LOG_SIZE
    container_log_max_files: LogFiles = _LOG_FILES


def load(path: Path) -> Config:
    """Raises ConfigError. Relative paths in the file are relative to the file."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError((Mistake("", f"{path} can't be read: {error}"),)) from error
    return parse(text, path.parent)


def parse(text: str, folder: Path) -> Config:
    tree = strict.read(text)
    if not isinstance(tree, dict):
        raise ConfigError((Mistake("", f"must be a mapping that begins with `apiVersion: {API_VERSION}` and `kind: {KIND}`"),))
    rest = {key: value for key, value in tree.items() if key not in {"apiVersion", "kind"}}
    config, mistakes = strict.convert(Config, rest, scalars(folder))
    mistakes = (*_wrong_version(tree), *mistakes, *(_disagreements(config) if config is not None else ()))
    if config is None or mistakes:
        raise ConfigError(mistakes)
    default = config.cluster.kubeconfig
    return replace(config, nodes=tuple(replace(node, kubeconfig=node.kubeconfig or default) for node in config.nodes))


def _wrong_version(tree: Mapping[str, object]) -> Iterator[Mistake]:
    for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        found = tree.get(key)
        if found != wanted:
            yield Mistake(key, f"must be {wanted}, not {strict.kind_of(found)}" if key in tree else f"missing: must be {wanted}")


def _disagreements(config: Config) -> Iterator[Mistake]:
    """Values that are good by themselves, and not together."""
    if (config.kubelet.cert_file is None) != (config.kubelet.key_file is None):
        yield Mistake("kubelet", "certFile and keyFile go together; leave both out to have the cluster sign a certificate")
    if config.kubelet.cert_directory is not None and config.kubelet.cert_file is not None:
        yield Mistake("kubelet.certDirectory", "is for certificates that the cluster signs; leave it out beside certFile")
    for name, of in config.runtime_handlers.items():
        if of not in _HANDLERS or name in _HANDLERS:
            yield Mistake(f"runtimeHandlers.{name}", f"must be another name for one of {', '.join(_HANDLERS)}")
    for at, pattern in enumerate(config.allowed_unsafe_sysctls):
        if not sysctls.is_namespaced(pattern):
            yield Mistake(
                f"allowedUnsafeSysctls[{at}]", f"{pattern!r} is of the whole host: only net.*, kernel.shm*, ... can be a Pod's"
            )
    if not config.nodes:
        yield Mistake("nodes", "must have at least one node")
    yield from _twice("node name", [(f"nodes[{at}].name", node.name) for at, node in enumerate(config.nodes)])
    sockets = [
        (f"nodes[{at}].port", f"{config.kubelet.listen or node.address} {node.port}") for at, node in enumerate(config.nodes)
    ]
    yield from _twice("address and port", sockets)
    hosts = [(f"nodes[{at}].hosts[{n}]", host) for at, node in enumerate(config.nodes) for n, host in enumerate(node.hosts)]
    yield from _twice("host name", [(f"{path}.name", host.name) for path, host in hosts])
    yield from _twice("address and port", [(f"{path}.address", f"{host.address} {host.port}") for path, host in hosts])
    yield from _overlaps([(f"{path}.podCIDR", host.pod_cidr) for path, host in hosts if host.pod_cidr is not None])
    for path, host in hosts:
        if not host.host_keys:
            yield Mistake(f"{path}.hostKeys", "must name at least one key; without, anybody could be this host")
    for at, node in enumerate(config.nodes):
        if not node.hosts:
            yield Mistake(f"nodes[{at}].hosts", "must have at least one host")
        yield from _outside(node, f"nodes[{at}]")


def _twice(what: str, values: list[tuple[str, str]]) -> Iterator[Mistake]:
    first: dict[str, str] = {}
    for path, value in values:
        if value in first:
            yield Mistake(path, f"the {what} {value} is that of {first[value]} already")
        first.setdefault(value, path)


def _overlaps(slices: list[tuple[str, Cidr]]) -> Iterator[Mistake]:
    for at, (path, cidr) in enumerate(slices):
        network = ipaddress.ip_network(cidr)
        for other_path, other in slices[:at]:
            if network.overlaps(ipaddress.ip_network(other)):
                yield Mistake(path, f"{cidr} overlaps {other} of {other_path}; each host needs its own")


def _outside(node: Node, path: str) -> Iterator[Mistake]:
    """A host's slice that is in none of the node's CIDRs, where those are known here."""
    whole = [ipaddress.ip_network(cidr) for cidr in node.pod_cidrs]
    for n, host in enumerate(node.hosts):
        if host.pod_cidr is None or not whole:
            continue
        part = ipaddress.ip_network(host.pod_cidr)
        if not any(part.version == network.version and part.subnet_of(network) for network in whole):  # type: ignore[arg-type] # of one version
            yield Mistake(f"{path}.hosts[{n}].podCIDR", f"{part} is not in the node's podCIDRs ({', '.join(node.pod_cidrs)})")
