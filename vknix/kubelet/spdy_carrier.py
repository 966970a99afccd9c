"""An exec session over SPDY/3.1."""

import asyncio
from typing import Final

from aiohttp import web

from vknix.kubelet import spdy
from vknix.kubelet.channels import Channel, Outcome, document
from vknix.kubelet.peer import FAREWELL_S, watch_peer
from vknix.kubelet.streams import ClientStreams, Inbox, Run
from vknix.kubelet.wire import Taken

PROTOCOLS: Final = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
CREATION_S: Final = 30.0  # a kubelet's streamCreationTimeout

_PIECE = 64 * 1024  # of one channel, before another has its turn
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
    carrier.wire.start(protocol)
    try:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(watch_peer(carrier))
            if await carrier.opened():
                await carrier.finish(await run(carrier.streams))
            watch.cancel()
    finally:
        carrier.close()
    return web.Response()  # goes nowhere: the connection is closed


class SpdyCarrier:
    def __init__(self, request: web.Request, wanted: frozenset[Channel], *, as_json: bool) -> None:
        self.wire = Taken(request, self._receive)
        self._inbox = Inbox(on_full=self.wire.pause_reading, on_room=self.wire.resume_reading)
        self.streams = ClientStreams(wanted - {Channel.ERROR, Channel.RESIZE}, self.send, self._inbox)
        self._wanted = wanted
        self._as_json = as_json
        self._spdy = spdy.Connection(max_streams=_MAX_STREAMS)
        self._ids: dict[Channel, int] = {}
        self._channels: dict[int, Channel] = {}
        self._complete = asyncio.Event()
        self._peer_done = asyncio.Event()

    @property
    def transport(self) -> asyncio.Transport:
        return self.wire.transport

    @property
    def last_active(self) -> float:
        return self.wire.last_active

    # Towards serve_spdy.

    async def opened(self) -> bool:
        """Whether the client has opened all the streams that it announced."""
        try:
            async with asyncio.timeout(CREATION_S):
                await self._complete.wait()
        except TimeoutError:
            return False
        return True

    async def send(self, channel: Channel, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            self.wire.write(self._spdy.data(self._ids[channel], data[start : start + _PIECE]))
            await self.wire.drain()

    def nudge(self) -> None:
        if self._inbox.is_full and self.wire.has_room:
            self.wire.write(self._spdy.data(self._ids[Channel.STDIN], b""))

    async def finish(self, outcome: Outcome) -> None:
        """Says how it ended, and gives the client a moment to close from its side."""
        error = self._ids[Channel.ERROR]
        self.wire.wait_for_all()
        for channel in (Channel.STDOUT, Channel.STDERR):
            if channel in self._ids:
                self.wire.write(self._spdy.fin(self._ids[channel]))
        self.wire.write(self._spdy.data(error, document(outcome, as_json=self._as_json)) + self._spdy.fin(error))
        await self.wire.drain()
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self._peer_done.wait()
        except TimeoutError:
            pass  # it will see the end of the connection instead

    def close(self) -> None:
        for stream in self._spdy.streams:
            self.wire.write(self._spdy.reset(stream, spdy.Status.CANCEL))
        self._close(spdy.Farewell.OK)

    def _close(self, status: spdy.Farewell) -> None:
        self.wire.write(self._spdy.goaway(status))
        self._leave()

    def _leave(self) -> None:
        self._peer_done.set()
        self.wire.leave()

    # What the client says.

    def _receive(self, data: bytes) -> None:
        for event in self._spdy.receive(data):
            self._handle(event)

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
                self.wire.write(self._spdy.reset(stream, status))
            case spdy.Ping(number):
                self.wire.write(self._spdy.ping(number))
            case spdy.Reset() | spdy.GoAway():  # it gives up the session, or is content with it
                self._leave()
            case spdy.Broken():
                self._close(spdy.Farewell.PROTOCOL_ERROR)
            case spdy.Replied() | spdy.Pong():
                pass  # a server opens no streams and sends no pings

    def _open(self, stream: int, kind: str) -> None:
        channel = _CHANNELS.get(kind)
        if channel is None or channel in self._ids:
            self.wire.write(self._spdy.reset(stream, spdy.Status.PROTOCOL_ERROR))
            return
        self._ids[channel], self._channels[stream] = stream, channel
        self.wire.write(self._spdy.reply(stream))
        if self._wanted <= self._ids.keys():
            self._complete.set()
