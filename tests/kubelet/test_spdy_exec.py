"""exec over SPDY/3.1, end to end on loopback TLS."""

import asyncio
import contextlib
import hashlib
import json
import os
import time
import tracemalloc
from typing import Any

import pytest

from tests.kubelet.spdy_client import exec_session, raw
from tests.kubelet.world import Kubelet
from vknix.kubelet import spdy

MB = 1024 * 1024


def path(*argv: str, flags: str = "output=1&error=1") -> str:
    return f"/exec/ns/p/c?{flags}&" + "&".join(f"command={each}" for each in argv)


async def test_output_then_status_then_farewell(kubelet: Kubelet) -> None:
    async with exec_session(kubelet.port, kubelet.client, path("echo", "hi"), ("error", "stdout", "stderr")) as client:
        await client.until_eof()
    assert bytes(client.received["stdout"]) == b"hi\n"
    assert json.loads(client.received["error"]) == {"metadata": {}, "status": "Success"}
    ends = [event for event in client.events if isinstance(event, spdy.Fin)]
    assert [client.names[end.stream] for end in ends] == ["stdout", "stderr", "error"]
    assert isinstance(client.events[-1], spdy.GoAway)


async def test_a_stream_is_answered_before_its_data(kubelet: Kubelet) -> None:
    async with exec_session(kubelet.port, kubelet.client, path("both"), ("error", "stdout", "stderr")) as client:
        await client.until("error")
    assert [event.stream for event in client.events[:3] if isinstance(event, spdy.Replied)] == [1, 3, 5]
    assert bytes(client.received["stderr"]) == b"to stderr"


async def test_attach_has_input_and_output_and_ends_with_success(kubelet: Kubelet) -> None:
    streams = ("error", "stdin", "stdout")
    async with exec_session(kubelet.port, kubelet.client, "/attach/ns/p/c?input=1&output=1", streams) as client:
        await client.send("stdin", b"hello")
        await client.end("stdin")
        await client.until_eof()
    assert bytes(client.received["stdout"]) == b"hello"
    assert json.loads(client.received["error"]) == {"metadata": {}, "status": "Success"}


OUTCOMES: list[Any] = [
    pytest.param(("exit", "7"), {"reason": "NonZeroExitCode", "code": "7"}, id="exit-7"),
    pytest.param(("exit", "137"), {"reason": "NonZeroExitCode", "code": "137"}, id="killed"),
    pytest.param(("nope",), {"reason": "InternalError", "text": 'command in container: "nope": executable'}, id="no-program"),
    pytest.param((), {"reason": "InternalError", "text": "no command was given"}, id="no-command"),
    pytest.param(("vanish",), {"reason": "InternalError", "text": "host red does not answer"}, id="lost-host"),
    pytest.param(("absent",), {"reason": "InternalError", "text": "just ended"}, id="container-gone"),
    pytest.param(("bug",), {"reason": "InternalError", "text": "vknix itself failed"}, id="bug"),
]


@pytest.mark.parametrize(("argv", "expected"), OUTCOMES)
async def test_a_failure_is_never_an_empty_success(kubelet: Kubelet, argv: tuple[str, ...], expected: dict[str, str]) -> None:
    async with exec_session(kubelet.port, kubelet.client, path(*argv), ("error", "stdout", "stderr")) as client:
        await client.until("error")
    status = json.loads(client.received["error"])
    assert (status["status"], status["reason"]) == ("Failure", expected["reason"])
    if "code" in expected:
        assert status["details"]["causes"] == [{"reason": "ExitCode", "message": expected["code"]}]
    assert expected.get("text", "") in status["message"]
    assert "secret detail" not in status["message"]


@pytest.mark.parametrize("version", ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"])
async def test_old_versions_tell_failures_as_text(kubelet: Kubelet, version: str) -> None:
    for argv, expected in ((("exit", "0"), b""), (("exit", "3"), b"command terminated with non-zero exit code: exit status 3")):
        async with exec_session(kubelet.port, kubelet.client, path(*argv), ("error", "stdout", "stderr"), (version,)) as client:
            await client.until("error")
        assert bytes(client.received["error"]) == expected


async def test_v5_is_skipped_over_spdy(kubelet: Kubelet) -> None:
    offered = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io")
    async with raw(kubelet.port, kubelet.client, path("echo"), offered) as (_, head):
        assert b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n" in head


async def test_100_mb_come_back_byte_for_byte(kubelet: Kubelet) -> None:
    pieces = [os.urandom(32 * 1024) for _ in range(32)]
    sent, got = hashlib.sha256(), hashlib.sha256()
    async with exec_session(
        kubelet.port, kubelet.client, path("cat", flags="input=1&output=1"), ("error", "stdin", "stdout")
    ) as client:

        async def feed() -> None:
            for index in range(100 * MB // len(pieces[0])):
                piece = pieces[index % len(pieces)]
                sent.update(piece)
                await client.send("stdin", piece)
            await client.end("stdin")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed())
            while "error" not in client.ended:
                await client.read()
                got.update(client.received["stdout"])
                client.received["stdout"].clear()
    assert got.digest() == sent.digest()


async def test_stdin_of_nothing_ends_at_once(kubelet: Kubelet) -> None:
    async with exec_session(
        kubelet.port, kubelet.client, path("count", flags="input=1&output=1"), ("error", "stdin", "stdout")
    ) as client:
        await client.end("stdin")
        await client.until("stdout")
    assert bytes(client.received["stdout"]) == b"0\n"


async def test_the_terminal_has_the_newest_size(kubelet: Kubelet) -> None:
    flags = "input=1&output=1&error=1&tty=1"
    async with exec_session(
        kubelet.port, kubelet.client, path("size", flags=flags), ("error", "stdin", "stdout", "resize")
    ) as client:
        await client.send("resize", b'{"Width":80,"Height":24}\n')
        await client.until("error")
    assert bytes(client.received["stdout"]) == b"80x24"


async def test_a_killed_client_ends_the_command_within_a_second(kubelet: Kubelet) -> None:
    async with exec_session(kubelet.port, kubelet.client, path("sleep"), ("error", "stdout", "stderr")):
        await kubelet.provider.started.wait()
    async with asyncio.timeout(1):
        await kubelet.provider.cancelled.wait()


async def test_a_client_that_dies_behind_a_full_stdin_ends_the_command_within_a_second(kubelet: Kubelet) -> None:
    async with exec_session(
        kubelet.port, kubelet.client, path("sleep", flags="input=1&output=1"), ("error", "stdin", "stdout")
    ) as client:
        client.writer.transport.set_write_buffer_limits(high=64 * 1024)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await client.send("stdin", bytes(32 * 1024))
    async with asyncio.timeout(1):
        await kubelet.provider.cancelled.wait()


async def test_a_client_that_stalls_costs_no_memory(kubelet: Kubelet) -> None:
    async with exec_session(
        kubelet.port, kubelet.client, path("pour", str(512 * MB), flags="output=1"), ("error", "stdout")
    ) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport is a full one
        await kubelet.provider.started.wait()
        tracemalloc.start()
        await asyncio.sleep(1)  # as long as it takes 512 MB to go through where nothing holds them back
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kubelet.provider.running == 1
    assert peak < 4 * MB


async def test_a_client_that_floods_stdin_before_its_other_streams_ends_alone(kubelet: Kubelet) -> None:
    async with exec_session(kubelet.port, kubelet.client, path("cat", flags="input=1&output=1"), ("stdin",)) as client:
        client.writer.transport.set_write_buffer_limits(high=64 * 1024)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.6):
                while True:
                    await client.send("stdin", bytes(32 * 1024))
    assert kubelet.provider.asked == []


async def test_pings_that_nobody_reads_the_answers_of_end_the_connection(kubelet: Kubelet) -> None:
    async with exec_session(kubelet.port, kubelet.client, path("sleep"), ("error", "stdout", "stderr")) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport is a full one
        flood = client.spdy.ping(1) * 10_000
        with contextlib.suppress(ConnectionError):
            while True:
                client.writer.write(flood)
                await client.writer.drain()
                await asyncio.sleep(0)  # drain gives way to a full buffer only: without, the loop may never hear of the end
        async with asyncio.timeout(1):
            await kubelet.provider.cancelled.wait()


async def test_pings_are_answered_while_a_command_runs(kubelet: Kubelet) -> None:
    async with exec_session(kubelet.port, kubelet.client, path("sleep"), ("error", "stdout", "stderr")) as client:
        client.writer.write(client.spdy.ping(7))
        while spdy.Pong(7) not in client.events:
            await client.read()


@pytest.mark.parametrize("kind", [pytest.param("nonsense", id="unknown-type"), pytest.param("stdout", id="opened-twice")])
async def test_a_wrong_stream_is_reset_and_the_session_goes_on(kubelet: Kubelet, kind: str) -> None:
    async with exec_session(kubelet.port, kubelet.client, path("echo", "hi"), ("stdout",)) as client:
        _, data = client.spdy.open((("streamtype", (kind,)),))
        client.writer.write(data)
        client.open("error")
        client.open("stderr")
        await client.until("error")
    assert spdy.Reset(3, spdy.Status.PROTOCOL_ERROR) in client.events
    assert bytes(client.received["stdout"]) == b"hi\n"


async def test_nonsense_ends_the_connection(kubelet: Kubelet) -> None:
    async with exec_session(kubelet.port, kubelet.client, path("sleep"), ("error",)) as client:
        client.writer.write(b"\x80\x02" + bytes(14))
        await client.until_eof()
    assert client.events[-1] == spdy.GoAway(spdy.Farewell.PROTOCOL_ERROR)


async def test_no_handler_is_left_when_sessions_have_ended(kubelet: Kubelet) -> None:
    before = asyncio.all_tasks()
    for _ in range(3):
        async with exec_session(kubelet.port, kubelet.client, path("echo"), ("error", "stdout", "stderr")) as client:
            await client.until("error")
    async with asyncio.timeout(3):
        await asyncio.wait(asyncio.all_tasks() - before)
    assert kubelet.provider.running == 0


async def test_the_farewell_is_short_when_the_client_leaves_first(kubelet: Kubelet) -> None:
    started = time.monotonic()
    async with exec_session(kubelet.port, kubelet.client, path("echo"), ("error", "stdout", "stderr")) as client:
        await client.until("error")
        for stream in client.spdy.streams:
            client.writer.write(client.spdy.reset(stream, spdy.Status.CANCEL))
        client.writer.write(client.spdy.goaway(spdy.Farewell.OK))
        await client.until_eof()
    assert time.monotonic() - started < 1.5


REFUSED: list[Any] = [
    pytest.param("/exec/ns/p/c?command=ls", 400, b"you must specify at least 1 of stdin, stdout, stderr", id="no-stream"),
    pytest.param("/exec/ns/p/c?tty=1&error=1", 400, b"you must specify at least 1", id="a-terminal-has-no-stderr"),
    pytest.param("/exec/ns/q/c?output=1", 404, b"pod does not exist", id="unknown-pod"),
    pytest.param("/exec/ns/p/d?output=1", 500, b'container not found ("d")', id="unknown-container"),
    pytest.param("/exec/ns/p/stopped?output=1", 500, b'container not found ("stopped")', id="stopped-container"),
    pytest.param("/exec/ns/p/another-uid/c?output=1", 500, b'container not found ("c")', id="another-uid"),
]


@pytest.mark.parametrize(("target", "status", "text"), REFUSED)
async def test_what_can_be_refused_is_refused_before_the_upgrade(kubelet: Kubelet, target: str, status: int, text: bytes) -> None:
    async with raw(kubelet.port, kubelet.client, target, ("v4.channel.k8s.io",)) as (client, head):
        body = await client.reader.readexactly(len(text))
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert body == text


async def test_the_uid_form_reaches_the_same_pod(kubelet: Kubelet) -> None:
    target = f"/exec/ns/p/{kubelet.targets['ns', 'p'].pod.uid}/c?output=1&command=echo"
    async with raw(kubelet.port, kubelet.client, target, ("v4.channel.k8s.io",)) as (_, head):
        assert b" 101 " in head.split(b"\r\n")[0]


async def test_no_common_version_lists_ours(kubelet: Kubelet) -> None:
    async with raw(kubelet.port, kubelet.client, path("ls"), ("v9.channel.k8s.io",)) as (_, head):
        pass
    assert head.startswith(b"HTTP/1.1 403 ")
    assert head.count(b"X-Accepted-Stream-Protocol-Versions: ") == 4


async def test_no_version_header_is_a_bad_request(kubelet: Kubelet) -> None:
    async with raw(kubelet.port, kubelet.client, path("ls"), ()) as (client, head):
        body = await client.reader.readuntil(b" headers")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert body == b"unable to upgrade: header X-Stream-Protocol-Version does not exist in request with 3 headers"
