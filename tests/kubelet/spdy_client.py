"""A SPDY client as kubectl's is: opens the streams in its order, collects what comes, tells when all has ended."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Self

from vknix.kubelet import spdy

READ = 256 * 1024


class SpdyClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.spdy = spdy.Connection(client=True)
        self.ids: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.received: dict[str, bytearray] = {}
        self.ended: set[str] = set()
        self.events: list[spdy.Event] = []
        self.eof = False

    def open(self, kind: str) -> None:
        number, data = self.spdy.open((("streamtype", (kind,)),))
        self.ids[kind], self.names[number] = number, kind
        self.received[kind] = bytearray()
        self.writer.write(data)

    async def send(self, kind: str, data: bytes) -> None:
        self.writer.write(self.spdy.data(self.ids[kind], data))
        await self.writer.drain()

    async def end(self, kind: str) -> None:
        self.writer.write(self.spdy.fin(self.ids[kind]))
        await self.writer.drain()

    async def read(self) -> list[spdy.Event]:
        """The events of one read; none once the server has closed."""
        data = await self.reader.read(READ)
        self.eof = not data
        events = self.spdy.receive(data)
        for event in events:
            if isinstance(event, spdy.Data):
                self.received[self.names[event.stream]] += event.payload
            elif isinstance(event, spdy.Fin):
                self.ended.add(self.names[event.stream])
        self.events += events
        return events

    async def until(self, *kinds: str) -> Self:
        """Reads until these streams have ended."""
        while not self.eof and not self.ended.issuperset(kinds):
            await self.read()
        return self

    async def until_eof(self) -> Self:
        while not self.eof:
            await self.read()
        return self


@asynccontextmanager
async def raw(
    port: int, context: ssl.SSLContext, path: str, protocols: Iterable[str], method: str = "POST"
) -> AsyncIterator[tuple[SpdyClient, bytes]]:
    """A connection on which the upgrade was asked for, and the head of the answer."""
    lines = "".join(f"X-Stream-Protocol-Version: {name}\r\n" for name in protocols)
    head = f"{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{lines}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(head.encode())
        yield SpdyClient(reader, writer), await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.transport.abort()


@asynccontextmanager
async def exec_session(
    port: int, context: ssl.SSLContext, path: str, streams: Iterable[str], protocols: Iterable[str] = ("v4.channel.k8s.io",)
) -> AsyncIterator[SpdyClient]:
    async with raw(port, context, path, protocols) as (client, head):
        assert head.startswith(b"HTTP/1.1 101 "), head
        for kind in streams:
            client.open(kind)
        yield client
