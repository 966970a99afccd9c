"""`kubectl port-forward` to what listens on localhost in a Pod, by each protocol, with the node's feature declared and not."""

import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import pytest

from tests.integration.build import Space, container, host_of, is_ready, most_of_a_host, pod
from tests.integration.clients import forwarding
from tests.integration.streaming import ANSWER_S, Kubectl, errors, wait_nothing_left
from tests.lab.hosts import Host
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

pytestmark = pytest.mark.lab

CUT_S = 30.0  # from a cut link to the end of a connection: keepalives, and a busy machine

# 7777 echoes, 7778 reads nothing; 7779 answers HTTP on localhost alone, and 7780 does so to many at once.
SERVE = """
busybox nc -ll -p 7777 -e cat &
busybox nc -ll -p 7778 -e sleep 1000 &
busybox httpd -p 127.0.0.1:7779 -h /etc
exec sleep 3600
"""
MANY = ["agnhost", "netexec", "--http-port=7780", "--udp-port=-1"]


@pytest.fixture(scope="module", params=[False, True], ids=["translated", "passed-through"])
def declares(lab: Lab, shared: Space, request: pytest.FixtureRequest) -> bool:
    lab.vknix.stop()
    lab.vknix.start({"kubelet": {"webSockets": request.param}})
    return bool(request.param)


@pytest.fixture(scope="module")
def pods(shared: Space, lab: Lab) -> dict[str, str]:
    """A Pod on each host, by the host's name."""
    main = container(lab.image_busybox, SERVE, resources=most_of_a_host())
    many = {"name": "many", "image": lab.images["agnhost"], "command": MANY}
    names = [f"on-{host.name}" for host in lab.hosts]
    shared.create(*(pod(name, main, many) for name in names))
    found = {host_of(of): name for name, of in shared.wait(is_ready).items()}
    assert found.keys() == {host.name for host in lab.hosts}
    return found


@dataclass(frozen=True, slots=True)
class Way:
    kubectl: Kubectl
    pod: str
    host: Host

    def forwarding(self, *ports: int) -> "AbstractContextManager[tuple[subprocess.Popen[bytes], list[int]]]":
        return forwarding(self.kubectl, self.pod, *ports)


WAYS = [
    pytest.param((True, "host1"), id="websocket"),
    pytest.param((False, "host2"), id="spdy"),
]


@pytest.fixture(params=WAYS)
def way(declares: bool, shared: Space, lab: Lab, pods: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Way]:
    """After each test its host is as before."""
    websockets, host = request.param
    way = Way(Kubectl(shared, websockets=websockets), pods[host], lab.host(host))
    yield way
    wait_nothing_left(way.host)


GET = b"GET /echo?msg=%b HTTP/1.0\r\n\r\n"


def ask(port: int, data: bytes) -> bytes:
    """What comes back until the other side ends, after ours has."""
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_connections_reach_localhost_and_each_side_may_end(way: Way) -> None:
    data = bytes(range(256)) * 4000
    with way.forwarding(7777, 7779, 7780) as (_, (echo, local, many)):
        wait_for(lambda: ask(many, GET % b"hello").endswith(b"hello"), "it listens", timeout_s=ANSWER_S)
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda number: ask(many, GET % (b"%d" % number)), range(100)))
        assert [answer.rpartition(b"\n")[2] for answer in answers] == [b"%d" % number for number in range(100)]
        assert ask(echo, data) == data
        assert way.pod.encode() in ask(local, b"GET /hosts HTTP/1.0\r\n\r\n")


def test_port_that_nobody_listens_on_is_an_error(way: Way) -> None:
    with way.forwarding(9) as (process, (port,)):
        assert ask(port, b"") == b""
        _, said = process.communicate(timeout=ANSWER_S) if process.poll() is not None else (b"", _error_line(process))
    assert b"error forwarding port 9 to pod" in said
    assert b"connect: connection refused" in said


def _error_line(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stderr is not None
    return process.stderr.readline()


def test_killed_client_leaves_no_connection(way: Way) -> None:
    with way.forwarding(7778, 7777) as (process, (deaf, echo)):
        with socket.create_connection(("127.0.0.1", deaf)) as one, socket.create_connection(("127.0.0.1", echo)) as two:
            one.sendall(bytes(1_000_000))
            two.sendall(b"x")
            assert two.recv(1) == b"x"
            process.kill()
            begun = time.monotonic()
            wait_nothing_left(way.host, within_s=1.0)
            assert time.monotonic() - begun < 1.0


def test_pod_on_the_hosts_network_has_the_hosts_localhost(shared: Space, lab: Lab) -> None:
    shared.create(pod("on-network", container(lab.image_busybox, SERVE.replace("777", "1777")), hostNetwork=True))
    shared.wait(is_ready, "on-network")
    way = Way(Kubectl(shared), "on-network", lab.hosts[0])
    with way.forwarding(17777) as (_, (echo,)):
        wait_for(lambda: ask(echo, b"there?") == b"there?", "the host's port answers", timeout_s=ANSWER_S)


def test_pod_that_has_ended_is_refused(shared: Space, lab: Lab) -> None:
    shared.run(pod("ended", container(lab.image_busybox, "true")))
    done = Kubectl(shared).run("port-forward", "ended", ":80")
    assert done.returncode == 1
    assert "not running" in errors(done)


def test_cut_link_ends_the_connections(shared: Space, lab: Lab, pods: dict[str, str]) -> None:
    host = lab.host("host1")
    ways = [Way(Kubectl(shared, websockets=websockets), pods["host1"], host) for websockets in (True, False)]
    with ExitStack() as stack:
        local = [port for way in ways for port in stack.enter_context(way.forwarding(7777))[1]]
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), CUT_S)) for port in local]
        for client in clients:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        host.cut()
        try:
            assert [client.recv(1) for client in clients] == [b"", b""]
        finally:
            host.heal()
    wait_for(lambda: ways[0].kubectl.run("exec", ways[0].pod, "--", "true").returncode == 0, "exec works again", timeout_s=60)
    wait_nothing_left(host, within_s=60)
