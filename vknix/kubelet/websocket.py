"""A WebSocket as the sessions here use it: aiohttp's own, and what is needed of the connection below it."""

import asyncio
from typing import Final

from aiohttp import WSMsgType, web

from vknix.kubelet.peer import FAREWELL_S

MAX_MESSAGE: Final = 4 * 1024 * 1024
PIECE: Final = 192 * 1024  # of one channel, before another has its turn; divides by 3, so that base64 needs no padding in between

_PONG = b"\x8a\x00"  # a whole frame, empty and unasked for (RFC 6455, 5.5.3)


class WebSocket:
    transport: asyncio.Transport  # from start on

    def __init__(self, protocol: str) -> None:
        """`protocol` may be empty: some clients name none."""
        named = (protocol,) if protocol else ()
        self.response = web.WebSocketResponse(
            timeout=FAREWELL_S, protocols=named, compress=False, max_msg_size=MAX_MESSAGE, decode_text=False
        )
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self.last_active = self._loop.time()

    async def start(self, request: web.Request) -> None:
        """Answers 101."""
        await self.response.prepare(request)
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        self.transport = request.transport

    async def receive(self) -> tuple[WSMsgType, bytes] | None:
        """The next message, text or binary; None once the client has closed."""
        message = await self.response.receive()
        if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
            return None
        self.touch()
        return message.type, message.data

    async def send(self, message: bytes, *, text: bool = False) -> None:
        """Returns when there is room for more. Of a client that has gone whoever receives hears, or aiohttp, which cancels all.

        One at a time, and no more than one in each round of the loop: a connection that breaks is told to be closing in the next.
        """
        async with self._turn:
            try:
                if text:
                    await self.response.send_str(message.decode("latin-1"))
                else:
                    await self.response.send_bytes(message)
            except ConnectionError:  # also a plain one, from who waited for room
                pass
            await asyncio.sleep(0)

    def touch(self) -> None:
        """What is going on is more than nudges."""
        self.last_active = self._loop.time()

    async def refuse(self, why: str) -> None:
        """The client has broken the rules."""
        await self.response.close(code=1002, message=why.encode())

    def nudge(self) -> None:
        """It also keeps a client alive whose own pings are not answered now: client-go waits 61 s for a pong."""
        if not self.transport.is_closing() and self.transport.get_write_buffer_size() < PIECE:
            self.transport.write(_PONG)

    def close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
        self._loop.call_later(FAREWELL_S, self.transport.abort)  # nothing, where it has closed by then


class OnWebSocket:
    """What one carries, as peer.Session has it."""

    socket: WebSocket

    @property
    def transport(self) -> asyncio.Transport:
        return self.socket.transport

    @property
    def last_active(self) -> float:
        return self.socket.last_active
