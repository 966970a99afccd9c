"""Hosts are asked once for all who want to know; one that does not answer holds up nobody for long."""

import asyncio
from dataclasses import dataclass, field

import pytest

from vknix.core.facts import ContainerFacts, HostFacts, HostName, HostState, PodFacts, State, Uid
from vknix.core.usage import HostUsage, Usage
from vknix.errors import Unreachable
from vknix.ledger import Ledger
from vknix.loops import usages
from vknix.loops.usages import Usages


@dataclass
class Hosts:
    """Answers after a moment; `mute` ones never, `broken` ones with an error."""

    asked: list[str] = field(default_factory=list)
    mute: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    both: asyncio.Event = field(default_factory=asyncio.Event)

    async def usage(self, host: HostName) -> HostUsage:
        self.asked.append(host)
        if len(self.asked) == 2:
            self.both.set()
        if host in self.mute:
            await asyncio.Event().wait()
        if host in self.broken:
            raise Unreachable(f"host {host}: the link was lost")
        await asyncio.sleep(0)
        return HostUsage(float(len(self.asked)), 0.0, Usage(cpu_ns=len(self.asked)), 1)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ledger() -> Ledger:
    made = Ledger()
    for name in ("red", "blue"):
        made.hosts[HostName(name)] = HostFacts(HostName(name), HostState.LISTED, "")
    return made


def of(ledger: Ledger, hosts: Hosts, clock: Clock) -> Usages:
    return Usages("node", ledger, hosts, clock=clock)  # type: ignore[arg-type]  # as much of a provider as is called


async def test_all_who_ask_at_once_have_one_answer_a_host(ledger: Ledger) -> None:
    hosts, clock = Hosts(), Clock()
    reader = of(ledger, hosts, clock)
    async with asyncio.TaskGroup() as tasks:
        reads = [tasks.create_task(reader.read()) for _ in range(20)]
    assert sorted(hosts.asked) == ["blue", "red"]
    assert all(read.result().hosts == reads[0].result().hosts for read in reads)
    clock.now += usages.FRESH_S
    await reader.read()
    assert sorted(hosts.asked) == ["blue", "blue", "red", "red"]


async def test_a_container_that_has_begun_since_is_seen_at_once(ledger: Ledger) -> None:
    hosts, clock = Hosts(), Clock()
    del ledger.hosts[HostName("blue")]
    reader = of(ledger, hosts, clock)
    at = (await reader.read()).nows[0].at
    for started, asked in ((at - 1, 1), (at + 0.5, 2), (at + 0.6, 2)):  # what is read next is of at + 1
        main = ContainerFacts("main", State.RUNNING, 0, started=started)
        ledger.seen[Uid("uid")] = PodFacts(Uid("uid"), HostName("red"), "ns", "p", containers={"main": main})
        await reader.read()
        assert len(hosts.asked) == asked


async def test_who_asked_first_may_leave(ledger: Ledger) -> None:
    hosts = Hosts(mute={"red", "blue"})
    reader = of(ledger, hosts, Clock())
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(reader.read())
        await hosts.both.wait()
        hosts.mute.clear()
        second = tasks.create_task(reader.read())
        first.cancel()
    assert len(second.result().hosts) == 2


async def test_a_host_without_an_answer_is_silent_for_a_moment_and_not_asked_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usages, "ANSWER_S", 0.01)
    hosts, clock = Hosts(mute={"red"}, broken={"blue"}), Clock()
    reader = of(ledger, hosts, clock)
    for _ in range(3):
        read = await reader.read()
        assert (read.silent, read.hosts, read.pods) == (("red", "blue"), {}, ())
    assert len(hosts.asked) == 2


async def test_a_host_that_is_away_is_not_asked(ledger: Ledger) -> None:
    hosts = Hosts()
    ledger.hosts[HostName("red")] = HostFacts(HostName("red"), HostState.LOST, "")
    read = await of(ledger, hosts, Clock()).read()
    assert (read.silent, hosts.asked) == (("red",), ["blue"])


async def test_an_earlier_reading_is_kept_for_rates_until_it_is_old(ledger: Ledger) -> None:
    hosts, clock = Hosts(), Clock()
    del ledger.hosts[HostName("blue")]
    reader, befores = of(ledger, hosts, clock), []
    for _ in range(14):
        read = (await reader.read()).hosts[HostName("red")]
        befores.append(read.before.at if read.before is not None else None)
        clock.now += usages.FRESH_S
    assert befores == [None, *[1.0] * 10, *[11.0] * 3]
