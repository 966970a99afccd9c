"""An exec session over a WebSocket. The messages are those of channels.py."""

import asyncio

from aiohttp import web

from vknix.kubelet.channels import Channel, ChannelError, Closed, Input, Outcome, Protocol, decode, document, encode
from vknix.kubelet.peer import watch_peer
from vknix.kubelet.streams import ClientStreams, Inbox, Run
from vknix.kubelet.websocket import PIECE, OnWebSocket, WebSocket


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
            await carrier.socket.response.close()
            watch.cancel()
    except* _ClientGoneError:
        pass
    finally:
        carrier.socket.close()
    return carrier.socket.response


class WebSocketCarrier(OnWebSocket):
    def __init__(self, protocol: Protocol, wanted: frozenset[Channel]) -> None:
        self.socket = WebSocket(protocol.name)
        self._protocol = protocol
        self._wanted = wanted
        self._room = asyncio.Event()
        self._room.set()
        self._inbox = Inbox(on_full=self._room.clear, on_room=self._room.set)
        self.streams = ClientStreams(wanted, self.send, self._inbox)

    async def start(self, request: web.Request) -> None:
        await self.socket.start(request)
        # Some clients wait for a first message before they send anything.
        lowest = min(self._wanted & {Channel.STDOUT, Channel.STDERR}, default=Channel.ERROR)
        await self._message(lowest, b"")

    async def send(self, channel: Channel, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            await self._message(channel, data[start : start + PIECE])
            self.socket.touch()

    async def tell(self, outcome: Outcome) -> None:
        self.transport.set_write_buffer_limits(high=0)  # so that closing waits until all is written
        status = document(outcome, as_json=self._protocol.json)
        if status:
            await self._message(Channel.ERROR, status)

    def nudge(self) -> None:
        if self._inbox.is_full:
            self.socket.nudge()

    async def receive(self) -> None:
        """Reads on for ever: raises _ClientGoneError when the client has closed, or broken the rules."""
        while (message := await self.socket.receive()) is not None:
            try:
                self._handle(decode(self._protocol, message[1]))
            except ChannelError as error:
                await self.socket.refuse(str(error))
                raise _ClientGoneError from error
            await self._room.wait()
        raise _ClientGoneError

    def _handle(self, event: Input | Closed | None) -> None:
        match event:
            case Input(channel, payload):
                self.streams.put(channel, payload)
            case Closed(channel):
                self.streams.end(channel)
            case None:
                pass

    async def _message(self, channel: Channel, payload: bytes) -> None:
        await self.socket.send(encode(self._protocol, channel, payload), text=self._protocol.base64)
