"""A port-forward session over a WebSocket as clients older than the tunnel speak it: one connection for each port asked for.

The port with index i has two channels: 2i is its data, both ways, 2i + 1 its error, to the client. The first message on each is the
port, 16 bits, little-endian. A client can't end one side; where the Pod's side has ended, the connection is over.
"""

import asyncio
import base64
import binascii
import struct
from collections.abc import Iterable
from typing import Final

from aiohttp import WSMsgType, web

from vknix.kubelet.forwarding import Forwarder
from vknix.kubelet.peer import FAREWELL_S, watch_peer
from vknix.kubelet.streams import Inbox
from vknix.kubelet.wire import MAX_MESSAGE

PROTOCOLS: Final = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "")

_PONG = b"\x8a\x00"  # see websocket_carrier
_PIECE = 48 * 1024  # divides by 3, so that base64 needs no padding in between


class _OverError(Exception):
    """Ends the session's TaskGroup."""


def decode(message: bytes, *, as_base64: bool) -> tuple[int, bytes] | None:
    """Channel and payload; None for what is to be ignored. Raises ValueError where it is no base64."""
    if len(message) < 2:
        return None
    if not as_base64:
        return message[0], message[1:]
    try:
        return message[0] - ord("0"), base64.b64decode(message[1:], validate=True)
    except binascii.Error as error:
        raise ValueError(f"a message is not base64: {error}") from error


def encode(channel: int, payload: bytes, *, as_base64: bool) -> bytes:
    if as_base64:
        return bytes((ord("0") + channel,)) + base64.b64encode(payload)
    return b"".join((bytes((channel,)), payload))


async def serve_channels(request: web.Request, protocol: str, ports: tuple[int, ...], forwarder: Forwarder) -> web.StreamResponse:
    """Answers 101, and ends with the last of the connections."""
    session = _Session(protocol, ports)
    await session.start(request)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch_peer(session))
            tasks.create_task(session.receive())
            async with asyncio.TaskGroup() as connections:
                for end in session.ends:
                    connections.create_task(_forward(session, end, forwarder))
            raise _OverError
    except* _OverError:
        await session.socket.close()
    finally:
        session.close()
    return session.socket


async def _forward(session: "_Session", end: "_End", forwarder: Forwarder) -> None:
    port = struct.pack("<H", end.port)
    await session.send(end.channel, port)
    await session.send(end.channel + 1, port)
    why = await forwarder.forward(end.port, end)
    if why:
        await session.send(end.channel + 1, why.encode())


class _End:
    """forwarding.End."""

    def __init__(self, session: "_Session", port: int, channel: int) -> None:
        self.port = port
        self.channel = channel
        self.inbox = Inbox(on_full=lambda: session.full(self), on_room=lambda: session.has_room(self))
        self._session = session

    async def read(self) -> bytes:
        return await self.inbox.get()

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            await self._session.send(self.channel, data[start : start + _PIECE])

    async def end(self) -> None:
        self.inbox.discard()

    def discard(self) -> None:
        self.inbox.discard()


class _Session:
    transport: asyncio.Transport  # from start on

    def __init__(self, protocol: str, ports: Iterable[int]) -> None:
        self._base64 = "base64" in protocol
        named = (protocol,) if protocol else ()
        self.socket = web.WebSocketResponse(
            timeout=FAREWELL_S, protocols=named, compress=False, max_msg_size=MAX_MESSAGE, decode_text=False
        )
        self.ends = [_End(self, port, 2 * index) for index, port in enumerate(ports)]
        self._full: set[int] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._loop = asyncio.get_running_loop()
        self.last_active = self._loop.time()

    async def start(self, request: web.Request) -> None:
        await self.socket.prepare(request)
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        self.transport = request.transport

    def full(self, end: _End) -> None:
        self._full.add(end.channel)
        self._room.clear()

    def has_room(self, end: _End) -> None:
        self._full.discard(end.channel)
        if not self._full:
            self._room.set()

    async def receive(self) -> None:
        while True:
            message = await self.socket.receive()
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                raise _OverError
            self.last_active = self._loop.time()
            try:
                decoded = decode(message.data, as_base64=self._base64)
            except ValueError as error:
                await self.socket.close(code=1002, message=str(error).encode())
                raise _OverError from error
            if decoded is not None and decoded[0] % 2 == 0 and 0 <= decoded[0] < 2 * len(self.ends):
                self.ends[decoded[0] // 2].inbox.put(decoded[1])
            await self._room.wait()

    async def send(self, channel: int, payload: bytes) -> None:
        message = encode(channel, payload, as_base64=self._base64)
        try:
            if self._base64:
                await self.socket.send_str(message.decode("latin-1"))
            else:
                await self.socket.send_bytes(message)
        except ConnectionResetError:
            await asyncio.sleep(0)  # the client has gone: `receive`, or aiohttp, ends the session
        self.last_active = self._loop.time()

    def nudge(self) -> None:
        if self._full and not self.transport.is_closing() and self.transport.get_write_buffer_size() < _PIECE:
            self.transport.write(_PONG)

    def close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
        self._loop.call_later(FAREWELL_S, self.transport.abort)
