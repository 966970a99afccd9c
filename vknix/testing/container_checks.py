"""The part of the contract that is about containers: their starts, ends and restarts, and what outlives a process."""

import asyncio
import time

from vknix.core.facts import ContainerFacts, HostState, ImageState, Reason, State
from vknix.core.handlers import DEFAULT
from vknix.errors import Unreachable
from vknix.provider import Place
from vknix.testing.bench import FOREVER, NAME, Client, Process, asking, dial, process, raises, run_to_its_end


async def container_runs_where_it_was_placed(of: Process) -> None:
    pod = of.pod(*FOREVER)
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
    pod = of.pod(*FOREVER)
    await of.run(pod)
    before = await of.state(pod, State.RUNNING)
    for start in (True, False, True):
        await of.sync(pod, start=start)
    after = await of.state(pod, State.RUNNING)
    assert (after.id, after.attempt, after.exits) == (before.id, 0, ())


async def resources_of_what_runs_change_in_place(of: Process) -> None:
    pod = of.pod(*FOREVER, cpu="10m")
    place = await of.run(pod)

    def has(cpu: str) -> ContainerFacts | None:
        seen = of.container(pod)
        there = seen is not None and seen.state is State.RUNNING and seen.resources == {"requests": {"cpu": cpu}}
        return seen if there else None

    before = await of.until(lambda: has("10m"), "its request is told")
    more = asking(pod, "20m")
    of.provider.resize(more, place, of.hosts)
    await of.sync(more, start=False)
    after = await of.until(lambda: has("20m"), "its new request is told")
    assert (after.id, after.attempt, after.exits) == (before.id, 0, ())


async def what_begins_again_is_told_with_the_resources_that_it_begins_with(of: Process) -> None:
    """From the first word of it: who looks at it while it is made would take it for one that is still to be resized."""
    pod = of.pod(*FOREVER, cpu="10m")
    place = await of.run(pod)
    await of.state(pod, State.RUNNING)
    await of.stop(pod, in_s=0)
    await of.state(pod, State.STOPPED)

    def begun() -> ContainerFacts | None:
        seen = of.container(pod)
        return seen if seen is not None and seen.state is not State.STOPPED else None

    more = asking(pod, "20m")
    of.provider.resize(more, place, of.hosts)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(of.until(begun, "it begins again"))
        await of.sync(more)
    assert first.result().resources == {"requests": {"cpu": "20m"}}


async def closure_that_nobody_has_is_told_and_nothing_starts(of: Process) -> None:
    pod = of.pod(*FOREVER, image=of.bench.missing)
    await of.sync(pod)
    facts = await of.image(pod, ImageState.FAILED)
    image = next(iter(facts.images.values()))
    assert image.message
    assert image.retry_at is not None
    assert not facts.containers


async def cleaned_while_it_waits_for_a_closure_it_is_gone(of: Process) -> None:
    pod = of.pod(*FOREVER, image=of.bench.missing)
    place = await of.sync(pod)
    await of.image(pod, ImageState.FAILED)
    await of.provider.clean(pod.uid, place.host)
    await of.until(lambda: pod.uid in of.gone, "the Pod is gone")


async def exit_code_is_told(of: Process) -> None:
    for program, code, reason in (("true", 0, Reason.COMPLETED), ("false", 1, Reason.ERROR)):
        _, ended = await run_to_its_end(of, program)
        last = ended.last_exit
        assert last is not None
        assert (last.attempt, last.code, last.signal, last.reason) == (0, code, 0, reason)
        assert last.id
        assert last.started is None or last.started <= last.finished
        assert (ended.attempt, ended.streak, ended.host_restarts) == (0, 1, False)


async def program_that_is_not_there_is_a_start_error(of: Process) -> None:
    _, ended = await run_to_its_end(of, "no-such-program")
    assert ended.last_exit is not None
    assert (ended.last_exit.code, ended.last_exit.reason) == (128, Reason.START_ERROR)


async def host_restarts_by_the_policy_and_sync_need_not_wait_for_it(of: Process) -> None:
    pod, first = await run_to_its_end(of, "false", restart="OnFailure")
    assert first.host_restarts
    await of.sync(pod)
    second = await of.state(pod, State.STOPPED, attempt=1)
    assert [ended.attempt for ended in second.exits] == [0, 1]
    assert second.streak == 2
    assert second.host_restarts
    assert len({ended.id for ended in second.exits}) == 2
    _, done = await run_to_its_end(of, "true", restart="OnFailure")
    assert not done.host_restarts


# Stopping and cleaning


async def stop_ends_it_by_the_deadline_and_its_host_lets_it_be(of: Process) -> None:
    pod = of.pod(*FOREVER, grace_s=2)
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


async def end_says_that_it_was_stopped_to_start_again(of: Process) -> None:
    pod = of.pod(*FOREVER, grace_s=2)
    place = await of.run(pod)
    first = await of.state(pod, State.RUNNING)
    await of.provider.stop(pod.uid, place.host, (first.name,), time.time(), 2, ((first.name, 0),))
    ended = await of.state(pod, State.STOPPED)
    assert [each.again for each in ended.exits] == [True]
    await of.sync(pod)
    await of.state(pod, State.RUNNING, attempt=1)
    await of.stop(pod, in_s=0)
    ended = await of.state(pod, State.STOPPED, attempt=1)
    assert [each.again for each in ended.exits] == [True, False]


async def later_stop_shortens(of: Process) -> None:
    pod = of.pod(*FOREVER, grace_s=600)
    await of.run(pod)
    await of.state(pod, State.RUNNING)
    await of.stop(pod, in_s=600)
    await of.stop(pod, in_s=0)
    stopped = await of.state(pod, State.STOPPED)
    assert stopped.last_exit is not None
    assert stopped.last_exit.signal in (9, 15)


async def stop_ends_the_wait_for_a_restart(of: Process) -> None:
    pod, waiting = await run_to_its_end(of, "false", restart="Always")
    assert waiting.host_restarts
    await of.stop(pod, in_s=0)
    await of.until(lambda: (seen := of.container(pod)) is not None and not seen.host_restarts, "nobody restarts it any more")


async def clean_leaves_nothing_and_absent_is_success(of: Process) -> None:
    pod, _ = await run_to_its_end(of, "true")
    host = of.pods[pod.uid].host
    for _ in range(2):
        await of.provider.stop(pod.uid, host, (), time.time(), 1)
        await of.provider.clean(pod.uid, host)
    await of.until(lambda: pod.uid in of.gone, "the Pod is gone")
    async with process(of.bench, tidy=False) as other:
        assert pod.uid not in other.pods


# Processes that come and go, links that break


async def next_process_finds_everything_as_it_is(of: Process) -> None:
    pod = of.pod(*FOREVER)
    place = await of.run(pod)
    await of.state(pod, State.RUNNING)
    over, last = await run_to_its_end(of, "false")
    running = of.container(pod)  # by now its sync has been answered, with what limits are in force
    async with process(of.bench, tidy=False) as other:
        assert other.container(pod) == running
        assert other.pods[pod.uid].addresses == place.addresses
        ended = other.container(over)
        assert ended is not None
        assert ended.exits == last.exits
    assert of.container(pod) == running


async def lost_host_is_told_and_listed_again_when_it_is_back(of: Process) -> None:
    pod = of.pod(*FOREVER)
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
        await raises(Unreachable, dial(of, pod, host))
        await raises(Unreachable, of.provider.answers(host))
    finally:
        await of.bench.heal(host)
    await of.until(of.listed, f"{host} is listed again")
    after = await of.state(pod, State.RUNNING)
    assert (after.id, after.attempt) == (before.id, before.attempt)


async def cancelled_sync_leaves_what_another_completes(of: Process) -> None:
    pod = of.pod(*FOREVER)
    for _ in range(3):
        try:
            async with asyncio.timeout(0):
                await of.sync(pod)
        except TimeoutError:
            continue
    await of.run(pod)
    running = await of.state(pod, State.RUNNING)
    assert (running.attempt, running.exits) == (0, ())
