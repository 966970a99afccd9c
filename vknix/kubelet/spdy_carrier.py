"""An exec session over SPDY/3.1, on a connection that is taken over from aiohttp.

The connection's loss goes on to aiohttp's own protocol, which cancels the handler (`handler_cancellation=True`), and with it the
command: as for any other request. Taking over a connection is no official API of aiohttp; tests/kubelet pins it.
"""

import asyncio
from typing import Final

from aiohttp import web

from vknix.kubelet import spdy
from vknix.kubelet.channels import Channel, Outcome, document
from vknix.kubelet.peer import FAREWELL_S, watch_peer
from vknix.kubelet.streams import ClientStreams, Inbox, Run

PROTOCOLS: Final = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")

_CREATION_S = 30.0  # a kubelet's streamCreationTimeout
_PIECE = 64 * 1024  # of one channel, before another has its turn
_HIGH_WATER = 128 * 1024  # bytes that the client has not taken
_FLOOD = 1024 * 1024  # answers to pings and the like that pile up unread end the connection
_MAX_STREAMS = 16

_CHANNELS = {
    "error": Channel.ERROR,
    "stdin": Channel.STDIN,
    "stdout": Channel.STDOUT,
    "stderr": Channel.STDERR,
    "resize": Channel.RESIZE,
}


async def serve_spdy(request: web.Request, protocol: str, wanted: frozenset[Channel], run: Run) -> web.StreamResponse:
    """Answers 101, runs the session, and ends the connection. `wanted` are the channels that the client is to open."""
    carrier = SpdyCarrier(request, wanted, as_json=protocol == PROTOCOLS[0])
    carrier.start(protocol)
    try:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(watch_peer(carrier))
            if await carrier.opened():
                await carrier.finish(await run(carrier.streams))
            watch.cancel()
    finally:
        carrier.close()
    return web.Response()  # goes nowhere: the connection is closed


class SpdyCarrier(asyncio.Protocol):
    def __init__(self, request: web.Request, wanted: frozenset[Channel], *, as_json: bool) -> None:
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        self.transport = request.transport
        self._inbox = Inbox(on_full=self.transport.pause_reading, on_room=self._read_on)
        self.streams = ClientStreams(wanted - {Channel.ERROR, Channel.RESIZE}, self.send, self._inbox)
        self._loop = asyncio.get_running_loop()
        self._before = request.protocol
        self._wanted = wanted
        self._as_json = as_json
        self._spdy = spdy.Connection(max_streams=_MAX_STREAMS)
        self._ids: dict[Channel, int] = {}
        self._channels: dict[int, Channel] = {}
        self._complete = asyncio.Event()
        self._peer_done = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._deadline: asyncio.TimerHandle | None = None
        self.last_active = self._loop.time()

    # Towards serve_spdy.

    def start(self, protocol: str) -> None:
        self.transport.set_protocol(self)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            b"X-Stream-Protocol-Version: " + protocol.encode() + b"\r\n\r\n"
        )

    async def opened(self) -> bool:
        """Whether the client has opened all the streams that it announced."""
        try:
            async with asyncio.timeout(_CREATION_S):
                await self._complete.wait()
        except TimeoutError:
            return False
        return True

    async def send(self, channel: Channel, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            self._write(self._spdy.data(self._ids[channel], data[start : start + _PIECE]))
            await self._writable.wait()
            self.last_active = self._loop.time()

    def nudge(self) -> None:
        if self._inbox.is_full and self._writable.is_set():
            self._write(self._spdy.data(self._ids[Channel.STDIN], b""))

    async def finish(self, outcome: Outcome) -> None:
        """Says how it ended, and gives the client a moment to close from its side."""
        error = self._ids[Channel.ERROR]
        # So that `_writable` says that all is written; 0 would pause TLS, with nothing to be written, for ever.
        self.transport.set_write_buffer_limits(high=1, low=0)
        for channel in (Channel.STDOUT, Channel.STDERR):
            if channel in self._ids:
                self._write(self._spdy.fin(self._ids[channel]))
        self._write(self._spdy.data(error, document(outcome, as_json=self._as_json)) + self._spdy.fin(error))
        await self._writable.wait()
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self._peer_done.wait()
        except TimeoutError:
            pass  # it will see the end of the connection instead

    def close(self) -> None:
        for stream in self._spdy.streams:
            self._write(self._spdy.reset(stream, spdy.Status.CANCEL))
        self._close(spdy.Farewell.OK)

    def _close(self, status: spdy.Farewell) -> None:
        self._write(self._spdy.goaway(status))
        self._leave()

    def _leave(self) -> None:
        self._peer_done.set()
        if not self.transport.is_closing():
            self.transport.close()
            self._deadline = self._loop.call_later(FAREWELL_S, self.transport.abort)

    # asyncio.Protocol.

    def data_received(self, data: bytes) -> None:
        self.last_active = self._loop.time()
        for event in self._spdy.receive(data):
            self._handle(event)
        if not self.transport.is_closing() and self.transport.get_write_buffer_size() > _FLOOD:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # What the client says.

    def _handle(self, event: spdy.Event) -> None:
        match event:
            case spdy.Data(stream, payload):
                if stream in self._channels:
                    self.streams.put(self._channels[stream], payload)
            case spdy.Fin(stream):
                if stream in self._channels:
                    self.streams.end(self._channels[stream])
            case spdy.Opened(stream, headers):
                self._open(stream, dict(headers).get("streamtype", ("",))[0])
            case spdy.Rejected(stream, status):
                self._write(self._spdy.reset(stream, status))
            case spdy.Ping(number):
                self._write(self._spdy.ping(number))
            case spdy.Reset() | spdy.GoAway():  # it gives up the session, or is content with it
                self._leave()
            case spdy.Broken():
                self._close(spdy.Farewell.PROTOCOL_ERROR)
            case spdy.Replied() | spdy.Pong():
                pass  # a server opens no streams and sends no pings

    def _open(self, stream: int, kind: str) -> None:
        channel = _CHANNELS.get(kind)
        if channel is None or channel in self._ids:
            self._write(self._spdy.reset(stream, spdy.Status.PROTOCOL_ERROR))
            return
        self._ids[channel], self._channels[stream] = stream, channel
        self._write(self._spdy.reply(stream))
        if self._wanted <= self._ids.keys():
            self._complete.set()

    def _write(self, data: bytes) -> None:
        if data and not self.transport.is_closing():
            self.transport.write(data)
