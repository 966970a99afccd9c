"""The contract of provider.Provider as checks that any backend can run; each name is a claim.

`check_provider` runs them all; a test runner may take them from CHECKS one by one, so that each is a test of its own.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from ipaddress import ip_network
from typing import Any

import msgspec

from vknix.core.container import Resources
from vknix.core.facts import ContainerFacts, HostName, HostState, ImageState, Reason, State
from vknix.core.handlers import DEFAULT
from vknix.core.pod import Pod
from vknix.errors import NotFound, Refused, Unreachable
from vknix.provider import AttachRequest, Duplex, Localhost, LogOptions, Place
from vknix.testing.bench import NAME, Bench, Client, Process, process
from vknix.testing.usage_checks import (
    host_that_is_lost_uses_nothing_that_is_known,
    journal_is_read_by_line_and_unit,
    usage_names_what_runs_and_grows,
)

Check = Callable[[Process], Awaitable[None]]

_FOREVER = ("sleep", "1000000")
_UNUSED_PORT = 9


async def check_provider(make: Callable[[], AbstractAsyncContextManager[Bench]]) -> None:
    """Raises AssertionError, with a note which check it was, at the first that fails."""
    for check in CHECKS:
        async with make() as bench:
            try:
                await run_check(check, bench)
            except BaseException as error:
                error.add_note(f"in check {check.__name__}")
                raise


async def run_check(check: Check, bench: Bench) -> None:
    """One check, in a process of its own. Its plain error where it fails."""
    try:
        async with process(bench) as of:
            await check(of)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group


async def raises(kind: type[Exception], asked: Awaitable[object]) -> None:
    try:
        await asked
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was to be raised")


# Hosts, and where Pods go


async def hosts_say_what_they_have(of: Process) -> None:
    for facts in of.hosts.values():
        assert facts.boot_id
        assert facts.arch in ("amd64", "arm64")
        assert facts.cpu_milli > 0
        assert facts.pods > 0


async def each_host_has_its_own_piece_of_the_pod_cidrs(of: Process) -> None:
    pieces = of.provider.configure(of.bench.pod_cidrs, {})
    assert pieces.keys() == of.hosts.keys()
    nets = [ip_network(piece) for piece in pieces.values()]
    assert not any(one.overlaps(other) for one in nets for other in nets if one is not other)
    assert of.provider.configure(of.bench.pod_cidrs, pieces) == pieces


async def places_are_kept_until_released_and_never_shared(of: Process) -> None:
    one, other = of.pod(*_FOREVER), of.pod(*_FOREVER)
    places = [of.provider.place(one, of.hosts), of.provider.place(other, of.hosts)]
    assert of.provider.place(one, of.hosts) == places[0]
    assert not set(places[0].addresses) & set(places[1].addresses)
    of.provider.release(one.uid)
    of.provider.release(other.uid)
    of.provider.release(other.uid)


async def adopted_place_is_taken(of: Process) -> None:
    old, new = of.pod(*_FOREVER), of.pod(*_FOREVER)
    free = of.provider.place(new, of.hosts)
    of.provider.release(new.uid)
    of.provider.adopt(old, free)
    of.provider.adopt(old, free)
    assert of.provider.place(old, of.hosts) == free
    assert not set(of.provider.place(new, of.hosts).addresses) & set(free.addresses)
    of.provider.release(old.uid)
    of.provider.release(new.uid)


async def pod_that_fits_no_host_is_refused_in_the_kubelets_word(of: Process) -> None:
    try:
        of.provider.place(of.pod(*_FOREVER, cpu="100000"), of.hosts)
    except Refused as refusal:
        assert refusal.reason == "OutOfcpu"  # noqa: PT017  # no pytest here
    else:
        raise AssertionError("a Pod of 100000 CPUs was placed")


async def resize_that_no_host_could_grant_is_infeasible_and_one_that_others_hinder_deferred(of: Process) -> None:
    pod, other = of.pod(*_FOREVER), of.pod(*_FOREVER)
    place = of.provider.place(pod, of.hosts)
    whole = f"{of.hosts[place.host].cpu_milli}m"
    of.provider.adopt(other, Place(place.host, ()))
    of.provider.resize(_asking(other, "1m"), Place(place.host, ()), of.hosts)
    for cpu, reason in (("100000", "Infeasible"), (whole, "Deferred")):
        try:
            of.provider.resize(_asking(pod, cpu), place, of.hosts)
        except Refused as refusal:
            assert refusal.reason == reason  # noqa: PT017  # no pytest here
        else:
            raise AssertionError(f"{cpu} of cpu were granted")
    of.provider.release(other.uid)
    of.provider.resize(_asking(pod, whole), place, of.hosts)
    of.provider.release(pod.uid)


def _asking(pod: Pod, cpu: str) -> Pod:
    """The same Pod with another request."""
    container = msgspec.structs.replace(pod.spec.containers[0], resources=Resources(requests={"cpu": cpu}))
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, containers=[container]))


# Containers


async def container_runs_where_it_was_placed(of: Process) -> None:
    pod = of.pod(*_FOREVER)
    place = await of.run(pod)
    running = await of.state(pod, State.RUNNING)
    assert (running.attempt, running.exits, running.host_restarts) == (0, (), False)
    assert running.id
    assert running.started is not None
    assert abs(running.started - time.time()) < of.bench.within_s
    facts = of.pods[pod.uid]
    assert (facts.host, facts.addresses) == (place.host, place.addresses)
    assert (facts.namespace, facts.name, facts.handler) == (pod.namespace, pod.name, DEFAULT)
    assert [image.state for image in facts.images.values()] == [ImageState.PRESENT]


async def sync_never_disturbs_what_runs(of: Process) -> None:
    pod = of.pod(*_FOREVER)
    await of.run(pod)
    before = await of.state(pod, State.RUNNING)
    for start in (True, False, True):
        await of.sync(pod, start=start)
    after = await of.state(pod, State.RUNNING)
    assert (after.id, after.attempt, after.exits) == (before.id, 0, ())


async def resources_of_what_runs_change_in_place(of: Process) -> None:
    pod = of.pod(*_FOREVER, cpu="10m")
    place = await of.run(pod)

    def has(cpu: str) -> ContainerFacts | None:
        seen = of.container(pod)
        there = seen is not None and seen.state is State.RUNNING and seen.resources == {"requests": {"cpu": cpu}}
        return seen if there else None

    before = await of.until(lambda: has("10m"), "its request is told")
    more = _asking(pod, "20m")
    of.provider.resize(more, place, of.hosts)
    await of.sync(more, start=False)
    after = await of.until(lambda: has("20m"), "its new request is told")
    assert (after.id, after.attempt, after.exits) == (before.id, 0, ())


async def closure_that_nobody_has_is_told_and_nothing_starts(of: Process) -> None:
    pod = of.pod(*_FOREVER, image=of.bench.missing)
    await of.sync(pod)
    facts = await of.image(pod, ImageState.FAILED)
    image = next(iter(facts.images.values()))
    assert image.message
    assert image.retry_at is not None
    assert not facts.containers


async def cleaned_while_it_waits_for_a_closure_it_is_gone(of: Process) -> None:
    pod = of.pod(*_FOREVER, image=of.bench.missing)
    place = await of.sync(pod)
    await of.image(pod, ImageState.FAILED)
    await of.provider.clean(pod.uid, place.host)
    await of.until(lambda: pod.uid in of.gone, "the Pod is gone")


async def _ended(of: Process, *command: str, restart: str = "Never") -> tuple[Pod, ContainerFacts]:
    pod = of.pod(*command, restart=restart)
    await of.run(pod)
    return pod, await of.state(pod, State.STOPPED)


async def exit_code_is_told(of: Process) -> None:
    for program, code, reason in (("true", 0, Reason.COMPLETED), ("false", 1, Reason.ERROR)):
        _, ended = await _ended(of, program)
        last = ended.last_exit
        assert last is not None
        assert (last.attempt, last.code, last.signal, last.reason) == (0, code, 0, reason)
        assert last.id
        assert last.started is None or last.started <= last.finished
        assert (ended.attempt, ended.streak, ended.host_restarts) == (0, 1, False)


async def program_that_is_not_there_is_a_start_error(of: Process) -> None:
    _, ended = await _ended(of, "no-such-program")
    assert ended.last_exit is not None
    assert (ended.last_exit.code, ended.last_exit.reason) == (128, Reason.START_ERROR)


async def host_restarts_by_the_policy_and_sync_need_not_wait_for_it(of: Process) -> None:
    pod, first = await _ended(of, "false", restart="OnFailure")
    assert first.host_restarts
    await of.sync(pod)
    second = await of.state(pod, State.STOPPED, attempt=1)
    assert [ended.attempt for ended in second.exits] == [0, 1]
    assert second.streak == 2
    assert second.host_restarts
    assert len({ended.id for ended in second.exits}) == 2
    _, done = await _ended(of, "true", restart="OnFailure")
    assert not done.host_restarts


# Stopping and cleaning


async def stop_ends_it_by_the_deadline_and_its_host_lets_it_be(of: Process) -> None:
    pod = of.pod(*_FOREVER, grace_s=2)
    await of.run(pod)
    await of.state(pod, State.RUNNING)
    asked = time.time()
    await of.stop(pod, in_s=2)
    stopped = await of.state(pod, State.STOPPED)
    assert stopped.last_exit is not None
    assert stopped.last_exit.code in (137, 143)
    assert stopped.last_exit.code == 128 + stopped.last_exit.signal
    assert stopped.last_exit.finished - asked < 12
    assert not stopped.host_restarts
    await of.stop(pod, in_s=0)


async def later_stop_shortens(of: Process) -> None:
    pod = of.pod(*_FOREVER, grace_s=600)
    await of.run(pod)
    await of.state(pod, State.RUNNING)
    await of.stop(pod, in_s=600)
    await of.stop(pod, in_s=0)
    stopped = await of.state(pod, State.STOPPED)
    assert stopped.last_exit is not None
    assert stopped.last_exit.signal in (9, 15)


async def stop_ends_the_wait_for_a_restart(of: Process) -> None:
    pod, waiting = await _ended(of, "false", restart="Always")
    assert waiting.host_restarts
    await of.stop(pod, in_s=0)
    await of.until(lambda: (seen := of.container(pod)) is not None and not seen.host_restarts, "nobody restarts it any more")


async def clean_leaves_nothing_and_absent_is_success(of: Process) -> None:
    pod, _ = await _ended(of, "true")
    host = of.pods[pod.uid].host
    for _ in range(2):
        await of.provider.stop(pod.uid, host, (), time.time(), 1)
        await of.provider.clean(pod.uid, host)
    await of.until(lambda: pod.uid in of.gone, "the Pod is gone")
    async with process(of.bench, tidy=False) as other:
        assert pod.uid not in other.pods


# Processes that come and go, links that break


async def next_process_finds_everything_as_it_is(of: Process) -> None:
    pod = of.pod(*_FOREVER)
    place = await of.run(pod)
    await of.state(pod, State.RUNNING)
    over, last = await _ended(of, "false")
    running = of.container(pod)  # by now its sync has been answered, with what limits are in force
    async with process(of.bench, tidy=False) as other:
        assert other.container(pod) == running
        assert other.pods[pod.uid].addresses == place.addresses
        ended = other.container(over)
        assert ended is not None
        assert ended.exits == last.exits
    assert of.container(pod) == running


async def lost_host_is_told_and_listed_again_when_it_is_back(of: Process) -> None:
    pod = of.pod(*_FOREVER)
    host = (await of.run(pod)).host
    before = await of.state(pod, State.RUNNING)
    await of.bench.lose(host)
    try:
        await of.until(lambda: of.hosts[host].state is HostState.LOST, f"{host} is lost")
        assert of.hosts[host].message
        assert pod.uid not in of.gone
        await raises(Unreachable, of.provider.sync(pod, Place(host), of.inputs(pod, Place(host)), (NAME,)))
        await raises(Unreachable, of.provider.stop(pod.uid, host, (), time.time(), 1))
        await raises(Unreachable, of.provider.clean(pod.uid, host))
        await raises(Unreachable, of.provider.exec(of.asks(pod, "true"), host, Client()))
        await raises(Unreachable, _dial(of, pod, host))
        await raises(Unreachable, of.provider.answers(host))
    finally:
        await of.bench.heal(host)
    await of.until(of.listed, f"{host} is listed again")
    after = await of.state(pod, State.RUNNING)
    assert (after.id, after.attempt) == (before.id, before.attempt)


async def cancelled_sync_leaves_what_another_completes(of: Process) -> None:
    pod = of.pod(*_FOREVER)
    for _ in range(3):
        try:
            async with asyncio.timeout(0):
                await of.sync(pod)
        except TimeoutError:
            continue
    await of.run(pod)
    running = await of.state(pod, State.RUNNING)
    assert (running.attempt, running.exits) == (0, ())


# Exec, and connections


async def exec_runs_in_the_container(of: Process) -> None:
    pod = of.pod(*_FOREVER)
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
    pod = of.pod(*_FOREVER)
    host = (await of.run(pod)).host
    before = await of.state(pod, State.RUNNING)
    try:
        async with asyncio.timeout(1):
            await of.provider.exec(of.asks(pod, *_FOREVER), host, Client())
    except TimeoutError:
        pass
    assert await of.provider.exec(of.asks(pod, "true"), host, Client()) == 0
    assert (await of.state(pod, State.RUNNING)).id == before.id


async def _dial(of: Process, pod: Pod, host: HostName) -> None:
    address = next(iter(of.pods[pod.uid].addresses), "127.0.0.1")
    async with of.provider.dial(pod.uid, host, address, _UNUSED_PORT):
        pass


async def host_answers_and_a_port_that_nobody_listens_on_is_refused(of: Process) -> None:
    pod = of.pod(*_FOREVER)
    host = (await of.run(pod)).host
    await of.state(pod, State.RUNNING)
    await of.provider.answers(host)
    await raises(Refused, _dial(of, pod, host))


_ECHO_PORT = 7777
_ECHO = ("nc", "-ll", "-p", f"{_ECHO_PORT}", "-e", "cat")


async def localhost_of_a_pod_is_its_own(of: Process) -> None:
    pod, other = of.pod(*_ECHO), of.pod(*_FOREVER)
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
        await raises(Refused, _entered(localhost.dial(_UNUSED_PORT)))
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
    pod = of.pod(*_FOREVER)
    await raises(NotFound, _entered(of.provider.localhost(pod.uid, next(iter(of.hosts)))))


async def exec_without_a_running_container_is_not_found(of: Process) -> None:
    pod, _ = await _ended(of, "true")
    await raises(NotFound, of.provider.exec(of.asks(pod, "true"), of.pods[pod.uid].host, Client()))


# Attach


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
    pod, _ = await _ended(of, "true")
    await raises(NotFound, of.provider.attach(AttachRequest(pod.uid, NAME, stdin=False), of.pods[pod.uid].host, Client()))


# Logs


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
    pod, _ = await _ended(of, "echo", "words", restart="Always")
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
    pod = of.pod(*_FOREVER, restart="Never")
    await of.run(pod)
    await of.state(pod, State.RUNNING)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(_log(of, pod, LogOptions(0, follow=True)))
        await of.stop(pod, in_s=0)
        await of.state(pod, State.STOPPED)
    assert following.result() == b""


CHECKS: tuple[Check, ...] = (
    hosts_say_what_they_have,
    each_host_has_its_own_piece_of_the_pod_cidrs,
    places_are_kept_until_released_and_never_shared,
    adopted_place_is_taken,
    pod_that_fits_no_host_is_refused_in_the_kubelets_word,
    resize_that_no_host_could_grant_is_infeasible_and_one_that_others_hinder_deferred,
    container_runs_where_it_was_placed,
    sync_never_disturbs_what_runs,
    resources_of_what_runs_change_in_place,
    closure_that_nobody_has_is_told_and_nothing_starts,
    cleaned_while_it_waits_for_a_closure_it_is_gone,
    exit_code_is_told,
    program_that_is_not_there_is_a_start_error,
    host_restarts_by_the_policy_and_sync_need_not_wait_for_it,
    stop_ends_it_by_the_deadline_and_its_host_lets_it_be,
    later_stop_shortens,
    stop_ends_the_wait_for_a_restart,
    clean_leaves_nothing_and_absent_is_success,
    next_process_finds_everything_as_it_is,
    lost_host_is_told_and_listed_again_when_it_is_back,
    cancelled_sync_leaves_what_another_completes,
    exec_runs_in_the_container,
    cancelled_exec_returns_and_the_container_runs_on,
    host_answers_and_a_port_that_nobody_listens_on_is_refused,
    localhost_of_a_pod_is_its_own,
    localhost_of_no_pod_is_not_found,
    exec_without_a_running_container_is_not_found,
    attach_types_into_the_main_process_and_shows_what_it_says,
    input_stays_open_for_the_next_session_without_stdin_once,
    attach_ends_with_the_container,
    attach_without_a_running_container_is_not_found,
    log_is_kept_of_each_attempt,
    following_a_log_ends_with_the_attempt,
    usage_names_what_runs_and_grows,
    host_that_is_lost_uses_nothing_that_is_known,
    journal_is_read_by_line_and_unit,
)
