"""A port-forward session over SPDY/3.1, on either wire: pairs of streams, `error` and `data`, that belong together by request ID.

SPDY has no windows, so a connection whose target does not read holds up its whole session in the end, as it does at a kubelet.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from vknix.kubelet import spdy
from vknix.kubelet.forwarding import BLOCK, Forwarder, port_of
from vknix.kubelet.spdy_carrier import CREATION_S
from vknix.kubelet.streams import Inbox
from vknix.kubelet.wire import Wire

PROTOCOL: Final = "portforward.k8s.io"
MAX_STREAMS: Final = 2048

_ROOM = 64 * 1024  # bytes for one target that it has not taken


@dataclass(slots=True)
class _Pair:
    """One connection. Its inbox keeps what the client sends before the target has answered."""

    request: str
    port: int
    inbox: Inbox
    streams: dict[str, int] = field(default_factory=dict)  # "error", "data"
    deadline: asyncio.TimerHandle | None = None
    task: "asyncio.Task[None] | None" = None


class SpdyForward:
    """`receive` gets what the client sends. Runs inside `tasks`."""

    def __init__(self, wire: Wire, forwarder: Forwarder, tasks: asyncio.TaskGroup) -> None:
        self.wire = wire
        self.ended = asyncio.Event()  # the client wants no more
        self._forwarder = forwarder
        self._tasks = tasks
        self._spdy = spdy.Connection(max_streams=MAX_STREAMS)
        self._pairs: dict[str, _Pair] = {}
        self._by_stream: dict[int, _Pair] = {}
        self._full: set[str] = set()
        self._turn = asyncio.Lock()

    @property
    def transport(self) -> asyncio.Transport:
        return self.wire.transport

    @property
    def last_active(self) -> float:
        return self.wire.last_active

    def nudge(self) -> None:
        pair = self._pairs.get(next(iter(self._full), ""))
        if pair is not None and "error" in pair.streams and not self._turn.locked():
            self.wire.write(self._spdy.data(pair.streams["error"], b""))

    def close(self) -> None:
        """Ends all connections, and then the session."""
        for pair in list(self._pairs.values()):
            self._forget(pair)
            if pair.task is not None:
                pair.task.cancel()
        for stream in self._spdy.streams:
            self.wire.write(self._spdy.reset(stream, spdy.Status.CANCEL))
        self._leave(spdy.Farewell.OK)

    def _leave(self, status: spdy.Farewell) -> None:
        if not self.ended.is_set():
            self.wire.write(self._spdy.goaway(status))
        self.ended.set()
        self.wire.leave()

    # What the client says.

    def receive(self, data: bytes) -> None:
        for event in self._spdy.receive(data):
            self._handle(event)

    def _handle(self, event: spdy.Event) -> None:
        match event:
            case spdy.Data(stream, payload):
                pair = self._by_stream.get(stream)
                if pair is not None and pair.streams.get("data") == stream:
                    pair.inbox.put(payload)
            case spdy.Fin(stream):
                pair = self._by_stream.get(stream)
                if pair is not None and pair.streams.get("data") == stream:
                    pair.inbox.end()
            case spdy.Opened(stream, headers):
                self._opened(stream, dict(headers))
            case spdy.Rejected(stream, status):
                self.wire.write(self._spdy.reset(stream, status))
            case spdy.Reset(stream):
                pair = self._by_stream.get(stream)
                if pair is not None and pair.streams.get("data") == stream:
                    self._abandoned(pair)
            case spdy.Ping(number):
                self.wire.write(self._spdy.ping(number))
            case spdy.GoAway():
                self.ended.set()
                self.wire.leave()
            case spdy.Broken():
                self._leave(spdy.Farewell.PROTOCOL_ERROR)
            case spdy.Replied() | spdy.Pong():
                pass  # a server opens no streams and sends no pings

    def _opened(self, stream: int, headers: dict[str, tuple[str, ...]]) -> None:
        kind = headers.get("streamtype", ("",))[0]
        try:
            port = port_of(headers.get("port", ("",))[0])
        except ValueError:
            port = 0
        if not port or kind not in ("error", "data"):
            self.wire.write(self._spdy.reset(stream, spdy.Status.CANCEL))
            return
        self.wire.write(self._spdy.reply(stream))
        # Clients older than request IDs open `error` just before `data`.
        request = headers.get("requestid", ("",))[0] or f"stream {stream if kind == 'error' else stream - 2}"
        pair = self._pairs.get(request) or self._new_pair(request, port)
        if kind in pair.streams:
            self._say(pair, f"error processing stream for request {request}: {kind} stream already assigned")
            self.wire.write(self._spdy.reset(stream, spdy.Status.CANCEL))
            return
        pair.streams[kind] = stream
        self._by_stream[stream] = pair
        if kind == "data":
            pair.port = port
        if len(pair.streams) == 2:
            if pair.deadline is not None:
                pair.deadline.cancel()
            pair.task = self._tasks.create_task(self._forward(pair))

    def _new_pair(self, request: str, port: int) -> _Pair:
        def on_full() -> None:
            self._full.add(request)
            self.wire.pause_reading()

        def on_room() -> None:
            self._full.discard(request)
            if not self._full:
                self.wire.resume_reading()

        pair = _Pair(request, port, Inbox(on_full=on_full, on_room=on_room, high_water=_ROOM))
        pair.deadline = asyncio.get_running_loop().call_later(CREATION_S, self._incomplete, pair)
        self._pairs[request] = pair
        return pair

    def _incomplete(self, pair: _Pair) -> None:
        self._say(pair, f"request {pair.request} timed out waiting for streams")
        self._finish(pair)

    def _abandoned(self, pair: _Pair) -> None:
        """The client has reset its data: it reads no more, and waits for the end of `error`."""
        if pair.task is not None:
            pair.task.cancel()
        self._finish(pair)

    # Towards one client.

    async def _forward(self, pair: _Pair) -> None:
        why = await self._forwarder.forward(pair.port, _End(self, pair))
        if why:
            self._say(pair, why)
        self._finish(pair)

    def _say(self, pair: _Pair, text: str) -> None:
        if "error" in pair.streams:
            self.wire.write(self._spdy.data(pair.streams["error"], text.encode()))

    def _finish(self, pair: _Pair) -> None:
        """Ends both streams, as far as they have not ended yet: the client's side of `data`, too."""
        for stream in pair.streams.values():
            self.wire.write(self._spdy.fin(stream))
        if pair.streams.get("data") in self._spdy.streams:
            self.wire.write(self._spdy.reset(pair.streams["data"], spdy.Status.CANCEL))
        self._forget(pair)

    def _forget(self, pair: _Pair) -> None:
        if pair.deadline is not None:
            pair.deadline.cancel()
        pair.inbox.discard()
        self._pairs.pop(pair.request, None)
        for stream in pair.streams.values():
            self._by_stream.pop(stream, None)

    async def write(self, stream: int, data: bytes) -> None:
        """One at a time: so each has its turn, and no more waits to be sent than one piece of one of them."""
        async with self._turn:
            self.wire.write(self._spdy.data(stream, data))
            await self.wire.drain()

    def fin(self, stream: int) -> None:
        self.wire.write(self._spdy.fin(stream))


@dataclass(frozen=True, slots=True)
class _End:
    """forwarding.End."""

    session: SpdyForward
    pair: _Pair

    async def read(self) -> bytes:
        return await self.pair.inbox.get()

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), BLOCK):
            await self.session.write(self.pair.streams["data"], data[start : start + BLOCK])

    def discard(self) -> None:
        self.pair.inbox.discard()

    async def end(self) -> None:
        self.session.fin(self.pair.streams["data"])
