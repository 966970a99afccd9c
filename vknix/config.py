"""The configuration file in, frozen dataclasses out; or all its mistakes at once, each by its path."""

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NewType

from vknix import strict
from vknix.core import sysctls
from vknix.core.facts import HostName, StorePath
from vknix.core.handlers import Handler
from vknix.core.image import parse as parse_image
from vknix.errors import ConfigError, Mistake, Refused

API_VERSION = "vknix.io/v1alpha1"
KIND = "Configuration"

# Strings that were checked where they were read. Addresses and CIDRs are in the shortest form.
Address = NewType("Address", str)
Cidr = NewType("Cidr", str)
NodeName = NewType("NodeName", str)
HostKey = NewType("HostKey", str)
Port = NewType("Port", int)
Count = NewType("Count", int)
UserId = NewType("UserId", tuple[int, int])  # a user and its group
Modes = NewType("Modes", tuple[tuple[str, int], ...])  # of files, by path

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
    """`listen` None: on each node's own address."""

    client_ca_file: Path = field(metadata={"key": "clientCAFile", "missing": _WHY_CA})
    listen: Address | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    web_sockets: bool = False


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
    port: Port = Port(22)
    user: str = "root"
    pod_cidr: Cidr | None = field(default=None, metadata={"key": "podCIDR"})


@dataclass(frozen=True, slots=True)
class Node:
    """A pool of hosts. `kubeconfig` is never None after `load` where `cluster.kubeconfig` is set."""

    name: NodeName
    address: Address
    hosts: tuple[Host, ...]
    kubeconfig: Path | None = None
    port: Port = Port(10250)
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = (DEFAULT_TAINT,)
    pod_cidrs: tuple[Cidr, ...] = field(default=(), metadata={"key": "podCIDRs"})
    max_pods: Count = Count(110)


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
    modes: Modes = Modes(())


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
    config, mistakes = strict.convert(Config, rest, _scalars(folder))
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


def _scalars(folder: Path) -> strict.Scalars:
    return {
        Path: lambda value: _file(value, folder),
        Address: _address,
        Cidr: _cidr,
        NodeName: lambda value: _match(value, _SUBDOMAIN, 253, "a DNS name in lower case"),
        HostName: lambda value: _match(value, _SUBDOMAIN, 63, "a name of lower-case letters, digits, '-' and '.'"),
        HostKey: _host_key,
        Port: lambda value: strict.number(value, 1, 65535),
        Count: lambda value: strict.number(value, 1, 100_000),
        StorePath: _store_path,
        UserId: _user,
        Modes: _modes,
    }


def _file(value: object, folder: Path) -> Path:
    path = folder / Path(strict.string(value)).expanduser()
    if not path.is_file():
        raise strict.Invalid(f"{path} is not a file" if path.exists() else f"{path} does not exist")
    return path


def _address(value: object) -> str:
    try:
        return str(ipaddress.ip_address(strict.string(value)))
    except ValueError:
        raise strict.Invalid(f"must be an IP address, not {strict.kind_of(value)}") from None


def _cidr(value: object) -> str:
    text = strict.string(value)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise strict.Invalid(f"must be a CIDR such as 10.244.3.0/24, not {strict.kind_of(value)}") from None
    if str(network) != str(ipaddress.ip_interface(text)):
        raise strict.Invalid(f"must be the CIDR of a network, not of an address in it; did you mean {network}?")
    return str(network)


_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def _match(value: object, pattern: re.Pattern[str], longest: int, what: str) -> str:
    text = strict.string(value)
    if len(text) > longest or not pattern.fullmatch(text):
        raise strict.Invalid(f"must be {what} (at most {longest} characters), not {text!r}")
    return text


def _host_key(value: object) -> str:
    """`<type> <base64>[ comment]`, in which the decoded part repeats the type."""
    words = strict.string(value).split()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error):
        blob = b""
    length = int.from_bytes(blob[:4], "big")
    if not blob or blob[4 : 4 + length] != words[0].encode():
        raise strict.Invalid(
            "must be a public key such as `ssh-ed25519 AAAA...`, as `ssh-keyscan HOST` prints it after the host's name"
        )
    return " ".join(words[:2])


def _store_path(value: object) -> str:
    text = strict.string(value)
    try:
        exact = parse_image(text, "").path == text
    except Refused:
        exact = False
    if not exact:
        raise strict.Invalid(f"must be a store path, /nix/store/HASH-NAME, not {text!r}")
    return text


def _user(value: object) -> tuple[int, int]:
    """`uid` or `uid:gid`, numbers: a closure has no users by name."""
    match = re.fullmatch(r"(\d{1,10})(?::(\d{1,10}))?", strict.string(value))
    if not match:
        raise strict.Invalid(f"must be a user's number, or user:group, as a quoted string, not {value!r}")
    return int(match[1]), int(match[2] or 0)


def _modes(value: object) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, dict):
        raise strict.Invalid(f"must be a mapping of paths to modes, not {strict.kind_of(value)}")
    for path, mode in value.items():
        if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/") or "\n" in path:
            raise strict.Invalid(f"has {path!r}, which is no absolute path")
        if not isinstance(mode, str) or not re.fullmatch("[0-7]{3,4}", mode):
            raise strict.Invalid(f'{path}: must be an octal mode as a quoted string such as "4755"')
    return tuple((path, int(mode, 8)) for path, mode in value.items())


_HANDLERS = tuple(handler.value for handler in Handler)


def _disagreements(config: Config) -> Iterator[Mistake]:
    """Values that are good by themselves, and not together."""
    if (config.kubelet.cert_file is None) != (config.kubelet.key_file is None):
        yield Mistake("kubelet", "certFile and keyFile go together; leave both out to have the cluster sign a certificate")
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
