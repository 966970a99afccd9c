"""A Pod on its host's network: the address it has, the ports it takes there, the hosts that it can go to. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from math import inf
from typing import Any

from vknix.core import pod as pods
from vknix.core.facts import HostFacts, HostName, HostState, PodFacts
from vknix.core.pod import Pod
from vknix.errors import Refused

Port = tuple[str, int]  # protocol, number


def ports(pod: Pod) -> frozenset[Port]:
    """What no other Pod on its host's network can have: the API server gives each containerPort that hostPort."""
    if not pod.spec.host_network:
        return frozenset()
    each = (port for _, container in pods.containers(pod) for port in container.ports or ())
    return frozenset((port.protocol, port.container_port) for port in each)


def fitting(
    pod: Pod, hosts: Mapping[HostName, HostFacts], taken: Iterable[tuple[HostName, frozenset[Port]]]
) -> Mapping[HostName, HostFacts]:
    """The hosts on whose network the Pod can be; all, where it asks for none. `taken` are the ports of the others.

    Refused as by a kubelet (NodePorts) where a port is taken on each host that answers.
    """
    if not pod.spec.host_network:
        return hosts
    known = {name: facts for name, facts in hosts.items() if _is_ip(facts.address)}
    if hosts and not known:
        why = "the address of its host is not known: the configuration has a name"
        raise Refused("spec.hostNetwork", why, remedy="write nodes[].hosts[].address as an IP address")
    asked = ports(pod)
    busy = {name for name, of in taken if of & asked}
    free = {name: facts for name, facts in known.items() if name not in busy}
    if not free and any(facts.state is HostState.LISTED for facts in known.values()):
        why = "no host of the pool has free ports for the requested pod ports"
        raise Refused("spec.hostNetwork", why, remedy="use other ports, or add a host", reason="NodePorts")
    return free


def address(pod: Pod, facts: PodFacts, hosts: Mapping[HostName, HostFacts]) -> str:
    """Where the Pod is reached from its host; empty while it has no network."""
    if facts.addresses:
        return facts.addresses[0]
    host = hosts.get(facts.host)
    return host.address if pod.spec.host_network and host is not None and facts.since != inf else ""


def ips(pod: Pod, host: HostFacts | None, node: str, own: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """hostIPs and podIPs: of a Pod on its host's network both are that host's, as they were told where it is known no more."""
    if not pod.spec.host_network:
        return (node,), own
    told = pod.status.get("hostIP")
    of_host = (host.address,) if host is not None else (str(told),) if told else ()
    return of_host, of_host


def judge(refusals: Iterable[Refused], spec: Mapping[str, Any]) -> Iterator[Refused]:
    """What is left of them on the host's network, where a hostPort is the containerPort: the API server writes it itself."""
    own = bool(spec.get("hostNetwork"))
    yield from (refusal for refusal in refusals if not (own and refusal.field.endswith(".hostPort")))
    if own and spec.get("hostUsers") is False:
        yield Refused("spec.hostUsers", "the host's network belongs to the host's users", remedy="drop hostNetwork or hostUsers")


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
