"""What a host in memory has of a Pod: its containers, the programs that they run, and connections to those that listen."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from vknix.core import restart
from vknix.core.facts import ContainerFacts, Exit, ImageFacts, ImageState, State, StorePath, Uid
from vknix.core.handlers import DEFAULT, Handler
from vknix.core.pod import Member
from vknix.errors import Refused

Answer = Callable[[bytes], bytes]  # what a program that listens says to each piece that it is sent


@dataclass(slots=True)
class Wire:
    """A connection to such a program. It is at its end when all that was answered has been read."""

    answer: Answer
    pending: bytes = b""

    async def read(self, limit: int) -> bytes:
        piece, self.pending = self.pending[:limit], self.pending[limit:]
        return piece

    async def write(self, data: bytes) -> None:
        self.pending += self.answer(data) if data else b""


class Forward:
    """provider.Duplex to such a program, which ends when its client does."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._pending = b""
        self._ended = False
        self._news = asyncio.Event()

    async def read(self, limit: int) -> bytes:
        while not self._pending and not self._ended:
            self._news.clear()
            await self._news.wait()
        piece, self._pending = self._pending[:limit], self._pending[limit:]
        return piece

    async def write(self, data: bytes) -> None:
        self._pending += self._answer(data)
        self._news.set()

    async def end(self) -> None:
        self._ended = True
        self._news.set()


@dataclass(slots=True)
class Container:
    """`timer` is of the next restart while it is stopped, of the kill while it is stopping. Each attempt has its own `files`."""

    name: str
    member: Member
    stdin: bool = False
    stdin_once: bool = False
    argv: tuple[str, ...] = ()
    state: State = State.STOPPED
    id: str = ""
    started: float | None = None
    exits: list[Exit] = field(default_factory=list)
    again: set[int] = field(default_factory=set)  # attempts that were stopped for the next to start
    logs: list[list[tuple[float, bytes]]] = field(default_factory=list)  # by attempt: lines with their times
    timer: asyncio.TimerHandle | None = None
    files: set[str] = field(default_factory=set)
    ports: dict[int, Answer] = field(default_factory=dict)
    resources: Mapping[str, Any] | None = None

    @property
    def runs(self) -> bool:
        return self.state in (State.RUNNING, State.STOPPING)

    def facts(self) -> ContainerFacts:
        stopped = self.state is State.STOPPED
        return ContainerFacts(
            name=self.name,
            state=self.state,
            attempt=len(self.logs) - 1,
            id="" if stopped else self.id,
            started=None if stopped else self.started,
            exits=tuple(self.exits[-2:]),
            streak=restart.streak(tuple(self.exits)),
            host_restarts=stopped and self.timer is not None,
            image=self.member.container.image if not stopped or self.timer is not None else "",
            resources=self.resources,
        )

    def set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer


@dataclass(slots=True)
class PodThere:
    uid: Uid
    namespace: str
    name: str
    roots: tuple[StorePath, ...]
    addresses: tuple[str, ...] = ()
    containers: dict[str, Container] = field(default_factory=dict)
    since: float = inf
    handler: Handler = DEFAULT

    def listens(self, port: int) -> Answer | None:
        """What a container that runs says on this port; `nc` says what it hears."""
        for container in self.containers.values():
            if container.runs and port in container.ports:
                return container.ports[port]
            if container.runs and container.argv[0].endswith("nc") and str(port) in container.argv:
                return lambda data: data
        return None


@dataclass(slots=True)
class Images:
    """Store paths that the host has, or is fetching. `tell` hears of one that is there, or can't be had."""

    missing: set[StorePath]
    fetch_s: float
    retry_s: float
    tell: Callable[[StorePath], None]
    known: dict[StorePath, ImageFacts] = field(default_factory=dict)

    def of(self, roots: Iterable[StorePath]) -> dict[StorePath, ImageFacts]:
        return {root: self.known[root] for root in roots if root in self.known}

    def has(self, root: StorePath) -> bool:
        return root in self.known and self.known[root].state is ImageState.PRESENT

    def fetch(self, root: StorePath) -> None:
        """Unless that is under way, or failed a moment ago."""
        known = self.known.get(root)
        if known is None or (known.state is ImageState.FAILED and (known.retry_at or 0) <= time.time()):
            self.known[root] = ImageFacts(root, ImageState.PULLING)
            asyncio.get_running_loop().call_later(self.fetch_s, self._fetched, root)

    def _fetched(self, root: StorePath) -> None:
        if root in self.missing:
            message = f"no such store path anywhere: {root}"
            self.known[root] = ImageFacts(root, ImageState.FAILED, message, retry_at=time.time() + self.retry_s)
        else:
            self.known[root] = ImageFacts(root, ImageState.PRESENT, took_s=self.fetch_s)
        self.tell(root)


def output_of(argv: tuple[str, ...], files: Collection[str]) -> tuple[bytes, int | None]:
    """What a program prints, and its exit code; None: it runs until somebody ends it. Refused where there is no such program."""
    match argv[0].rpartition("/")[2], *argv[1:]:
        case "true", *_:
            return b"", 0
        case "false", *_:
            return b"", 1
        case "echo", *words:
            return f"{' '.join(words)}\n".encode(), 0
        case "test", "-e", path:
            return b"", int(path not in files)
        case "test", "!", "-e", path:
            return b"", int(path in files)
        case (("cat" | "sleep" | "init" | "nc"), *_):
            return b"", None
    raise Refused("", f'exec: "{argv[0]}": executable file not found in $PATH')
