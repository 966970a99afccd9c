"""vknix.core.host_network: where a Pod on its host's network can go, and what it is there."""

from dataclasses import replace
from math import inf
from typing import Any

import pytest

from tests.unit.build import UID, container, host, pod
from vknix.core import host_network, host_ports
from vknix.core.facts import HostName, HostState, PodFacts, Uid
from vknix.core.host_ports import Port
from vknix.core.pod import Pod
from vknix.errors import Refused

A, B = HostName("a"), HostName("b")
HOSTS = {A: host("a"), B: replace(host("b"), address="192.0.2.2")}


def serving(*ports: dict[str, Any], **spec: Any) -> Pod:
    return pod(container(ports=list(ports)), **{"hostNetwork": True, **spec})


def opened(**fields: Any) -> Pod:
    """A Pod of its own network, to which port 8080 of its host leads."""
    return serving({"containerPort": 80, "protocol": "TCP", "hostPort": 8080, **fields}, hostNetwork=False)


TCP, UDP = {"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}


@pytest.mark.parametrize(
    ("of", "taken", "free"),
    [
        (serving(TCP), [], {A, B}),
        (serving(TCP), [(A, host_ports.ports(serving(TCP)))], {B}),
        (serving(TCP), [(A, host_ports.ports(serving(UDP)))], {A, B}),
        (serving(TCP), [(A, host_ports.ports(serving(TCP, hostNetwork=False)))], {A, B}),
        (serving(), [(A, host_ports.ports(serving(TCP)))], {A, B}),
        (serving(TCP, hostNetwork=False), [(A, host_ports.ports(serving(TCP)))], {A, B}),
        (opened(), [(A, host_ports.ports(opened()))], {B}),
        (opened(), [(A, host_ports.ports(serving({**TCP, "containerPort": 8080})))], {B}),
        (opened(hostIP="127.0.0.1"), [(A, host_ports.ports(opened()))], {B}),
        (opened(hostIP="127.0.0.1"), [(A, host_ports.ports(opened(hostIP="127.0.0.2")))], {A, B}),
        (opened(hostIP="192.0.2.2"), [], {B}),
        (opened(hostIP="192.0.2.9"), [], {A, B}),
    ],
    ids=[
        "none taken",
        "taken",
        "another protocol",
        "taken in a Pod's network",
        "no port asked for",
        "a network of its own",
        "taken by a Pod's port",
        "taken by the host's network",
        "taken on all addresses",
        "taken on another address",
        "the address of one host",
        "an address that is not known",
    ],
)
def test_hosts_with_the_ports_free(of: Pod, taken: list[tuple[HostName, frozenset[Port]]], free: set[str]) -> None:
    assert set(host_network.fitting(of, HOSTS, taken)) == free


def test_port_that_is_taken_everywhere_is_refused_as_by_a_kubelet() -> None:
    taken = [(name, host_ports.ports(serving(TCP, UDP))) for name in HOSTS]
    with pytest.raises(Refused) as refused:
        host_network.fitting(serving(UDP), HOSTS, taken)
    assert refused.value.reason == "NodePorts"


def test_a_host_that_does_not_answer_may_have_the_port_free_later() -> None:
    lost = {A: replace(HOSTS[A], state=HostState.LOST)}
    assert host_network.fitting(serving(TCP), lost, [(A, host_ports.ports(serving(TCP)))]) == {}


def test_host_known_by_a_name_alone_has_no_address_to_tell() -> None:
    named = {A: replace(HOSTS[A], address="box.example")}
    with pytest.raises(Refused, match="IP address"):
        host_network.fitting(serving(), named, [])
    assert set(host_network.fitting(serving(), {**HOSTS, **named}, [])) == {B}
    assert host_network.fitting(serving(hostNetwork=False), named, []) == named


@pytest.mark.parametrize(
    ("of", "addresses", "since", "reached"),
    [
        (serving(), (), 1.0, "192.0.2.1"),
        (serving(), (), inf, ""),
        (serving(hostNetwork=False), ("10.0.0.2",), 1.0, "10.0.0.2"),
        (serving(hostNetwork=False), (), 1.0, ""),
    ],
    ids=["the host's", "not made yet", "its own", "its own, gone"],
)
def test_where_a_pod_is_reached(of: Pod, addresses: tuple[str, ...], since: float, reached: str) -> None:
    facts = PodFacts(Uid(UID), A, "shop", "web", addresses, since=since)
    assert host_network.address(of, facts, HOSTS) == reached


def test_addresses_that_are_told() -> None:
    assert host_network.ips(serving(hostNetwork=False), HOSTS[A], "198.51.100.1", ("10.0.0.2",)) == (
        ("198.51.100.1",),
        ("10.0.0.2",),
    )
    assert host_network.ips(serving(), HOSTS[A], "198.51.100.1", ()) == (("192.0.2.1",), ("192.0.2.1",))
    assert host_network.ips(opened(), HOSTS[A], "198.51.100.1", ("10.0.0.2",)) == (("192.0.2.1",), ("10.0.0.2",))
    assert host_network.ips(opened(), replace(HOSTS[A], address="box.example"), "198.51.100.1", ()) == (("198.51.100.1",), ())
    gone = serving(status={"hostIP": "192.0.2.7"})
    assert host_network.ips(gone, None, "198.51.100.1", ()) == (("192.0.2.7",), ("192.0.2.7",))
