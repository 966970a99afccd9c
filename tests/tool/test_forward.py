"""`vktool forward`: to what listens on localhost in a network namespace."""

import ctypes
import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

NETNS = f"vktest-{os.getpid()}"
ANSWER_S = 10.0
_CLONE_NEWNET = 0x40000000


@pytest.fixture(scope="module")
def netns(tool: Path) -> Iterator[str]:
    if subprocess.run(["ip", "netns", "add", NETNS], capture_output=True).returncode != 0:
        pytest.skip("needs network namespaces")
    subprocess.run(["ip", "-n", NETNS, "link", "set", "lo", "up"], check=True)
    yield f"/run/netns/{NETNS}"
    subprocess.run(["ip", "netns", "del", NETNS], check=True)


@dataclass(frozen=True)
class Door:
    process: "subprocess.Popen[bytes]"
    at: Path

    def ask(self, port: int) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(ANSWER_S)
        client.connect(str(self.at))
        client.sendall(port.to_bytes(2))
        return client

    def through_to(self, server: socket.socket) -> tuple[socket.socket, socket.socket]:
        """Both ends of one connection."""
        client = self.ask(server.getsockname()[1])
        target, _ = server.accept()
        target.settimeout(ANSWER_S)
        assert client.recv(1) == b"\0"
        return client, target

    def leave(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(ANSWER_S)


@contextmanager
def forward(tool: Path, at: Path, netns: str) -> Iterator[Door]:
    pipe = subprocess.PIPE
    command = [str(tool), "forward", netns, str(at / "door")]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield Door(process, at / "door")
        finally:
            process.kill()


@pytest.fixture
def door(tool: Path, tmp_path: Path, netns: str) -> Iterator[Door]:
    with forward(tool, tmp_path, netns) as door:
        yield door


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def server(netns: str, request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """It listens on localhost of the namespace."""
    made: list[socket.socket] = []

    def listen() -> None:  # in a thread that ends: a namespace is its thread's own
        fd = os.open(netns, os.O_RDONLY)
        assert ctypes.CDLL(None).setns(fd, _CLONE_NEWNET) == 0
        os.close(fd)
        address = "127.0.0.1" if request.param == socket.AF_INET else "::1"
        made.append(socket.create_server((address, 0), family=request.param))
        made[0].settimeout(ANSWER_S)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    with made[0] as server:
        yield server


over_ipv4 = pytest.mark.parametrize("server", [socket.AF_INET], ids=["IPv4"], indirect=True)


def read_all(of: socket.socket) -> bytes:
    text = b""
    while piece := of.recv(1 << 16):
        text += piece
    return text


@pytest.mark.parametrize("first", ["client", "target"])
def test_a_side_that_has_ended_still_hears_the_other(door: Door, server: socket.socket, first: str) -> None:
    ends = door.through_to(server)
    ended, other = ends if first == "client" else reversed(ends)
    with ended, other:
        ended.sendall(b"a" * 3_000)
        ended.shutdown(socket.SHUT_WR)
        assert read_all(other) == b"a" * 3_000
        other.sendall(b"late")
        other.shutdown(socket.SHUT_WR)
        assert read_all(ended) == b"late"


@over_ipv4
def test_much_goes_both_ways_at_once(door: Door, server: socket.socket) -> None:
    data = os.urandom(1 << 20) * 8
    client, target = door.through_to(server)

    def send(of: socket.socket) -> None:
        of.sendall(data)
        of.shutdown(socket.SHUT_WR)

    with client, target:
        threads = [threading.Thread(target=send, args=(of,)) for of in (client, target)]
        came: list[bytes] = []
        threads += [threading.Thread(target=lambda of=of: came.append(read_all(of))) for of in (client, target)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert came == [data, data]


def test_a_port_that_nobody_listens_on_is_named(door: Door) -> None:
    with door.ask(9) as client:
        refused = "connect: connection refused"
        wanted = f"\1dial tcp4 127.0.0.1:9: {refused}, dial tcp6 [::1]:9: {refused}"
        assert read_all(client).decode() == wanted


def gone(of: socket.socket) -> bool:
    """Whether the other side is gone within a moment, whether or not we read what it sent."""
    poll = select.poll()
    poll.register(of, select.POLLRDHUP)
    return bool(poll.poll(2_000))


@over_ipv4
def test_a_client_that_goes_takes_its_connection_with_it_and_no_other(door: Door, server: socket.socket) -> None:
    (one, of_one), (two, of_two) = door.through_to(server), door.through_to(server)
    with of_one, two, of_two:
        one.close()
        assert gone(of_one)
        two.sendall(b"still here")
        assert of_two.recv(100) == b"still here"


@over_ipv4
def test_a_target_that_reads_nothing_keeps_nobody(door: Door, server: socket.socket) -> None:
    """sshd closes both ways only once it has got rid of all; what a client that is gone does not read it says at once."""
    client, target = door.through_to(server)
    with client, target:
        client.settimeout(0.5)  # all buffers are full when nothing has moved for so long
        with pytest.raises(TimeoutError):
            client.sendall(bytes(1 << 26))
        client.shutdown(socket.SHUT_RD)
        assert gone(target)


@over_ipv4
def test_all_end_with_their_session(door: Door, server: socket.socket) -> None:
    ends = [door.through_to(server) for _ in range(20)]
    assert door.leave() == 0
    assert all(gone(target) for _, target in ends)
    assert not door.at.exists()
    for pair in ends:
        for end in pair:
            end.close()


@over_ipv4
def test_all_end_with_their_pod(door: Door, server: socket.socket) -> None:
    client, target = door.through_to(server)
    with client, target:
        door.at.unlink()  # as all of the Pod's directory
        assert door.process.wait(ANSWER_S) == 0
        assert gone(target)


def test_what_is_not_there_is_said(tool: Path, tmp_path: Path) -> None:
    for netns, at in ((tmp_path / "no-netns", tmp_path / "door"), ("-", tmp_path / "no-pod/door")):
        done = subprocess.run([tool, "forward", netns, at], stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_S)
        assert (done.returncode, b"No such file" in done.stderr) == (3, True)
