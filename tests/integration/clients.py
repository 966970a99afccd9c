"""Who streams to and from containers, in the same few words each: kubectl by either protocol, and the Python client."""

import asyncio
import io
import re
import socket
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp
from kubernetes_asyncio.client import ApiClient

from tests.integration.build import Space
from tests.integration.streaming import ANSWER_S, Done, Kubectl, python_client, python_exec, until_closed, websocket


@dataclass(frozen=True, slots=True)
class Place:
    """A container."""

    pod: str
    container: str = "main"


class Client(Protocol):
    def exec(self, at: Place, *argv: str, stdin: bytes = b"") -> Done: ...

    def type(self, at: Place, text: str, *argv: str) -> str:
        """A command on a terminal, at which somebody types: all that was shown until its end."""

    def attach(self, at: Place, line: bytes) -> bytes:
        """Attached, a line is sent: the next line that comes."""

    def forward(self, pod: str, port: int, data: bytes) -> bytes:
        """What is sent to a port and comes back, as many bytes."""

    def follow(self, at: Place, lines: int) -> list[bytes]:
        """The log's last line, and those that come then."""

    def copy_in(self, at: Place, local: Path, target: str) -> None:
        """A folder, which is `target` then."""

    def copy_out(self, at: Place, source: str, local: Path) -> None:
        """A folder, which is `local` then."""


@dataclass(frozen=True, slots=True)
class KubectlClient:
    kubectl: Kubectl

    def exec(self, at: Place, *argv: str, stdin: bytes = b"") -> Done:
        flags = ("--stdin",) if stdin else ()
        done = self.kubectl.run("exec", *flags, at.pod, "--container", at.container, "--", *argv, stdin=stdin)
        return Done(done.returncode, done.stdout, done.stderr)

    def type(self, at: Place, text: str, *argv: str) -> str:
        with self.kubectl.terminal("exec", "--stdin", "--tty", at.pod, "--container", at.container, "--", *argv) as terminal:
            terminal.type(text)
            return terminal.rest()

    def attach(self, at: Place, line: bytes) -> bytes:
        with self.kubectl.running("attach", "--stdin", at.pod, "--container", at.container) as process:
            return _said(process, line)

    def forward(self, pod: str, port: int, data: bytes) -> bytes:
        with forwarding(self.kubectl, pod, port) as (_, (local,)), socket.create_connection(("127.0.0.1", local), ANSWER_S) as to:
            to.sendall(data)
            to.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: to.recv(65536), b""))

    def follow(self, at: Place, lines: int) -> list[bytes]:
        with self.kubectl.running("logs", "--follow", "--tail=1", at.pod, "--container", at.container) as process:
            assert process.stdout is not None
            return [process.stdout.readline() for _ in range(lines)]

    def copy_in(self, at: Place, local: Path, target: str) -> None:
        self._copy(at, str(local), f"{at.pod}:{target}")

    def copy_out(self, at: Place, source: str, local: Path) -> None:
        self._copy(at, f"{at.pod}:{source}", str(local))

    def _copy(self, at: Place, source: str, target: str) -> None:
        done = self.kubectl.run("cp", "--container", at.container, source, target)
        assert done.returncode == 0, done.stderr


def _said(process: "subprocess.Popen[bytes]", line: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    process.stdin.flush()
    return process.stdout.readline()


@contextmanager
def forwarding(kubectl: Kubectl, pod: str, *ports: int) -> "Iterator[tuple[subprocess.Popen[bytes], list[int]]]":
    """kubectl port-forward, and the local ports that it listens on."""
    with kubectl.running("port-forward", pod, *(f":{port}" for port in ports)) as process:
        assert process.stdout is not None
        local: list[int] = []
        while len(local) < len(ports):
            line = process.stdout.readline().decode()
            assert line, process.stderr.read() if process.stderr else ""
            found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+)", line)
            local += [int(found[1])] if found else []
        yield process, local


@dataclass(frozen=True, slots=True)
class PythonClient:
    """By WebSocket alone, and by the oldest protocols of these."""

    space: Space

    def exec(self, at: Place, *argv: str, stdin: bytes = b"") -> Done:
        return asyncio.run(self._exec(at, *argv, stdin=stdin))

    def type(self, at: Place, text: str, *argv: str) -> str:
        return asyncio.run(self._exec(at, *argv, stdin=text.encode(), tty=True)).out.decode()

    async def _exec(self, at: Place, *argv: str, stdin: bytes, tty: bool = False) -> Done:
        async with python_client(self.space.lab) as api:
            return await python_exec(api, self.space, at.pod, *argv, stdin=stdin, tty=tty, container=at.container)

    def attach(self, at: Place, line: bytes) -> bytes:
        async def attach() -> bytes:
            async with python_client(self.space.lab) as api:
                asked = {"container": at.container, "stdin": True, "stdout": True, "stderr": False, "_preload_content": False}
                opened = await api.connect_get_namespaced_pod_attach(at.pod, self.space.name, **asked)
                async with websocket(opened) as ws:
                    await ws.send_bytes(b"\0" + line)
                    return await _channel(ws, 1, len(b"got ") + len(line))

        return asyncio.run(attach())

    def forward(self, pod: str, port: int, data: bytes) -> bytes:
        async def forward() -> bytes:
            async with python_client(self.space.lab) as api:
                asked = {"ports": str(port), "_preload_content": False}
                opened = await api.connect_get_namespaced_pod_portforward(pod, self.space.name, **asked)
                async with websocket(opened) as ws:
                    number = struct.pack("<H", port)
                    assert {await ws.receive_bytes(), await ws.receive_bytes()} == {b"\0" + number, b"\1" + number}
                    await ws.send_bytes(b"\0" + data)
                    return await _channel(ws, 0, len(data))

        return asyncio.run(forward())

    def follow(self, at: Place, lines: int) -> list[bytes]:
        async def follow() -> list[bytes]:
            async with python_client(self.space.lab, ApiClient) as api:
                asked = {"container": at.container, "follow": True, "tail_lines": 1, "_preload_content": False}
                answer = await api.read_namespaced_pod_log(at.pod, self.space.name, **asked)
                try:
                    async with asyncio.timeout(ANSWER_S):
                        return [await answer.content.readline() for _ in range(lines)]
                finally:
                    wire = answer.connection.transport.get_extra_info("socket")
                    answer.close()
                    await until_closed(wire)

        return asyncio.run(follow())

    def copy_in(self, at: Place, local: Path, target: str) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(local, target)
        data = archive.getvalue()
        unpack: tuple[str, ...] = ("tar", "xmf", "-", "-C", "/")
        if at.container == "main":  # busybox' tar reads to the end of its input, which this protocol has not
            unpack = ("sh", "-c", f"head -c {len(data)} | {' '.join(unpack)}")
        done = self.exec(at, *unpack, stdin=data)
        assert done.code == 0, done.err

    def copy_out(self, at: Place, source: str, local: Path) -> None:
        done = self.exec(at, "tar", "cf", "-", source)
        assert done.code == 0, done.err
        with tarfile.open(fileobj=io.BytesIO(done.out)) as tar:
            for member in tar:
                member.name = str(Path(member.name).relative_to(source.lstrip("/")))
                tar.extract(member, local, filter="data")


async def _channel(ws: aiohttp.ClientWebSocketResponse, channel: int, size: int) -> bytes:
    """The first bytes of one channel."""
    came = b""
    async with asyncio.timeout(ANSWER_S):
        while len(came) < size:
            message = await ws.receive_bytes()
            came += message[1:] if message[0] == channel else b""
    return came
