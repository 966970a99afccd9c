"""A Pod on its host's network, or with ports of its host: the address it has, the hosts that it can go to. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Any

from vknix.core import host_ports
from vknix.core.facts import HostFacts, HostName, HostState, PodFacts
from vknix.core.host_ports import Port
from vknix.core.pod import Pod
from vknix.errors import Refused


def fitting(
    pod: Pod, hosts: Mapping[HostName, HostFacts], taken: Iterable[tuple[HostName, frozenset[Port]]]
) -> Mapping[HostName, HostFacts]:
    """The hosts whose network, or whose ports, the Pod can have; all, where it asks for none. `taken` are the ports of the others.

    A hostIP that is the address of a host of the pool means that host. Refused as by a kubelet (NodePorts) where a port is taken on
    each host that answers.
    """
    asked = host_ports.ports(pod)
    if not asked and not pod.spec.host_network:
        return hosts
    known = {name: facts for name, facts in hosts.items() if host_ports.is_ip(facts.address)} if pod.spec.host_network else hosts
    if hosts and not known:
        why = "the address of its host is not known: the configuration has a name"
        raise Refused("spec.hostNetwork", why, remedy="write nodes[].hosts[].address as an IP address")
    named = {port.ip for port in asked} & {facts.address for facts in known.values()}
    meant = {name: facts for name, facts in known.items() if not named - {facts.address}}
    busy = {name for name, of in taken if host_ports.meet(asked, of)}
    free = {name: facts for name, facts in meant.items() if name not in busy}
    if not free and any(facts.state is HostState.LISTED for facts in known.values()):
        why = "no host of the pool has free ports for the requested pod ports"
        raise Refused("", why, remedy="use other ports, or add a host", reason="NodePorts")
    return free


def address(pod: Pod, facts: PodFacts, hosts: Mapping[HostName, HostFacts]) -> str:
    """Where the Pod is reached from its host; empty while it has no network."""
    if facts.addresses:
        return facts.addresses[0]
    host = hosts.get(facts.host)
    return host.address if pod.spec.host_network and host is not None and facts.since != inf else ""


def ips(pod: Pod, host: HostFacts | None, node: str, own: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """hostIPs and podIPs: of a Pod on its host's network both are that host's, as they were told where it is known no more.

    Who has ports of its host is to be found there, too: its hostIPs are the host's, where its address is known.
    """
    told = pod.status.get("hostIP")
    of_host = (host.address,) if host is not None else (str(told),) if told else ()
    if pod.spec.host_network:
        return of_host, of_host
    shown = bool(host_ports.published(pod)) and all(map(host_ports.is_ip, of_host))
    return of_host if shown and of_host else (node,), own


def judge(spec: Mapping[str, Any]) -> Iterator[Refused]:
    if spec.get("hostNetwork") and spec.get("hostUsers") is False:
        yield Refused("spec.hostUsers", "the host's network belongs to the host's users", remedy="drop hostNetwork or hostUsers")
