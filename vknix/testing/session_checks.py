"""The part of the contract that is about sessions: exec, attach, connections to a Pod's localhost, logs."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from vknix.core.facts import HostName, State
from vknix.core.pod import Pod
from vknix.errors import NotFound, Refused
from vknix.provider import AttachRequest, Duplex, Localhost, LogOptions
from vknix.testing.bench import FOREVER, NAME, UNUSED_PORT, Client, Process, dial, raises, run_to_its_end


async def exec_runs_in_the_container(of: Process) -> None:
    pod = of.pod(*FOREVER)
    host = (await of.run(pod)).host
    await of.state(pod, State.RUNNING)
    client = Client()
    assert await of.provider.exec(of.asks(pod, "echo", "hello there"), host, client) == 0
    assert client.stdout == b"hello there\n"
    assert await of.provider.exec(of.asks(pod, "false"), host, Client()) == 1
    typing = Client(stdin=[b"one\n", b"two\n"])
    assert await of.provider.exec(of.asks(pod, "cat", stdin=True), host, typing) == 0
    assert typing.stdout == b"one\ntwo\n"
    await raises(Refused, of.provider.exec(of.asks(pod, "no-such-program"), host, Client()))


async def cancelled_exec_returns_and_the_container_runs_on(of: Process) -> None:
    pod = of.pod(*FOREVER)
    host = (await of.run(pod)).host
    before = await of.state(pod, State.RUNNING)
    try:
        async with asyncio.timeout(1):
            await of.provider.exec(of.asks(pod, *FOREVER), host, Client())
    except TimeoutError:
        pass
    assert await of.provider.exec(of.asks(pod, "true"), host, Client()) == 0
    assert (await of.state(pod, State.RUNNING)).id == before.id


async def host_answers_and_a_port_that_nobody_listens_on_is_refused(of: Process) -> None:
    pod = of.pod(*FOREVER)
    host = (await of.run(pod)).host
    await of.state(pod, State.RUNNING)
    await of.provider.answers(host)
    await raises(Refused, dial(of, pod, host))


_ECHO_PORT = 7777
_ECHO = ("nc", "-ll", "-p", f"{_ECHO_PORT}", "-e", "cat")


async def localhost_of_a_pod_is_its_own(of: Process) -> None:
    pod, other = of.pod(*_ECHO), of.pod(*FOREVER)
    host, hosts = (await of.run(pod)).host, (await of.run(other)).host
    await of.state(pod, State.RUNNING)
    await of.state(other, State.RUNNING)
    async with of.provider.localhost(pod.uid, host) as localhost:
        await _until_it_listens(of, localhost)
        async with localhost.dial(_ECHO_PORT) as one, localhost.dial(_ECHO_PORT) as two:
            await two.write(b"second")
            await one.write(b"first")
            await one.end()
            assert (await _read_all(one), await two.read(6)) == (b"first", b"second")
        await raises(Refused, _entered(localhost.dial(UNUSED_PORT)))
    async with of.provider.localhost(other.uid, hosts) as localhost:
        await raises(Refused, _entered(localhost.dial(_ECHO_PORT)))


async def _until_it_listens(of: Process, localhost: Localhost) -> None:
    async with asyncio.timeout(of.bench.within_s):
        while True:
            try:
                return await _entered(localhost.dial(_ECHO_PORT))
            except Refused:
                await asyncio.sleep(0.05)


async def _entered(context: AbstractAsyncContextManager[object]) -> None:
    async with context:
        pass


async def _read_all(of: Duplex) -> bytes:
    text = b""
    while piece := await of.read(1 << 16):
        text += piece
    return text


async def localhost_of_no_pod_is_not_found(of: Process) -> None:
    pod = of.pod(*FOREVER)
    await raises(NotFound, _entered(of.provider.localhost(pod.uid, next(iter(of.hosts)))))


async def exec_without_a_running_container_is_not_found(of: Process) -> None:
    pod, _ = await run_to_its_end(of, "true")
    await raises(NotFound, of.provider.exec(of.asks(pod, "true"), of.pods[pod.uid].host, Client()))


async def _cat(of: Process, **fields: Any) -> tuple[Pod, AttachRequest, HostName]:
    pod = of.pod("cat", restart="Never", stdin=True, **fields)
    host = (await of.run(pod)).host
    await of.state(pod, State.RUNNING)
    return pod, AttachRequest(pod.uid, NAME, stdin=True), host


async def attach_types_into_the_main_process_and_shows_what_it_says(of: Process) -> None:
    pod, request, host = await _cat(of, stdinOnce=True)
    client = Client(stdin=[b"one\n", b"two\n"])
    await of.provider.attach(request, host, client)
    assert client.stdout == b"one\ntwo\n"
    assert (await of.state(pod, State.STOPPED)).exits[-1].code == 0
    assert await _log(of, pod, LogOptions(0)) == b"one\ntwo\n"


async def input_stays_open_for_the_next_session_without_stdin_once(of: Process) -> None:
    pod, request, host = await _cat(of)
    for line in (b"one\n", b"two\n"):
        await of.provider.attach(request, host, Client(stdin=[line]))
    assert (await of.state(pod, State.RUNNING)).attempt == 0
    await _until_logged(of, pod, b"one\ntwo\n")


async def attach_ends_with_the_container(of: Process) -> None:
    pod, request, host = await _cat(of)
    client = Client(stdin=[b"one\n"], stays=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(of.provider.attach(request, host, client))
        await _until_logged(of, pod, b"one\n")
        await of.stop(pod, in_s=0)
    await of.state(pod, State.STOPPED)
    assert client.stdout == b"one\n"


async def attach_without_a_running_container_is_not_found(of: Process) -> None:
    pod, _ = await run_to_its_end(of, "true")
    await raises(NotFound, of.provider.attach(AttachRequest(pod.uid, NAME, stdin=False), of.pods[pod.uid].host, Client()))


async def _until_logged(of: Process, pod: Pod, text: bytes) -> None:
    options, got = LogOptions(0, follow=True), b""
    async with (
        aclosing(of.provider.logs(pod.uid, of.pods[pod.uid].host, NAME, options)) as pieces,
        asyncio.timeout(of.bench.within_s),
    ):
        async for piece in pieces:
            got += piece
            if got == text:
                return
    raise AssertionError(f"the log ended with {got!r}")


async def _log(of: Process, pod: Pod, options: LogOptions) -> bytes:
    host = of.pods[pod.uid].host
    async with asyncio.timeout(of.bench.within_s), aclosing(of.provider.logs(pod.uid, host, NAME, options)) as pieces:
        return b"".join([piece async for piece in pieces])


async def log_is_kept_of_each_attempt(of: Process) -> None:
    pod, _ = await run_to_its_end(of, "echo", "words", restart="Always")
    await of.sync(pod)
    await of.state(pod, State.STOPPED, attempt=1)
    for attempt in (0, 1):
        assert await _log(of, pod, LogOptions(attempt)) == b"words\n"
    assert await _log(of, pod, LogOptions(1, tail_lines=0)) == b""
    assert await _log(of, pod, LogOptions(1, tail_lines=5, limit_bytes=3)) == b"wor"
    assert await _log(of, pod, LogOptions(1, since=time.time() + 60)) == b""
    stamped = await _log(of, pod, LogOptions(1, timestamps=True))
    assert stamped.endswith(b"Z words\n")


async def following_a_log_ends_with_the_attempt(of: Process) -> None:
    pod = of.pod(*FOREVER, restart="Never")
    await of.run(pod)
    await of.state(pod, State.RUNNING)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(_log(of, pod, LogOptions(0, follow=True)))
        await of.stop(pod, in_s=0)
        await of.state(pod, State.STOPPED)
    assert following.result() == b""
