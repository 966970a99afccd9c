"""Ways to a container's streams as users have them: kubectl of two releases by either protocol, with or without a terminal, and the
Python client. And what of it is to be seen on the hosts.
"""

import asyncio
import fcntl
import json
import os
import secrets
import select
import socket
import struct
import subprocess
import termios
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes_asyncio import client, config
from kubernetes_asyncio.stream import WsApiClient

from tests.integration.build import Space
from tests.lab.hosts import Host
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

ANSWER_S = 30.0  # far more than any of it takes


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl as one user has it, in one namespace: its release, and the protocol that it asks for."""

    space: Space
    program: str = "kubectl"
    websockets: bool = True

    @property
    def env(self) -> dict[str, str]:
        asked = str(self.websockets).lower()
        return {**os.environ, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": asked, "KUBECTL_PORT_FORWARD_WEBSOCKETS": asked}

    def argv(self, *words: str) -> list[str]:
        layout = self.space.lab.layout
        return [
            str(layout.bin / self.program),
            f"--kubeconfig={layout.admin_kubeconfig}",
            f"--namespace={self.space.name}",
            *words,
        ]

    def run(self, *words: str, stdin: bytes = b"", timeout_s: float = ANSWER_S) -> "subprocess.CompletedProcess[bytes]":
        """To its end, whatever its exit code."""
        return subprocess.run(self.argv(*words), input=stdin, capture_output=True, env=self.env, timeout=timeout_s)

    @contextmanager
    def running(self, *words: str, stdin: Any = subprocess.PIPE) -> "Iterator[subprocess.Popen[bytes]]":
        """In the background; killed at the end of the block where it still runs."""
        pipe = subprocess.PIPE
        with subprocess.Popen(self.argv(*words), stdin=stdin, stdout=pipe, stderr=pipe, env=self.env) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def terminal(self, *words: str, rows: int = 24, columns: int = 80) -> "Iterator[Terminal]":
        """On a terminal of its own; killed at the end of the block where it still runs."""
        terminal = Terminal(self.argv(*words), self.env, rows=rows, columns=columns)
        try:
            yield terminal
        finally:
            terminal.close()


class Terminal:
    """A program on a terminal, and a person in front of it."""

    def __init__(self, argv: list[str], env: dict[str, str], *, rows: int, columns: int) -> None:
        self._master, slave = os.openpty()
        self.shown = b""
        self.resize(rows=rows, columns=columns)
        self.process = subprocess.Popen(["setsid", "--ctty", *argv], env=env, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def resize(self, *, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, text: str) -> None:
        """Waits until it is shown, and forgets all that was shown so far."""
        end = time.monotonic() + ANSWER_S
        while text.encode() not in self.shown:
            ready, _, _ = select.select([self._master], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise AssertionError(f"{text!r} is not shown, but {self.shown!r}")
            try:
                self.shown += os.read(self._master, 65536)
            except OSError as error:  # nobody has it open any more
                raise AssertionError(f"ended before {text!r} was shown, with {self.shown!r}") from error
        self.shown = self.shown.partition(text.encode())[2]

    def rest(self) -> str:
        """All that is shown until its end."""
        with suppress(OSError):  # nobody has it open any more
            while select.select([self._master], [], [], ANSWER_S)[0]:
                self.shown += os.read(self._master, 65536)
        return self.shown.decode(errors="replace")

    def wait(self) -> int:
        """The exit code."""
        return self.process.wait(ANSWER_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def errors(done: "subprocess.CompletedProcess[bytes]") -> str:
    return done.stderr.decode(errors="replace")


# ---- The Python client: WebSockets of v4 only ----


@asynccontextmanager
async def python_client(lab: Lab, kind: type[client.ApiClient] = WsApiClient) -> AsyncIterator[Any]:
    """kubernetes_asyncio's CoreV1Api, which streams by its WsApiClient; logs are plain HTTP."""
    configuration = client.Configuration()
    await config.load_kube_config(str(lab.layout.admin_kubeconfig), client_configuration=configuration)
    async with kind(configuration) as api:
        yield client.CoreV1Api(api)


@asynccontextmanager
async def websocket(opened: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A session of that client, until its connection is closed."""
    async with opened as session:
        wire = session.get_extra_info("socket")
        yield session
    await until_closed(wire)


async def until_closed(wire: socket.socket) -> None:
    async with asyncio.timeout(ANSWER_S):
        while wire.fileno() >= 0:  # noqa: ASYNC110  # aiohttp leaves the closing to the loop, which may end with the test
            await asyncio.sleep(0.001)


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: bytes
    err: bytes


async def python_exec(
    api: Any, space: Space, pod: str, *argv: str, stdin: bytes = b"", tty: bool = False, container: str = "main"
) -> Done:
    asked = {"container": container, "stdin": bool(stdin), "stdout": True, "stderr": not tty, "tty": tty}
    opened = await api.connect_get_namespaced_pod_exec(pod, space.name, command=list(argv), _preload_content=False, **asked)
    said = {1: b"", 2: b"", 3: b""}
    async with websocket(opened) as session:
        for start in range(0, len(stdin), 32768):
            await session.send_bytes(b"\0" + stdin[start : start + 32768])
        async for message in session:
            assert message.type is aiohttp.WSMsgType.BINARY
            said[message.data[0]] += message.data[1:]
    return Done(exit_code(json.loads(said[3])), said[1], said[2])


def exit_code(status: dict[str, Any]) -> int:
    """What a v4 status document says; -1 where the command did not run."""
    if status["status"] == "Success":
        return 0
    causes = status.get("details", {}).get("causes", [])
    return next((int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"), -1)


# ---- What the hosts have of it ----


def sleeper() -> tuple[str, str]:
    """A command that nobody else runs, and that does not end by itself."""
    return "sleep", str(10_000_000 + secrets.randbelow(10_000_000))


def is_running(argv: tuple[str, ...]) -> bool:
    """Whether a process of this machine, and so one in any of the lab's machines, is that command."""
    wanted = "\0".join(argv).encode() + b"\0"
    return any(_command(process) == wanted for process in Path("/proc").glob("[0-9]*"))


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def wait_running(*commands: tuple[str, ...]) -> None:
    wait_for(lambda: all(is_running(argv) for argv in commands), f"{commands} run", timeout_s=ANSWER_S, every_s=0.02)


def wait_ended(*commands: tuple[str, ...], within_s: float) -> None:
    wait_for(lambda: not any(is_running(argv) for argv in commands), f"{commands} end", timeout_s=within_s, every_s=0.02)


_LEFT = """
find /sys/fs/cgroup -type d -name 'exec-*'
for process in /proc/[0-9]*; do
    words=$(tr '\\0' ' ' <$process/cmdline 2>/dev/null) || continue
    case ${words#*/vktool } in exec\\ * | logs\\ * | follow\\ * | forward\\ *) echo "process $words" ;; esac
done
"""


def left(host: Host) -> list[str]:
    """What execs and log readers have on a host while they last: cgroups and processes."""
    return host.inside(_LEFT).splitlines()


def connections(host: Host) -> int:
    """How many SSH connections a host has."""
    return int(host.inside("grep -c ':0016 [0-9A-F]*:[0-9A-F]* 01 ' /proc/net/tcp || :"))


def wait_nothing_left(*hosts: Host, within_s: float = 2.0) -> None:
    """No process, no cgroup, and of the connections only the control connection and one in reserve."""

    def is_clean() -> bool:
        return all(not left(host) and connections(host) <= 2 for host in hosts)

    shown = f"nothing is left on {', '.join(host.name for host in hosts)}"
    wait_for(is_clean, shown, timeout_s=within_s, every_s=0.05)
