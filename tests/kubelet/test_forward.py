"""port-forward by each of its three protocols, end to end on loopback TLS."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import aiohttp
import pytest

from tests.kubelet.forward_client import PATH, ForwardClient, Pair, in_websocket, over_spdy
from tests.kubelet.programs import BUG, DEAF, ECHO, FLOOD, GREET, LOST, POUR, REFUSED
from tests.kubelet.spdy_client import raw
from tests.kubelet.test_websocket_exec import messages, transport_of
from tests.kubelet.world import UID, Kubelet
from vknix.kubelet import forwarding, spdy, spdy_forward

Open = Callable[[Kubelet, aiohttp.ClientSession], AbstractAsyncContextManager[ForwardClient]]
REFUSAL = f"error forwarding port 9 to pod p, uid {UID}: dial tcp4 127.0.0.1:9: connect: connection refused"


@pytest.fixture(params=[over_spdy, in_websocket], ids=["spdy", "tunnel"])
async def client(kubelet: Kubelet, http: aiohttp.ClientSession, request: pytest.FixtureRequest) -> AsyncIterator[ForwardClient]:
    opened: Open = request.param
    async with opened(kubelet, http) as client:
        yield client


async def until_none_run(kubelet: Kubelet, *, but: int = 0) -> None:
    async with asyncio.timeout(5):
        while kubelet.provider.running != but:  # noqa: ASYNC110  # there is nothing to wait on
            await asyncio.sleep(0.01)


async def echoed(client: ForwardClient, data: bytes) -> Pair:
    pair = await client.open(ECHO)
    await client.send(pair, data)
    await client.until(lambda: pair.received == data)
    return pair


async def test_many_connections_at_once_each_have_their_own(client: ForwardClient, kubelet: Kubelet) -> None:
    pairs = [await client.open(ECHO) for _ in range(100)]
    for number, pair in enumerate(pairs):
        await client.send(pair, b"%d" % number)
    await client.until(lambda: all(pair.received for pair in pairs))
    assert [pair.received for pair in pairs] == [b"%d" % number for number in range(100)]
    assert kubelet.provider.running == 100
    for pair in pairs:
        await client.end(pair)
    await client.until(lambda: all(pair.is_over for pair in pairs))
    assert not any(pair.said or pair.reset for pair in pairs)
    await until_none_run(kubelet)


async def test_much_comes_back_byte_for_byte(client: ForwardClient) -> None:
    data = os.urandom(1 << 20) * 8
    pair = await client.open(ECHO)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.send(pair, data))
        await client.until(lambda: len(pair.received) == len(data))
    assert pair.received == data


async def test_a_target_that_ends_first_is_no_error(client: ForwardClient, kubelet: Kubelet) -> None:
    pair = await client.open(GREET)
    await client.until(lambda: "data" in pair.over)
    assert pair.received == b"welcome"
    await client.reset(pair)  # as client-go then does
    await client.until(lambda: "error" in pair.over)
    assert pair.said == ""
    await until_none_run(kubelet)


async def test_what_a_target_no_longer_reads_is_dropped(client: ForwardClient) -> None:
    pair = await client.open(GREET)
    await client.until(lambda: "data" in pair.over)
    await client.send(pair, bytes(300_000))
    await client.until(lambda: pair.is_over)
    assert pair.said == ""
    await echoed(client, b"others go on")


ERRORS = [
    pytest.param(REFUSED, REFUSAL, id="nobody-listens"),
    pytest.param(LOST, f"error forwarding port {LOST} to pod p, uid {UID}: host red: the link was lost", id="link-lost"),
    pytest.param(BUG, f"error forwarding port {BUG} to pod p, uid {UID}: vknix itself failed; its log says why", id="bug"),
]


@pytest.mark.parametrize(("port", "text"), ERRORS)
async def test_an_error_is_said_and_other_connections_go_on(client: ForwardClient, port: int, text: str) -> None:
    other = await echoed(client, b"one")
    pair = await client.open(port)
    await client.send(pair, b"x")
    await client.until(lambda: pair.is_over)
    assert (pair.said, pair.reset) == (text, True)
    await client.send(other, b"two")
    await client.until(lambda: other.received == b"onetwo")


async def test_a_reset_closes_its_connection_at_once(client: ForwardClient, kubelet: Kubelet) -> None:
    deaf, other = await client.open(DEAF), await echoed(client, b"x")
    await client.send(deaf, b"never read")
    await client.until(lambda: kubelet.provider.running == 2)
    await client.reset(deaf)
    await client.until(lambda: "error" in deaf.over)
    assert deaf.said == ""
    await until_none_run(kubelet, but=1)
    await client.end(other)


async def test_what_pours_on_after_its_client_has_ended_is_ended(
    client: ForwardClient, kubelet: Kubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "HALF_CLOSED_S", 0.05)
    other, pouring = await echoed(client, b"x"), await client.open(POUR)
    await client.end(pouring)  # as kubectl does for a program that is gone, whose data it then drops
    await client.until(lambda: pouring.is_over)
    assert pouring.said == ""
    await until_none_run(kubelet, but=1)
    await client.end(other)
    await client.until(lambda: other.is_over)


async def test_a_client_that_goes_closes_all(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    for opened in (over_spdy, in_websocket):
        async with opened(kubelet, http) as client:
            for _ in range(5):
                await echoed(client, b"x")
            deaf = await client.open(DEAF)
            await client.send(deaf, bytes(1000))
        await until_none_run(kubelet)


def vanish(transport: asyncio.WriteTransport) -> None:
    """Its kernel answers all that comes by RST, from the loop's next round on."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def test_a_client_that_vanishes_is_not_written_to(client: ForwardClient, kubelet: Kubelet) -> None:
    """However much there is to be written just then: asyncio warns of each write to what it knows to be lost."""
    for _ in range(10):
        await client.open(FLOOD)
    await until_none_run(kubelet, but=10)
    vanish(client.transport)
    kubelet.provider.flood.set()
    await until_none_run(kubelet)


async def test_a_client_that_ends_all_and_vanishes_is_not_written_to(client: ForwardClient, kubelet: Kubelet) -> None:
    pairs = [await echoed(client, b"x") for _ in range(100)]
    for pair in pairs:
        await client.reset(pair)
    client.transport.abort()
    await until_none_run(kubelet)


async def test_a_client_of_channels_that_vanishes_is_not_written_to(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(f"{PATH}?port=" + ",".join([str(FLOOD)] * 10), protocols=("v4.channel.k8s.io",)) as socket:
        for _ in range(20):
            await socket.receive_bytes()
        vanish(transport_of(socket))
        kubelet.provider.flood.set()
        await until_none_run(kubelet)


async def test_a_slow_client_is_waited_for(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    async with over_spdy(kubelet, http) as client:
        pair = await client.open(POUR)
        await client.until(lambda: len(pair.received) > 100_000)
        await client.reset(pair)
        await client.until(lambda: "error" in pair.over)
        await echoed(client, b"still here")


async def test_pairs_without_request_ids_belong_together(client: ForwardClient) -> None:
    pairs = [await client.open(ECHO, request=None) for _ in range(2)]
    for pair in pairs:
        await client.send(pair, b"old")
    await client.until(lambda: all(pair.received == b"old" for pair in pairs))


async def test_odd_streams_are_refused_and_others_go_on(client: ForwardClient) -> None:
    odd = [await client.stream("data", port, ("requestid", ("1",))) for port in ("", "0", "65536", "+7", "x", "\u0667")]
    odd.append(await client.stream("noise", 7))
    resets = {spdy.Reset(stream, spdy.Status.CANCEL) for stream in odd}
    await client.until(lambda: resets <= set(client.events))
    await echoed(client, b"x")


async def test_a_second_stream_of_a_kind_is_an_error(client: ForwardClient) -> None:
    error = await client.stream("error", ECHO, ("requestid", ("same",)))
    client.pairs[error] = pair = Pair(0, error)
    again = await client.stream("error", ECHO, ("requestid", ("same",)))
    await client.until(lambda: spdy.Reset(again, spdy.Status.CANCEL) in client.events)
    await client.until(lambda: "error stream already assigned" in pair.said)


async def test_half_a_pair_is_given_up(client: ForwardClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spdy_forward, "CREATION_S", 0.05)
    error = await client.stream("error", ECHO, ("requestid", ("lonely",)))
    client.pairs[error] = pair = Pair(0, error)
    await client.until(lambda: "error" in pair.over)
    assert "timed out waiting for streams" in pair.said


async def test_pings_are_answered(client: ForwardClient) -> None:
    await client.ping(5)
    await client.until(lambda: spdy.Pong(5) in client.events)


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""])
async def test_channels_begin_with_their_ports(http: aiohttp.ClientSession, protocol: str) -> None:
    async with http.ws_connect(f"{PATH}?port={GREET},{REFUSED}", protocols=(protocol,) if protocol else ()) as socket:
        assert (socket.protocol or "") == protocol
        found = await messages(socket)
    by_channel = {number: [text for channel, text in found if channel == number] for number in range(4)}
    assert by_channel[0] == [struct.pack("<H", GREET), b"welcome"]
    assert by_channel[1] == [struct.pack("<H", GREET)]
    assert by_channel[2] == [struct.pack("<H", REFUSED)]
    assert by_channel[3] == [struct.pack("<H", REFUSED), REFUSAL.encode()]


async def test_channels_carry_data_both_ways(http: aiohttp.ClientSession, kubelet: Kubelet) -> None:
    async with http.ws_connect(f"{PATH}?port={ECHO}&port={ECHO}", protocols=("v4.channel.k8s.io",)) as socket:
        ports = {(await socket.receive_bytes())[0] for _ in range(4)}
        assert ports == {0, 1, 2, 3}
        for odd in (b"", b"\x00", b"\x01error channels are ours", b"\x09nobody's"):
            await socket.send_bytes(odd)
        await socket.send_bytes(b"\x02second")
        assert await socket.receive_bytes() == b"\x02second"
        await socket.send_bytes(b"\x00first")
        assert await socket.receive_bytes() == b"\x00first"
    await until_none_run(kubelet)


BAD = [
    pytest.param("/portForward/ns/nope", 404, "pod does not exist", id="no-pod"),
    pytest.param("/portForward/ns/p/other-uid", 404, "pod not found", id="other-uid"),
]


@pytest.mark.parametrize(("target", "status", "text"), BAD)
async def test_a_pod_that_is_not_there_is_said(kubelet: Kubelet, target: str, status: int, text: str) -> None:
    async with raw(kubelet.port, kubelet.client, target, ("portforward.k8s.io",)) as (client, head):
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert await client.reader.read(len(text)) == text.encode()


async def test_what_can_be_refused_is_refused_before_the_upgrade(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    async def status(query: str, *protocols: str) -> int:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"{PATH}{query}", protocols=protocols)
        return refused.value.status

    for query in ("", "?port=", "?port=0", "?port=7,", "?port=65536", "?port=" + ",".join(["7"] * 101)):
        assert await status(query, "v4.channel.k8s.io") == 400
    assert await status("?port=7", "v5.channel.k8s.io") == 403
    async with http.post(PATH) as answer:
        assert answer.status == 400
    async with raw(kubelet.port, kubelet.client, PATH, ("v4.channel.k8s.io",)) as (_, head):
        assert head.startswith(b"HTTP/1.1 403 ")
    kubelet.provider.away = True
    async with raw(kubelet.port, kubelet.client, PATH, ("portforward.k8s.io",)) as (_, head):
        assert head.startswith(b"HTTP/1.1 503 ")
