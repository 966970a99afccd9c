"""The ports of its host that a Pod takes: which they are, which of them can't be beside each other, what can't be had. Pure."""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, ip_address
from typing import Any, NamedTuple

from vknix.core import pod as pods
from vknix.core.pod import Kind, Pod
from vknix.errors import Refused

ANY = "0.0.0.0"  # noqa: S104  # the API's word for each of the host's addresses, not one to listen on
_PROTOCOLS = ("TCP", "UDP")


class Port(NamedTuple):
    """Of a host. `inner` is the Pod's own, to which it leads."""

    protocol: str
    ip: str
    number: int
    inner: int

    def meets(self, other: "Port") -> bool:
        """As the scheduler sees it: one host has no room for both."""
        same = (self.protocol, self.number) == (other.protocol, other.number)
        return same and (self.ip == other.ip or ANY in (self.ip, other.ip))


def ports(pod: Pod) -> frozenset[Port]:
    """Those of the containers that run side by side. On the host's network each port is the host's: the API server sees to it."""
    own = bool(pod.spec.host_network)
    lasting = (member.container for member in pods.members(pod) if member.kind in (Kind.SIDECAR, Kind.REGULAR))
    each = (port for container in lasting for port in container.ports or ())
    numbered = ((port, port.container_port if own else port.host_port) for port in each)
    return frozenset(Port(port.protocol, port.host_ip or ANY, number, port.container_port) for port, number in numbered if number)


def published(pod: Pod) -> frozenset[Port]:
    """Those that lead from the host into a network of the Pod's own."""
    return frozenset() if pod.spec.host_network else ports(pod)


def meet(some: frozenset[Port], others: frozenset[Port]) -> bool:
    return any(one.meets(other) for one in some for other in others)


def judge(spec: Mapping[str, Any]) -> Iterator[Refused]:
    """What can't lead into a network of the Pod's own, which knows IPv4 alone."""
    if spec.get("hostNetwork"):
        return
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or ()):
            for at, port in enumerate(container.get("ports") or ()):
                if port.get("hostPort"):
                    yield from _judge_port(f"spec.{kind}[{index}].ports[{at}]", port)


def _judge_port(path: str, port: Mapping[str, Any]) -> Iterator[Refused]:
    if port.get("protocol", "TCP") not in _PROTOCOLS:
        why = f"a host port is of {' or '.join(_PROTOCOLS)}, not {port['protocol']}"
        yield Refused(f"{path}.protocol", why, remedy="leave hostPort out, or use hostNetwork")
    asked = port.get("hostIP")
    if asked and not _is_ipv4(asked):
        yield Refused(f"{path}.hostIP", f"{asked} is no IPv4 address, and the Pod's is", remedy="use an IPv4 address of the host")


def is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_ipv4(text: str) -> bool:
    return is_ip(text) and isinstance(ip_address(text), IPv4Address)
