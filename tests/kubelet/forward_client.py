"""A port-forward client as client-go is: SPDY on a connection of its own or inside a WebSocket, two streams for each connection."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import WSMsgType

from tests.kubelet.spdy_client import READ, raw
from tests.kubelet.test_websocket_exec import transport_of
from tests.kubelet.world import Kubelet
from vknix.kubelet import spdy

PATH = "/portForward/ns/p"
PROTOCOL = "portforward.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"


@dataclass(slots=True)
class Pair:
    """One connection: its streams' numbers, and what has come on them. `over`: streams that have ended, "data" and "error"."""

    data: int
    error: int
    received: bytes = b""
    said: str = ""
    over: set[str] = field(default_factory=set)
    reset: bool = False

    @property
    def is_over(self) -> bool:
        return self.over == {"data", "error"}


class ForwardClient:
    def __init__(
        self, transport: asyncio.WriteTransport, send: Callable[[bytes], Awaitable[None]], receive: Callable[[], Awaitable[bytes]]
    ) -> None:
        self.transport = transport
        self.spdy = spdy.Connection(client=True)
        self.pairs: dict[int, Pair] = {}
        self.closed = False
        self.events: list[spdy.Event] = []
        self._send, self._receive = send, receive
        self._requests = 0

    async def open(self, port: int | str, *, request: str | None = "") -> Pair:
        """As client-go: `error` first, whose own side ends at once. `request` None: as clients older than request IDs."""
        ids = () if request is None else (("requestid", (request or str(self._requests),)),)
        self._requests += 1
        error = await self.stream("error", port, *ids)
        await self._send(self.spdy.fin(error))
        pair = Pair(await self.stream("data", port, *ids), error)
        self.pairs[pair.error] = self.pairs[pair.data] = pair
        return pair

    async def stream(self, kind: str, port: int | str, *more: tuple[str, tuple[str, ...]]) -> int:
        number, data = self.spdy.open((("streamtype", (kind,)), ("port", (str(port),)), *more))
        await self._send(data)
        return number

    async def send(self, pair: Pair, data: bytes) -> None:
        for start in range(0, len(data), 32768):
            await self._send(self.spdy.data(pair.data, data[start : start + 32768]))

    async def end(self, pair: Pair) -> None:
        await self._send(self.spdy.fin(pair.data))

    async def reset(self, pair: Pair) -> None:
        await self._send(self.spdy.reset(pair.data, spdy.Status.CANCEL))

    async def ping(self, number: int) -> None:
        await self._send(self.spdy.ping(number))

    async def until(self, found: Callable[[], bool]) -> None:
        """Reads until that is so; AssertionError where the server closes before."""
        async with asyncio.timeout(20):
            while not found():
                assert not self.closed, "the server has closed"
                await self.read()

    async def read(self) -> None:
        data = await self._receive()
        self.closed = not data
        for event in self.spdy.receive(data):
            self.events.append(event)
            match event:
                case spdy.Data(stream, payload) if stream in self.pairs:
                    pair = self.pairs[stream]
                    if stream == pair.data:
                        pair.received += payload
                    else:
                        pair.said += payload.decode()
                case spdy.Fin(stream) | spdy.Reset(stream) if stream in self.pairs:
                    pair = self.pairs[stream]
                    pair.over.add("data" if stream == pair.data else "error")
                    pair.reset |= isinstance(event, spdy.Reset)


@asynccontextmanager
async def over_spdy(kubelet: Kubelet, _http: aiohttp.ClientSession) -> AsyncIterator[ForwardClient]:
    async with raw(kubelet.port, kubelet.client, PATH, (PROTOCOL,)) as (client, head):
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert b"X-Stream-Protocol-Version: portforward.k8s.io\r\n" in head

        async def send(data: bytes) -> None:
            client.writer.write(data)
            await client.writer.drain()

        yield ForwardClient(client.writer.transport, send, lambda: client.reader.read(READ))


@asynccontextmanager
async def in_websocket(_kubelet: Kubelet, http: aiohttp.ClientSession) -> AsyncIterator[ForwardClient]:
    """The messages begin and end in the midst of frames."""
    async with http.ws_connect(PATH, protocols=(TUNNEL,), max_msg_size=0) as socket:
        assert socket.protocol == TUNNEL

        async def send(data: bytes) -> None:
            for piece in (data[:3], data[3:]):
                await socket.send_bytes(piece)

        async def receive() -> bytes:
            message = await socket.receive()
            return message.data if message.type is WSMsgType.BINARY else b""

        yield ForwardClient(transport_of(socket), send, receive)
