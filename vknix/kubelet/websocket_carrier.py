"""An exec session over a WebSocket, by aiohttp's own. The messages are those of channels.py."""

import asyncio
from typing import Final

from aiohttp import WSMsgType, web

from vknix.kubelet.channels import Channel, ChannelError, Closed, Input, Outcome, Protocol, decode, document, encode
from vknix.kubelet.peer import FAREWELL_S, watch_peer
from vknix.kubelet.streams import ClientStreams, Inbox, Run

MAX_MESSAGE: Final = 4 * 1024 * 1024

_PONG = b"\x8a\x00"  # a whole frame, empty and unasked for (RFC 6455, 5.5.3)
_PIECE = 48 * 1024  # of one channel, before another has its turn; divides by 3, so that base64 needs no padding in between


class _ClientGoneError(Exception):
    """Ends the session's TaskGroup, and with it the command."""


async def serve_websocket(request: web.Request, protocol: Protocol, wanted: frozenset[Channel], run: Run) -> web.StreamResponse:
    """Answers 101, runs the session, and ends the connection."""
    carrier = WebSocketCarrier(protocol, wanted)
    await carrier.start(request)
    try:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(watch_peer(carrier))
            receive = tasks.create_task(carrier.receive())
            outcome = await run(carrier.streams)
            await carrier.tell(outcome)
            receive.cancel()
            await carrier.socket.close()
            watch.cancel()
    except* _ClientGoneError:
        pass
    finally:
        carrier.close()
    return carrier.socket


class WebSocketCarrier:
    transport: asyncio.Transport  # from start on

    def __init__(self, protocol: Protocol, wanted: frozenset[Channel]) -> None:
        named = (protocol.name,) if protocol.name else ()
        self.socket = web.WebSocketResponse(
            timeout=FAREWELL_S, protocols=named, compress=False, max_msg_size=MAX_MESSAGE, decode_text=False
        )
        self._protocol = protocol
        self._wanted = wanted
        self._room = asyncio.Event()
        self._room.set()
        self._inbox = Inbox(on_full=self._room.clear, on_room=self._room.set)
        self.streams = ClientStreams(wanted, self.send, self._inbox)
        self._loop = asyncio.get_running_loop()
        self.last_active = self._loop.time()

    async def start(self, request: web.Request) -> None:
        await self.socket.prepare(request)
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        self.transport = request.transport
        # Some clients wait for a first message before they send anything.
        lowest = min(self._wanted & {Channel.STDOUT, Channel.STDERR}, default=Channel.ERROR)
        await self._message(lowest, b"")

    async def send(self, channel: Channel, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            await self._message(channel, data[start : start + _PIECE])
            self.last_active = self._loop.time()

    async def tell(self, outcome: Outcome) -> None:
        self.transport.set_write_buffer_limits(high=0)  # so that closing waits until all is written
        status = document(outcome, as_json=self._protocol.json)
        if status:
            await self._message(Channel.ERROR, status)

    def nudge(self) -> None:
        """It also keeps a client alive whose own pings are not answered now: client-go waits 61 s for a pong."""
        if self._inbox.is_full and not self.transport.is_closing() and self.transport.get_write_buffer_size() < _PIECE:
            self.transport.write(_PONG)

    def close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
        self._loop.call_later(FAREWELL_S, self.transport.abort)  # nothing, where it has closed by then

    async def receive(self) -> None:
        """Reads on for ever: raises _ClientGoneError when the client has closed, or broken the rules."""
        while True:
            message = await self.socket.receive()
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                raise _ClientGoneError
            self.last_active = self._loop.time()
            try:
                self._handle(decode(self._protocol, message.data))
            except ChannelError as error:
                await self.socket.close(code=1002, message=str(error).encode())
                raise _ClientGoneError from error
            await self._room.wait()

    def _handle(self, event: Input | Closed | None) -> None:
        match event:
            case Input(channel, payload):
                self.streams.put(channel, payload)
            case Closed(channel):
                self.streams.end(channel)
            case None:
                pass

    async def _message(self, channel: Channel, payload: bytes) -> None:
        message = encode(self._protocol, channel, payload)
        try:
            if self._protocol.base64:
                await self.socket.send_str(message.decode("ascii"))
            else:
                await self.socket.send_bytes(message)
        except ConnectionResetError:
            await asyncio.sleep(0)  # the client has gone: `receive`, or aiohttp, ends the session
