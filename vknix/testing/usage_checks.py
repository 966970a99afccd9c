"""The part of the contract that is about numbers and the hosts' own journals."""

import time
from contextlib import aclosing

from vknix.core.facts import HostName, State
from vknix.errors import Refused, Unreachable
from vknix.provider import JournalQuery
from vknix.testing.bench import NAME, Process


async def usage_names_what_runs_and_grows(of: Process) -> None:
    pod, ended = of.pod("sleep", "1000000"), of.pod("true", restart="Never")
    host = (await of.run(pod)).host
    await of.run(ended)
    await of.state(pod, State.RUNNING)
    await of.state(ended, State.STOPPED)
    before, after = await of.provider.usage(host), await of.provider.usage(host)
    assert before.at < after.at
    assert abs(after.at - time.time()) < of.bench.within_s
    assert after.boot < after.at
    for one, other in ((before.whole, after.whole), (before.pods[pod.uid].whole, after.pods[pod.uid].whole)):
        assert 0 < (one.cpu_ns or 0) <= (other.cpu_ns or 0)
        assert other.working_set
    assert 0 < (after.whole.working_set or 0) < after.memory
    assert set(after.filesystems) <= {"node", "image"}
    container = after.pods[pod.uid].containers[NAME]
    assert container.cpu_ns is not None
    assert container.working_set
    assert container.processes
    assert after.pods[pod.uid].whole.interfaces
    if ended.uid in after.pods:
        assert not (stopped := after.pods[ended.uid].containers.get(NAME)) or not stopped.processes
    disks = await of.provider.disk(host, (pod.uid, ended.uid))
    assert disks[pod.uid].roots.keys() == disks[pod.uid].logs.keys() == {NAME}
    assert ended.uid not in disks or not disks[ended.uid].roots


async def host_that_is_lost_uses_nothing_that_is_known(of: Process) -> None:
    host = next(iter(of.hosts))
    await of.bench.lose(host)
    try:
        await of.until(lambda: of.hosts[host].state.value == "lost", f"{host} is lost")
        for asked in (of.provider.usage(host), _journal(of, host, JournalQuery())):
            try:
                await asked
            except Unreachable:
                continue
            raise AssertionError("Unreachable was to be raised")
    finally:
        await of.bench.heal(host)
    await of.until(of.listed, f"{host} is listed again")


async def journal_is_read_by_line_and_unit(of: Process) -> None:
    host = next(iter(of.hosts))
    lines = (await _journal(of, host, JournalQuery(tail_lines=2))).splitlines()
    assert len(lines) == 2
    assert await _journal(of, host, JournalQuery(units=("no-such-unit",))) == b""
    assert await _journal(of, host, JournalQuery(since=time.time() + 3600)) == b""
    assert await _journal(of, host, JournalQuery(pattern="no such line anywhere in it")) == b""
    try:
        await _journal(of, host, JournalQuery(pattern="("))
    except Refused:
        return
    raise AssertionError("a pattern that is none was to be refused")


async def _journal(of: Process, host: HostName, query: JournalQuery) -> bytes:
    async with aclosing(of.provider.host_logs(host, query)) as pieces:
        return b"".join([piece async for piece in pieces])
