"""(what hosts use now, what they have, and what they used before) -> what is told of the node and its Pods.

A host that gave no answer is left out with all that is on it: unknown is not zero.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from vknix.core.facts import ContainerFacts, HostName, PodFacts, State, Uid
from vknix.core.usage import HostUsage, PodUsage, Usage


@dataclass(frozen=True, slots=True)
class Reading:
    """One host: what it uses now, and at an earlier moment, if that is known."""

    now: HostUsage
    before: HostUsage | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """One that runs. `nano_cores` is its CPU of late; None: it has been read but once."""

    facts: ContainerFacts
    started: float
    usage: Usage
    nano_cores: int | None


@dataclass(frozen=True, slots=True)
class MeasuredPod:
    """A Pod of which at least one container runs. `at` is by its host's clock."""

    facts: PodFacts
    host: HostUsage
    usage: Usage
    nano_cores: int | None
    containers: tuple[Container, ...]

    @property
    def at(self) -> float:
        return self.host.at


@dataclass(frozen=True, slots=True)
class Measured:
    """`cpu_ns` of the node only ever grows, also when hosts come and go. `silent`: hosts that gave no answer."""

    node: str
    hosts: Mapping[HostName, Reading]
    pods: tuple[MeasuredPod, ...]
    cpu_ns: int
    silent: tuple[HostName, ...] = ()

    @property
    def nows(self) -> tuple[HostUsage, ...]:
        return tuple(reading.now for reading in self.hosts.values())


def pods(
    readings: Mapping[HostName, Reading], seen: Iterable[PodFacts], current: Callable[[str, str], Uid | None]
) -> tuple[MeasuredPod, ...]:
    """In the order of their names. Of two of one name, one of which is on its way out, the one that the API server calls so."""
    found: dict[tuple[str, str], MeasuredPod] = {}
    for facts in seen:
        reading = readings.get(facts.host)
        used = reading.now.pods.get(facts.uid) if reading is not None else None
        if reading is None or used is None:
            continue
        made = _pod(facts, reading, used)
        known = found.get((facts.namespace, facts.name))
        if made.containers and (known is None or current(facts.namespace, facts.name) == facts.uid):
            found[facts.namespace, facts.name] = made
    return tuple(found[name] for name in sorted(found))


def _pod(facts: PodFacts, reading: Reading, used: PodUsage) -> MeasuredPod:
    before = reading.before.pods.get(facts.uid) if reading.before is not None else None
    return MeasuredPod(
        facts,
        reading.now,
        used.whole,
        nano_cores(used.whole, before.whole if before else None, reading),
        tuple(_containers(facts, reading, used, before)),
    )


def _containers(facts: PodFacts, reading: Reading, used: PodUsage, before: PodUsage | None) -> Iterator[Container]:
    """One that could not be measured is left out, rather than told without memory: readers drop the whole Pod then."""
    for name, container in facts.containers.items():
        usage = used.containers.get(name)
        runs = container.state in (State.RUNNING, State.STOPPING) and container.started is not None
        if usage is None or container.started is None or not runs or usage.cpu_ns is None or not usage.working_set:
            continue
        earlier = before.containers.get(name) if before is not None else None
        same = reading.before is not None and container.started <= reading.before.at
        yield Container(container, container.started, usage, nano_cores(usage, earlier if same else None, reading))


def nano_cores(now: Usage, before: Usage | None, reading: Reading) -> int | None:
    """None where there is no earlier reading of the same run."""
    if before is None or reading.before is None or now.cpu_ns is None or before.cpu_ns is None:
        return None
    took = reading.now.at - reading.before.at
    return int((now.cpu_ns - before.cpu_ns) / took) if took > 0 and now.cpu_ns >= before.cpu_ns else None


def cpu_ns(usage: Usage) -> int:
    """Never zero: readers take that for an unknown."""
    return max(1, usage.cpu_ns or 0)


def total(values: Iterable[int | None]) -> int | None:
    """None where none is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


class Odometer:
    """CPU time of all hosts together.

    A host that is away adds nothing; one that was booted again goes on from where it was; one that is new adds what it uses from
    then on.
    """

    def __init__(self) -> None:
        self._total = 0
        self._last: dict[HostName, int] = {}
        self._begun = False

    def read(self, hosts: Mapping[HostName, HostUsage]) -> int:
        for name, usage in hosts.items():
            now, last = usage.whole.cpu_ns or 0, self._last.get(name)
            if last is not None:
                self._total += now - last if now >= last else now
            elif not self._begun:
                self._total += now
            self._last[name] = now
        self._begun = self._begun or bool(hosts)
        return self._total
