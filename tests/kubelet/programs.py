"""An in-memory backend whose containers know a few programs, named by argv[0]."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from vknix.core.facts import HostName, Uid
from vknix.errors import NotFound, Refused, Unreachable
from vknix.provider import AttachRequest, Duplex, ExecRequest, JournalQuery, Localhost, LogOptions, Streams

Program = Callable[[tuple[str, ...], Streams], Awaitable[int]]


async def cat(_argv: tuple[str, ...], streams: Streams) -> int:
    while data := await streams.read_stdin():
        await streams.write_stdout(data)
    return 0


async def count(_argv: tuple[str, ...], streams: Streams) -> int:
    total = 0
    while data := await streams.read_stdin():
        total += len(data)
    await streams.write_stdout(b"%d\n" % total)
    return 0


async def echo(argv: tuple[str, ...], streams: Streams) -> int:
    await streams.write_stdout(" ".join(argv[1:]).encode() + b"\n")
    return 0


async def both(_argv: tuple[str, ...], streams: Streams) -> int:
    await streams.write_stdout(b"to stdout")
    await streams.write_stderr(b"to stderr")
    return 0


async def leave(argv: tuple[str, ...], _streams: Streams) -> int:
    return int(argv[1])


async def pour(argv: tuple[str, ...], streams: Streams) -> int:
    piece = bytes(32 * 1024)
    for _ in range(int(argv[1]) // len(piece)):
        await streams.write_stdout(piece)
    return 0


async def sleep(_argv: tuple[str, ...], _streams: Streams) -> int:
    await asyncio.Event().wait()
    return 0


async def size(_argv: tuple[str, ...], streams: Streams) -> int:
    found = await streams.next_size()
    assert found is not None
    await streams.write_stdout(f"{found.width}x{found.height}".encode())
    return 0


async def vanish(_argv: tuple[str, ...], _streams: Streams) -> int:
    raise Unreachable("host red does not answer")


async def absent(_argv: tuple[str, ...], _streams: Streams) -> int:
    raise NotFound("the container has just ended")


async def bug(_argv: tuple[str, ...], _streams: Streams) -> int:
    raise RuntimeError("secret detail")


PROGRAMS: Mapping[str, Program] = {
    "absent": absent,
    "both": both,
    "bug": bug,
    "cat": cat,
    "count": count,
    "echo": echo,
    "exit": leave,
    "pour": pour,
    "size": size,
    "sleep": sleep,
    "vanish": vanish,
}


ECHO, GREET, REFUSED, LOST, DEAF, BUG, POUR, FLOOD = 7, 13, 9, 10, 11, 12, 19, 20


@dataclass(slots=True)
class Connection:
    """provider.Duplex to a program that is named by its port."""

    port: int
    flood: asyncio.Event
    pending: bytes = b""
    ended: bool = False
    taken: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, limit: int) -> bytes:
        if self.port == GREET:
            data, self.pending = self.pending, b""
            return data
        if self.port == FLOOD:
            await self.flood.wait()
            self.taken += 1
        if self.port == POUR or self.taken in range(1, 20):
            return bytes(limit)
        while not self.pending and not self.ended:
            self.news.clear()
            await self.news.wait()
        piece, self.pending = self.pending[:limit], self.pending[limit:]
        return piece

    async def write(self, data: bytes) -> None:
        if self.port == DEAF:
            await asyncio.Event().wait()
        if self.port == LOST:
            raise Unreachable("host red: the link was lost")
        if self.port == GREET:
            raise Refused("", "the connection was closed")
        self.pending += data
        self.news.set()

    async def end(self) -> None:
        self.ended = True
        self.news.set()


@dataclass(slots=True)
class Programs:
    """`lines` is each container's log, or what its reading raises."""

    lines: tuple[bytes | Exception, ...] = ()
    asked: list[AttachRequest | ExecRequest | JournalQuery | LogOptions] = field(default_factory=list)
    journals: dict[str, bytes | Exception] = field(default_factory=dict)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    flood: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    away: bool = False

    async def exec(self, request: ExecRequest, host: HostName, streams: Streams) -> int:
        self.asked.append(request)
        program = PROGRAMS.get(request.argv[0])
        if program is None:
            raise Refused("", f'"{request.argv[0]}": executable file not found in $PATH')
        self.running += 1
        self.started.set()
        try:
            return await program(request.argv, streams)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.running -= 1

    async def attach(self, request: AttachRequest, host: HostName, streams: Streams) -> None:
        """The main process is `cat`, or `size` where the client sends nothing."""
        self.asked.append(request)
        await (cat if request.stdin else size)((), streams)

    async def host_logs(self, host: HostName, query: JournalQuery) -> AsyncGenerator[bytes, None]:
        self.asked.append(query)
        said = self.journals.get(host, b"")
        if isinstance(said, Exception):
            raise said
        yield said

    @asynccontextmanager
    async def localhost(self, uid: Uid, host: HostName) -> AsyncIterator[Localhost]:
        if self.away:
            raise Unreachable("host red does not answer")
        yield self

    @asynccontextmanager
    async def dial(self, port: int) -> AsyncIterator[Duplex]:
        if port == REFUSED:
            raise Refused("", "dial tcp4 127.0.0.1:9: connect: connection refused")
        if port == BUG:
            raise RuntimeError("secret detail")
        self.running += 1
        try:
            yield Connection(port, self.flood, b"welcome" if port == GREET else b"")
        finally:
            self.running -= 1

    async def logs(self, uid: Uid, host: HostName, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        self.asked.append(options)
        for line in self.lines:
            if isinstance(line, Exception):
                raise line
            yield line
        if options.follow:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
