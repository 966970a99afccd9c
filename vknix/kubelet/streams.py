"""What a command sees of its client: provider.Streams over either carrier, with bounded buffers; and how it ended.

A carrier puts in what the client sends, and stops reading its socket between `on_full` and `on_room`. What the command writes goes
straight to the carrier, whose `send` returns when the socket has room: nothing is kept here.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from vknix.core.facts import HostName
from vknix.errors import VknixError
from vknix.kubelet.channels import Channel, Exited, Failed, Outcome, Sizes
from vknix.kubelet.target import Backend
from vknix.provider import AttachRequest, ExecRequest, Size

log = logging.getLogger(__name__)

HIGH_WATER: Final = 256 * 1024  # bytes of stdin that wait for the command; one more read of the socket may come on top
LOW_WATER: Final = 64 * 1024

Send = Callable[[Channel, bytes], Awaitable[None]]


class Inbox:
    """Bytes that the command has not read yet."""

    def __init__(self, *, on_full: Callable[[], None], on_room: Callable[[], None], high_water: int = HIGH_WATER) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._full = False
        self._arrived = asyncio.Event()
        self._high_water = high_water
        self._on_full = on_full
        self._on_room = on_room

    @property
    def is_full(self) -> bool:
        return self._full

    def put(self, data: bytes) -> None:
        if self._ended:
            return
        self._pieces.append(data)
        self._size += len(data)
        self._arrived.set()
        if not self._full and self._size >= self._high_water:
            self._full = True
            self._on_full()

    def end(self) -> None:
        """The client sends no more."""
        self._ended = True
        self._arrived.set()

    def discard(self) -> None:
        """Nobody reads any more: what is here and what still comes is dropped."""
        self.end()
        self._taken()

    async def get(self) -> bytes:
        """All that is there, at least one byte; b"" after the end."""
        while not self._pieces and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        return self._taken()

    def _taken(self) -> bytes:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._full:
            self._full = False
            self._on_room()
        return data


class Resizes:
    """The newest size of the terminal that nobody has asked for yet: older ones mean nothing any more."""

    def __init__(self) -> None:
        self._sizes = Sizes()
        self._newest: Size | None = None
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, data: bytes) -> None:
        for size in self._sizes.feed(data):
            self._newest = size
            self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def get(self) -> Size | None:
        while self._newest is None and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        size, self._newest = self._newest, None
        return size


class ClientStreams:
    """provider.Streams. `wanted` are the channels that the request asked for: others are silent and swallow what they get."""

    def __init__(self, wanted: frozenset[Channel], send: Send, inbox: Inbox) -> None:
        self._wanted = wanted
        self._send = send
        self._inbox = inbox
        self._resizes = Resizes()
        if Channel.STDIN not in wanted:
            inbox.end()

    def put(self, channel: Channel, data: bytes) -> None:
        if channel == Channel.STDIN:
            self._inbox.put(data)
        elif channel == Channel.RESIZE:
            self._resizes.put(data)

    def end(self, channel: Channel) -> None:
        if channel == Channel.STDIN:
            self._inbox.end()
        elif channel == Channel.RESIZE:
            self._resizes.end()

    def command_ended(self) -> None:
        self._inbox.discard()

    async def read_stdin(self) -> bytes:
        return await self._inbox.get()

    async def write_stdout(self, data: bytes) -> None:
        if Channel.STDOUT in self._wanted:
            await self._send(Channel.STDOUT, data)

    async def write_stderr(self, data: bytes) -> None:
        if Channel.STDERR in self._wanted:
            await self._send(Channel.STDERR, data)

    async def next_size(self) -> Size | None:
        return await self._resizes.get()


Run = Callable[[ClientStreams], Awaitable[Outcome]]


async def run_exec(backend: Backend, request: ExecRequest, host: HostName, streams: ClientStreams) -> Outcome:
    """Always says how it ended: an error channel that closes empty would mean success to the client."""
    what = f"exec in container {request.container} of Pod {request.uid}"
    return await _outcome(backend.exec(request, host, streams), what, streams)


async def run_attach(backend: Backend, request: AttachRequest, host: HostName, streams: ClientStreams) -> Outcome:
    """The same for an attach, which is a success when the container has ended, however that did."""

    async def attach() -> int:
        await backend.attach(request, host, streams)
        return 0

    return await _outcome(attach(), f"attach to container {request.container} of Pod {request.uid}", streams)


async def _outcome(run: Coroutine[Any, Any, int], what: str, streams: ClientStreams) -> Outcome:
    try:
        return Exited(await run)
    except VknixError as error:
        return Failed(str(error))
    except Exception:  # see run_exec: a bug of ours must not look like a command's success, either
        log.exception("%s failed", what)
        return Failed("vknix itself failed; its log says why")
    finally:
        streams.command_ended()
