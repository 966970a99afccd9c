"""What carries the bytes of SPDY: a connection that is taken over from aiohttp, or the messages of a WebSocket.

The loss of a connection that was taken over goes on to aiohttp's own protocol, which cancels the handler
(`handler_cancellation=True`), and with it all that the handler does: as for any other request. Taking over a connection is no
official API of aiohttp; tests/kubelet pins it.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from aiohttp import WSMsgType, web

from vknix.kubelet.peer import FAREWELL_S
from vknix.kubelet.websocket import OnWebSocket, WebSocket

_HIGH_WATER = 128 * 1024  # bytes that the client has not taken
_FLOOD = 1024 * 1024  # answers to pings and the like that pile up unread end the connection


class Wire(Protocol):
    @property
    def transport(self) -> asyncio.Transport: ...

    @property
    def last_active(self) -> float:
        """By the loop's clock."""

    def write(self, data: bytes) -> None:
        """All of it, in order; nothing once it is closing."""

    async def drain(self) -> None:
        """Returns when there is room for more."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def leave(self) -> None:
        """Closes it once what was written has been sent, or has not been for a while."""


class Taken(asyncio.Protocol):
    """A Wire. `receive` gets what the client sends from `start` on."""

    def __init__(self, request: web.Request, receive: Callable[[bytes], None]) -> None:
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        self.transport = request.transport
        self._before = request.protocol
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._writable = asyncio.Event()
        self._writable.set()
        self._pending: list[bytes] = []
        self._deadline: asyncio.TimerHandle | None = None
        self.last_active = self._loop.time()

    def start(self, protocol: str) -> None:
        """Answers 101."""
        self.transport.set_protocol(self)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            b"X-Stream-Protocol-Version: " + protocol.encode() + b"\r\n\r\n"
        )

    @property
    def has_room(self) -> bool:
        return self._writable.is_set()

    def write(self, data: bytes) -> None:
        """What one round of the loop writes goes out at once: only in the next a connection that breaks is told to be closing."""
        if not data or self.transport.is_closing():
            return
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def _flush(self) -> None:
        data, self._pending = b"".join(self._pending), []
        if data and not self.transport.is_closing():
            self.transport.write(data)

    async def drain(self) -> None:
        await asyncio.sleep(0)  # what was written goes out first
        await self._writable.wait()
        self.last_active = self._loop.time()

    def wait_for_all(self) -> None:
        """From now on `drain` returns when all is written; a limit of 0 would pause TLS, with nothing to be written, for ever."""
        self.transport.set_write_buffer_limits(high=1, low=0)

    def pause_reading(self) -> None:
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def leave(self) -> None:
        self._flush()
        if not self.transport.is_closing():
            self.transport.close()
            self._deadline = self._loop.call_later(FAREWELL_S, self.transport.abort)

    # asyncio.Protocol.

    def data_received(self, data: bytes) -> None:
        self.last_active = self._loop.time()
        self._receive(data)
        waiting = sum(map(len, self._pending)) + self.transport.get_write_buffer_size()
        if not self.transport.is_closing() and waiting > _FLOOD:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()


class Tunnel(OnWebSocket):
    """A Wire whose bytes are the messages of a WebSocket, wherever these begin and end. `run` moves them."""

    def __init__(self, protocol: str, receive: Callable[[bytes], None]) -> None:
        self.socket = WebSocket(protocol)
        self._receive = receive
        self._pending: list[bytes] = []
        self._size = 0
        self._news, self._room, self._readable = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._room.set()
        self._readable.set()
        self._leaving = False

    async def run(self) -> None:
        """Until the client has closed, or `leave` was called and all is sent."""
        async with asyncio.TaskGroup() as tasks:
            receiving = tasks.create_task(self._receive_all())
            sending = tasks.create_task(self._send_all())
            await asyncio.wait((receiving, sending), return_when=asyncio.FIRST_COMPLETED)
            receiving.cancel()
            sending.cancel()

    async def _receive_all(self) -> None:
        while (message := await self.socket.receive()) is not None and message[0] is WSMsgType.BINARY:
            self._receive(message[1])
            if self._size > _FLOOD:
                self.transport.abort()
            await self._readable.wait()

    async def _send_all(self) -> None:
        while not (self._leaving and not self._pending):
            self._news.clear()
            if not self._pending:
                await self._news.wait()
                continue
            data, self._pending = b"".join(self._pending), []
            await self.socket.send(data)
            self._size -= len(data)
            self._room.set()

    def write(self, data: bytes) -> None:
        if data and not self._leaving:
            self._pending.append(data)
            self._size += len(data)
            self._news.set()
            if self._size >= _HIGH_WATER:
                self._room.clear()

    async def drain(self) -> None:
        await self._room.wait()
        self.socket.touch()

    def pause_reading(self) -> None:
        self._readable.clear()

    def resume_reading(self) -> None:
        self._readable.set()

    def leave(self) -> None:
        self._leaving = True
        self._news.set()
