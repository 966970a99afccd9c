"""The watch over a session's client, on a plain loopback connection."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from vknix.kubelet.peer import watch_peer


@dataclass(slots=True)
class Session:
    transport: asyncio.Transport
    last_active: float
    client: asyncio.StreamWriter
    nudges: int = 0

    def nudge(self) -> None:
        self.nudges += 1


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    accepted: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    class Silent(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.pause_reading()
            accepted.set_result(transport)

    server = await asyncio.get_running_loop().create_server(Silent, "127.0.0.1", 0)
    async with server:
        _, client = await asyncio.open_connection(*server.sockets[0].getsockname())
        transport = await accepted
        yield Session(transport, asyncio.get_running_loop().time(), client)
        transport.abort()
        client.transport.abort()


async def test_an_idle_session_is_aborted(session: Session) -> None:
    async with asyncio.timeout(2):
        await watch_peer(session, idle_s=0.1)
    assert session.transport.is_closing()


async def test_a_client_that_has_closed_is_seen_without_reading(session: Session) -> None:
    session.client.close()
    async with asyncio.timeout(1):
        await watch_peer(session)
    assert session.transport.is_closing()


async def test_a_live_session_is_nudged_and_left_alone(session: Session) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.6):
            await watch_peer(session)
    assert session.nudges == 2
    assert not session.transport.is_closing()
