"""exec over WebSockets, end to end on loopback TLS; aiohttp is the client."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import tracemalloc
from contextlib import AbstractAsyncContextManager

import aiohttp
import pytest
from aiohttp import WSMsgType

from tests.kubelet.test_spdy_exec import MB, path
from tests.kubelet.world import UID, Kubelet
from vknix.provider import AttachRequest

SUCCESS = {"metadata": {}, "status": "Success"}
BINARY = ("v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io", "")
BASE64 = ("v4.base64.channel.k8s.io", "base64.channel.k8s.io")


def connect(
    http: aiohttp.ClientSession, target: str, protocol: str
) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
    return http.ws_connect(target, protocols=(protocol,) if protocol else (), max_msg_size=0)


def transport_of(socket: aiohttp.ClientWebSocketResponse) -> asyncio.Transport:
    connection = socket._response.connection
    assert connection is not None
    assert isinstance(connection.transport, asyncio.Transport)
    return connection.transport


async def messages(socket: aiohttp.ClientWebSocketResponse) -> list[tuple[int, bytes]]:
    """All messages until the server closes, by channel."""
    found = []
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            found.append((message.data[0], message.data[1:]))
        else:
            assert message.type is WSMsgType.TEXT
            found.append((int(message.data[0]), base64.b64decode(message.data[1:])))
    assert socket.close_code == 1000
    return found


@pytest.mark.parametrize("protocol", BINARY + BASE64)
async def test_every_version_begins_with_an_empty_message_and_ends_with_a_close(http: aiohttp.ClientSession, protocol: str) -> None:
    async with connect(http, path("both"), protocol) as socket:
        assert (socket.protocol or "") == protocol
        found = await messages(socket)
    status = [(3, json.dumps(SUCCESS, separators=(",", ":")).encode())] if "v" in protocol else []
    assert found == [(1, b""), (1, b"to stdout"), (2, b"to stderr"), *status]


@pytest.mark.parametrize("protocol", ["channel.k8s.io", "v4.channel.k8s.io"])
async def test_an_exit_code_arrives(http: aiohttp.ClientSession, protocol: str) -> None:
    async with connect(http, path("exit", "7", flags="error=1"), protocol) as socket:
        found = await messages(socket)
    assert found[0] == (2, b"")
    channel, text = found[-1]
    assert channel == 3
    if protocol == "channel.k8s.io":
        assert text == b"command terminated with non-zero exit code: exit status 7"
    else:
        assert json.loads(text)["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


async def test_a_lost_host_is_an_error(http: aiohttp.ClientSession) -> None:
    async with connect(http, path("vanish"), "v5.channel.k8s.io") as socket:
        found = await messages(socket)
    assert json.loads(found[-1][1])["reason"] == "InternalError"


async def test_v5_closes_stdin_alone(http: aiohttp.ClientSession) -> None:
    async with connect(http, path("count", flags="input=1&output=1"), "v5.channel.k8s.io") as socket:
        await socket.send_bytes(b"\x00hello")
        await socket.send_bytes(b"\xff\x00")
        found = await messages(socket)
    assert found[1] == (1, b"5\n")


async def test_base64_carries_any_bytes(http: aiohttp.ClientSession) -> None:
    data = os.urandom(100_000)
    async with connect(http, path("cat", flags="input=1&output=1"), "v4.base64.channel.k8s.io") as socket:
        await socket.send_str("0" + base64.b64encode(data).decode())
        got = b""
        while len(got) < len(data):
            got += base64.b64decode((await socket.receive_str())[1:])
    assert got == data


async def test_a_bad_close_signal_ends_the_connection(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    async with connect(http, path("sleep"), "v5.channel.k8s.io") as socket:
        await kubelet.provider.started.wait()
        await socket.send_bytes(b"\xff\x00\x01")
        async for _ in socket:
            pass
        assert socket.close_code == 1002
    async with asyncio.timeout(1):
        await kubelet.provider.cancelled.wait()


async def test_no_common_subprotocol_is_refused(http: aiohttp.ClientSession) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with connect(http, path("echo"), "v9.channel.k8s.io"):
            pass
    assert caught.value.status == 403


async def test_the_terminal_has_its_size(http: aiohttp.ClientSession) -> None:
    async with connect(http, path("size", flags="output=1&tty=1"), "v5.channel.k8s.io") as socket:
        await socket.send_bytes(b'\x04{"Width":120,')
        await socket.send_bytes(b'\x04"Height":40}')
        found = await messages(socket)
    assert found[1] == (1, b"120x40")


async def test_attach_has_input_output_and_sizes_and_ends_with_success(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    async with connect(http, "/attach/ns/p/c?input=1&output=1", "v5.channel.k8s.io") as socket:
        await socket.send_bytes(b"\x00hello")
        await socket.send_bytes(b"\xff\x00")
        found = await messages(socket)
    assert found[1] == (1, b"hello")
    assert json.loads(found[-1][1]) == {"metadata": {}, "status": "Success"}
    async with connect(http, "/attach/ns/p/c?output=1&tty=1", "v5.channel.k8s.io") as socket:
        await socket.send_bytes(b'\x04{"Width":120,"Height":40}')
        found = await messages(socket)
    assert found[1] == (1, b"120x40")
    assert kubelet.provider.asked == [AttachRequest(UID, "c", stdin=True), AttachRequest(UID, "c", stdin=False)]


async def test_100_mb_come_back_byte_for_byte(http: aiohttp.ClientSession) -> None:
    pieces = [os.urandom(32 * 1024) for _ in range(32)]
    sent, got = hashlib.sha256(), hashlib.sha256()
    async with connect(http, path("cat", flags="input=1&output=1"), "v5.channel.k8s.io") as socket:

        async def feed() -> None:
            for index in range(100 * MB // len(pieces[0])):
                piece = pieces[index % len(pieces)]
                sent.update(piece)
                await socket.send_bytes(b"\x00" + piece)
            await socket.send_bytes(b"\xff\x00")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed())
            async for message in socket:
                if message.data[0] == 1:
                    got.update(message.data[1:])
    assert got.digest() == sent.digest()


async def test_a_killed_client_ends_the_command_within_a_second(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    async with connect(http, path("sleep"), "v5.channel.k8s.io") as socket:
        await kubelet.provider.started.wait()
        transport_of(socket).abort()  # as a killed process' kernel does
    async with asyncio.timeout(1):
        await kubelet.provider.cancelled.wait()


async def test_a_client_that_closes_ends_the_command_within_a_second(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    async with connect(http, path("sleep"), "v4.channel.k8s.io") as socket:
        await kubelet.provider.started.wait()
        await socket.close()
    async with asyncio.timeout(1):
        await kubelet.provider.cancelled.wait()


async def test_a_client_that_dies_behind_a_full_stdin_ends_the_command(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    async with connect(http, path("sleep", flags="input=1"), "v5.channel.k8s.io") as socket:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await socket.send_bytes(bytes(32 * 1024))
        transport_of(socket).abort()
    async with asyncio.timeout(1):
        await kubelet.provider.cancelled.wait()


async def test_a_client_that_stalls_costs_no_memory(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    async with connect(http, path("pour", str(512 * MB), flags="output=1"), "v5.channel.k8s.io") as socket:
        transport_of(socket).pause_reading()
        await kubelet.provider.started.wait()
        tracemalloc.start()
        await asyncio.sleep(1)  # as long as it takes 512 MB to go through where nothing holds them back
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kubelet.provider.running == 1
        assert peak < 4 * MB
        transport_of(socket).abort()
