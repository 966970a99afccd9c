"""The logs of a host's containers. However many follow a log, the host reads it for them once (`vktool follow`).

A follower first reads what there is up to where that reader is now, then takes what comes. One that can't keep up falls off, and
reads what it has missed the same way.
"""

import asyncio
import shlex
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

from vknix.core.facts import HostName
from vknix.errors import Unreachable, VknixError
from vknix.nspawn.records import Frame, stamp
from vknix.nspawn.ssh import Finished
from vknix.provider import LogOptions

_BLOCK = 1 << 16
_BACKLOG = 1 << 22  # what a follower may have waiting for it


class Reader(Protocol):
    async def read(self, n: int, /) -> bytes: ...
    async def readline(self) -> bytes: ...
    async def readexactly(self, n: int, /) -> bytes: ...


class Process(Protocol):
    """A command on the host, as asyncssh has it; without an exit status after its end the link was lost."""

    @property
    def stdout(self) -> Reader: ...
    @property
    def stderr(self) -> Reader: ...
    @property
    def exit_status(self) -> int | None: ...
    async def wait(self) -> object: ...


Start = Callable[[str], AbstractAsyncContextManager[Process]]


class _Follower:
    """What waits for one who follows: all that comes after `start`. `lost`: so much that it had to fall off."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.lost = False
        self.over = False
        self.error: VknixError | None = None
        self._frames: deque[Frame] = deque()
        self._size = 0
        self._news = asyncio.Event()

    def add(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._size += len(frame.records)
        self.lost = self._size > _BACKLOG
        self._news.set()

    def finish(self, error: VknixError | None) -> None:
        self.over, self.error = True, error
        self._news.set()

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Until the log has ended, or this one is lost. Raises what its reader did."""
        while True:
            while self._frames:
                frame = self._frames.popleft()
                self._size -= len(frame.records)
                yield frame
            if self.error is not None:
                raise self.error
            if self.lost or self.over:
                return
            self._news.clear()
            await self._news.wait()


class _Shared:
    """One reader on the host, for all who follow one log. It pauses while there are none: the host would send what nobody takes."""

    def __init__(self, host: HostName) -> None:
        self.users = 0
        self._host = host
        self._position = 0
        self._placed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._followers: set[_Follower] = set()
        self._over = False
        self._error: VknixError | None = Unreachable(f"host {host}: the link was lost")

    async def run(self, start: Start, command: str) -> None:
        try:
            async with start(command) as process:
                async for frame in _frames(process.stdout):
                    self._take(frame)
                    await self._wanted.wait()
                await check(process, self._host)
            self._error = None
        except VknixError as error:
            self._error = error
        finally:
            self._over = True
            self._placed.set()
            for follower in self._followers:
                follower.finish(self._error)

    def _take(self, frame: Frame) -> None:
        self._position = frame.end
        self._placed.set()
        for follower in [*self._followers] if frame.records else ():
            follower.add(frame)
            if follower.lost:
                self._leave(follower)

    async def placed(self) -> None:
        """Once it is known where the log ends now."""
        await self._placed.wait()

    @contextmanager
    def joined(self) -> Iterator[_Follower]:
        follower = _Follower(self._position)
        if self._over:
            follower.finish(self._error)
        self._followers.add(follower)
        self._wanted.set()
        try:
            yield follower
        finally:
            self._leave(follower)

    def _leave(self, follower: _Follower) -> None:
        self._followers.discard(follower)
        if not self._followers:
            self._wanted.clear()


class Logs:
    """The logs of one host, for as long as its link lasts. Their directories are as vktool has them."""

    def __init__(self, host: HostName, tool: str, start: Start, tasks: asyncio.TaskGroup) -> None:
        self._host = host
        self._tool = tool
        self._start = start
        self._tasks = tasks
        self._shared: dict[tuple[str, int], tuple[_Shared, asyncio.Task[None]]] = {}

    async def read(self, directory: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """HostFailed where there is no such log, Unreachable where the link is lost before its end."""
        left = _Left(options.limit_bytes)
        with self._sharing(directory, options.attempt) if options.follow else nullcontext() as shared:
            if shared is not None:
                await shared.placed()
            pieces = self._past(directory, options, left) if shared is None else self._live(shared, directory, options, left)
            async with aclosing(pieces):
                async for piece in pieces:
                    yield left.take(piece)
                    if left.room == 0:
                        return

    @contextmanager
    def _sharing(self, directory: str, attempt: int) -> Iterator[_Shared]:
        key = (directory, attempt)
        if key not in self._shared:
            made = _Shared(self._host)
            command = f"exec {shlex.join([self._tool, 'follow', directory, str(attempt)])}"
            self._shared[key] = made, self._tasks.create_task(made.run(self._start, command), name=f"follow {directory}")
        shared, task = self._shared[key]
        shared.users += 1
        try:
            yield shared
        finally:
            shared.users -= 1
            if shared.users == 0:
                del self._shared[key]
                task.cancel()

    async def _live(self, shared: _Shared, directory: str, options: LogOptions, left: "_Left") -> AsyncGenerator[bytes, None]:
        since = stamp(options.since) if options.since is not None else b""
        missed = options
        position = 0
        while True:
            with shared.joined() as follower:
                async with aclosing(self._past(directory, missed, left, position, follower.start)) as pieces:
                    async for piece in pieces:
                        yield piece
                position = follower.start
                async with aclosing(follower.frames()) as frames:
                    async for frame in frames:
                        position = frame.end
                        if text := frame.text(stamps=options.timestamps, since=since):
                            yield text
                if not follower.lost:
                    return
            missed = replace(options, tail_lines=None)

    async def _past(
        self, directory: str, options: LogOptions, left: "_Left", position: int = 0, until: int = -1
    ) -> AsyncGenerator[bytes, None]:
        """What there is already, from one position to another."""
        words = [
            self._tool,
            "logs",
            directory,
            *(str(number) for number in (options.attempt, position, _given(options.tail_lines))),
            *(str(number) for number in (int((options.since or 0) * 1e9), _given(left.room), until)),
            "stamps" if options.timestamps else "plain",
        ]
        async with self._start(f"exec {shlex.join(words)}") as process:
            while block := await process.stdout.read(_BLOCK):
                yield block
            await check(process, self._host)


def _given(number: int | None) -> int:
    return -1 if number is None else number


@dataclass(slots=True)
class _Left:
    """How many bytes may still go out; None: all."""

    room: int | None

    def take(self, piece: bytes) -> bytes:
        if self.room is None:
            return piece
        piece = piece[: self.room]
        self.room -= len(piece)
        return piece


async def _frames(stdout: Reader) -> AsyncIterator[Frame]:
    while head := await stdout.readline():
        end, inside, size = (int(word) for word in head.split())
        yield Frame(end, bool(inside), await stdout.readexactly(size))


async def check(process: Process, host: HostName) -> None:
    """HostFailed where the command exited non-zero, with what it said."""
    said = await process.stderr.read(_BLOCK)
    await process.wait()
    if process.exit_status is None:
        raise Unreachable(f"host {host}: the link was lost")
    Finished(process.exit_status, b"", said).checked(host)
