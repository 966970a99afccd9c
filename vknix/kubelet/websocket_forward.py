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

from aiohttp import web

from vknix.kubelet.forwarding import Forwarder
from vknix.kubelet.peer import watch_peer
from vknix.kubelet.streams import Inbox
from vknix.kubelet.websocket import PIECE, OnWebSocket, WebSocket

PROTOCOLS: Final = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "")


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
    await session.socket.start(request)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch_peer(session))
            tasks.create_task(session.receive())
            async with asyncio.TaskGroup() as connections:
                for end in session.ends:
                    connections.create_task(_forward(session, end, forwarder))
            raise _OverError
    except* _OverError:
        await session.socket.response.close()
    finally:
        session.socket.close()
    return session.socket.response


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
        for start in range(0, len(data), PIECE):
            await self._session.send(self.channel, data[start : start + PIECE])

    async def end(self) -> None:
        self.inbox.discard()

    def discard(self) -> None:
        self.inbox.discard()


class _Session(OnWebSocket):
    def __init__(self, protocol: str, ports: Iterable[int]) -> None:
        self.socket = WebSocket(protocol)
        self.ends = [_End(self, port, 2 * index) for index, port in enumerate(ports)]
        self._base64 = "base64" in protocol
        self._full: set[int] = set()
        self._room = asyncio.Event()
        self._room.set()

    def full(self, end: _End) -> None:
        self._full.add(end.channel)
        self._room.clear()

    def has_room(self, end: _End) -> None:
        self._full.discard(end.channel)
        if not self._full:
            self._room.set()

    async def receive(self) -> None:
        while (message := await self.socket.receive()) is not None:
            try:
                decoded = decode(message[1], as_base64=self._base64)
            except ValueError as error:
                await self.socket.refuse(str(error))
                raise _OverError from error
            if decoded is not None and decoded[0] % 2 == 0 and 0 <= decoded[0] < 2 * len(self.ends):
                self.ends[decoded[0] // 2].inbox.put(decoded[1])
            await self._room.wait()
        raise _OverError

    async def send(self, channel: int, payload: bytes) -> None:
        await self.socket.send(encode(channel, payload, as_base64=self._base64), text=self._base64)
        self.socket.touch()

    def nudge(self) -> None:
        if self._full:
            self.socket.nudge()
