"""vknix.loops.grpc and probing: what a probe makes of gRPC servers, over real sockets of this machine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import pytest

from tests.loops.test_http import HERE, probe
from vknix.loops.probing import Outcome

OK, UNIMPLEMENTED = "0", "12"


@dataclass
class Health:
    """Answers with a serving status (of HealthCheckResponse), or fails with a gRPC status."""

    status: int = 1
    code: str = OK
    asked: list[bytes] = field(default_factory=list)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        server.initiate_connection()
        while True:
            writer.write(server.data_to_send())
            data = await reader.read(1 << 14)
            if not data:
                break
            for event in server.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    self.asked.append(event.data or b"")
                elif isinstance(event, h2.events.StreamEnded):
                    self._answer(server, event.stream_id or 0)

    def _answer(self, server: h2.connection.H2Connection, stream: int) -> None:
        head = [(":status", "200"), ("content-type", "application/grpc")]
        if self.code != OK:
            server.send_headers(stream, [*head, ("grpc-status", self.code), ("grpc-message", "no")], end_stream=True)
            return
        message = bytes((0x08, self.status)) if self.status else b""
        server.send_headers(stream, head)
        server.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message)
        server.send_headers(stream, [("grpc-status", OK)], end_stream=True)


@asynccontextmanager
async def listening(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """Its port. Each conversation is over when the block is."""
    over: list[asyncio.Event] = []

    async def until_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over.append(asyncio.Event())
        mine = over[-1]
        await talk(reader, writer)
        writer.close()
        mine.set()

    async with await asyncio.start_server(until_over, HERE, 0) as server:
        yield server.sockets[0].getsockname()[1]
        for each in over:
            await each.wait()


async def asked(of: Health, service: str | None = None) -> Outcome:
    async with listening(of.talk) as port:
        return await probe({"grpc": {"port": port, "service": service}})


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (Health(1), ""),
        (Health(2), 'service unhealthy (responded with "NOT_SERVING")'),
        (Health(0), 'service unhealthy (responded with "UNKNOWN")'),
        (Health(9), 'service unhealthy (responded with "9")'),
        (Health(code="5"), "health rpc failed: status 5: no"),
        (Health(code=UNIMPLEMENTED), "this server does not implement the grpc health protocol (grpc.health.v1.Health)"),
    ],
    ids=["serving", "not serving", "unknown", "another", "no such service", "no health protocol"],
)
async def test_only_serving_is_success(of: Health, message: str) -> None:
    assert await asked(of) == Outcome(not message, message)


@pytest.mark.parametrize(
    ("service", "message"),
    [(None, b""), ("", b""), ("shop", b"\x0a\x04shop"), ("x" * 200, b"\x0a\xc8\x01" + b"x" * 200)],
    ids=["none", "empty", "short", "long"],
)
async def test_service_is_named(service: str | None, message: bytes) -> None:
    of = Health()
    await asked(of, service)
    assert of.asked == [b"\0" + len(message).to_bytes(4, "big") + message]


async def test_server_that_speaks_no_http2_fails_the_probe() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(talk) as port:
        outcome = await probe({"grpc": {"port": port}})
    assert not outcome.success
    assert outcome.message.startswith(("malformed HTTP/2", "health rpc failed"))


async def test_hang_counts_after_one_time_where_the_host_answers() -> None:
    tries = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await reader.read()

    async with listening(talk) as port:
        outcome = await probe({"grpc": {"port": port}}, timeoutSeconds=1)
    assert outcome == Outcome(success=False, message="context deadline exceeded after 1s")
    assert tries == 1
