"""Requests x hosts -> a host, or why none fits. Pure; the scheduler has chosen the node, this chooses within its pool."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vknix.core.facts import HostFacts, HostName, HostState
from vknix.core.resources import HUGE, Amounts
from vknix.errors import Refused, Unreachable


@dataclass(frozen=True, slots=True)
class Used:
    """What the Pods that are placed on a host ask for."""

    pods: int = 0
    cpu_milli: int = 0
    memory_bytes: int = 0
    storage_bytes: int = 0
    huge: Mapping[str, int] = field(default_factory=dict)


def used(placed: Iterable[Amounts]) -> Used:
    each = list(placed)
    return Used(
        len(each),
        sum(amounts.cpu_milli or 0 for amounts in each),
        sum(amounts.memory_bytes or 0 for amounts in each),
        sum(amounts.storage_bytes or 0 for amounts in each),
        {size: sum(dict(amounts.huge).get(size, 0) for amounts in each) for amounts in each for size, _ in amounts.huge},
    )


def choose(asked: Amounts, hosts: Iterable[HostFacts], taken: Mapping[HostName, Used], at_hand: frozenset[HostName]) -> HostName:
    """The host with the most room; among equals one that has the closures (`at_hand`), then fewer Pods, then by name.

    Unreachable where no host of the pool answers; Refused with the kubelet's reason (OutOfcpu, ...) where none has room.
    """
    listed = [facts for facts in hosts if facts.state is HostState.LISTED]
    if not listed:
        raise Unreachable("no host of the pool answers")
    lacks = {facts.name: _lack(asked, facts, taken.get(facts.name, Used())) for facts in listed}
    fitting = [facts for facts in listed if lacks[facts.name] is None]
    if not fitting:
        what = next(lack for lack in lacks.values() if lack is not None)
        raise Refused(
            "", f"no host of the pool has room: {what[1]}", remedy="ask for less, or add a host", reason=f"OutOf{what[0]}"
        )

    def rank(facts: HostFacts) -> tuple[float, bool, int, HostName]:
        there = taken.get(facts.name, Used()).pods
        return _load(asked, facts, taken), facts.name not in at_hand, there, facts.name

    return min(fitting, key=rank).name


def resize(asked: Amounts, facts: HostFacts, there: Used) -> None:
    """Refused where a Pod that is there can't have so much beside the others (`there`)."""
    for used_there, reason, what in ((Used(), "Infeasible", "capacity"), (there, "Deferred", "resource")):
        lack = _lack(asked, facts, used_there)
        if lack is not None:
            why = f"Node didn't have enough {what}: {lack[1]}"
            raise Refused("", why, remedy="ask for less", reason=reason)


def _lack(asked: Amounts, facts: HostFacts, there: Used) -> tuple[str, str] | None:
    """The first resource that is short, with the numbers."""
    wants = {
        "pods": (1, there.pods, facts.pods),
        "cpu": (asked.cpu_milli or 0, there.cpu_milli, facts.cpu_milli),
        "memory": (asked.memory_bytes or 0, there.memory_bytes, facts.allocatable_bytes),
        "ephemeral-storage": (asked.storage_bytes or 0, there.storage_bytes, facts.storage_bytes),
        **{f"{HUGE}{size}": (more, there.huge.get(size, 0), facts.huge.get(size, 0)) for size, more in asked.huge},
    }
    for resource, (more, taken, whole) in wants.items():
        if more and taken + more > whole:
            return resource, f"{resource}, requested: {more}, used: {taken}, capacity: {whole}"
    return None


def _load(asked: Amounts, facts: HostFacts, taken: Mapping[HostName, Used]) -> float:
    """The fullest of its resources once the Pod is there, in steps of a percent so that noise does not hide `at_hand`."""
    there = taken.get(facts.name, Used())
    shares = (
        (there.pods + 1) / max(facts.pods, 1),
        (there.cpu_milli + (asked.cpu_milli or 0)) / max(facts.cpu_milli, 1),
        (there.memory_bytes + (asked.memory_bytes or 0)) / max(facts.allocatable_bytes, 1),
    )
    return round(max(shares), 2)
