"""How containers end: (what is to end, what was asked before, now) -> whose preStop hook begins, and who is told to stop by when.

Rules: kuberuntime_container.go (killContainer), kuberuntime_termination_order.go. Pure.

All hooks of a Pod that ends begin at once; a container is told to stop once its hook is over and its turn has come. It is killed
when the grace is over, which counts from when it was first asked, but never sooner than a moment after it was told. A later wish
can only shorten.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from vknix.core import hooks, restart, rounds
from vknix.core import pod as pods
from vknix.core.facts import PodFacts, State
from vknix.core.failing import Failing
from vknix.core.pod import Kind, Pod

Key = tuple[str, int]  # a container and its attempt


@dataclass(frozen=True, slots=True)
class Wish:
    """A container that is to end, at `by` or within its grace. `turn`: it may be told to stop now; else only its hook begins."""

    name: str
    turn: bool = True
    by: float | None = None
    grace_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Asked:
    """An attempt that was asked to end. `told`: when its host was first told to stop it; `sent`: by when, as it was last told."""

    since: float
    by: float
    told: float | None = None
    sent: float = inf


@dataclass(slots=True)
class Ending:
    """What is to be done now. `first` are asked for the first time; `hooks` run until a moment; `stops`: who is to end by when.

    `asked` is what is to be remembered of each attempt, once all of it is done. `until`: when to look again.
    """

    first: list[str] = field(default_factory=list)
    hooks: dict[str, float] = field(default_factory=dict)
    stops: dict[float, list[str]] = field(default_factory=dict)
    asked: dict[Key, Asked] = field(default_factory=dict)
    until: float = inf


def advance(
    pod: Pod | None,
    facts: PodFacts,
    wishes: Iterable[Wish],
    asked: Mapping[Key, Asked],
    leaving: frozenset[str],
    now: float,
    least_s: float,
) -> Ending:
    """`leaving`: whose preStop hook runs. `least_s`: what each gets between being told to stop and being killed."""
    hooked = {member.name for member in pods.members(pod) if hooks.has_pre_stop(member)} if pod is not None else set()
    ending = Ending()
    for wish in wishes:
        seen = facts.containers[wish.name]
        key = (wish.name, seen.attempt)
        before = asked.get(key)
        of = _wished(before, wish, now)
        if before is None and seen.state is not State.STOPPED:
            ending.first.append(wish.name)
        begins = before is None and wish.name in hooked and seen.state is State.RUNNING
        if (begins or wish.name in leaving) and now < of.by:
            ending.hooks[wish.name] = of.by
            ending.until = min(ending.until, of.by)
        elif wish.turn:
            of = _tell(ending, wish.name, of, now, least_s)
        ending.asked[key] = of
    return ending


def _wished(before: Asked | None, wish: Wish, now: float) -> Asked:
    since = before.since if before is not None else now
    by = wish.by if wish.by is not None else since + wish.grace_s
    return replace(before, by=min(before.by, by)) if before is not None else Asked(since, by)


def _tell(ending: Ending, name: str, of: Asked, now: float, least_s: float) -> Asked:
    """Once for each deadline, again when it has passed, and then each second until it is done."""
    told = of.told if of.told is not None else now
    at = max(of.by, told + least_s)
    ending.until = min(ending.until, at if now < at else now + 1)
    if now < at and at >= of.sent:
        return of
    ending.stops.setdefault(at, []).append(name)
    return replace(of, told=told, sent=at)


def of_all(pod: Pod | None, facts: PodFacts, *, by: float | None = None, grace_s: float = 0.0) -> tuple[Wish, ...]:
    """The whole Pod: all but the sidecars at once, then the sidecars one by one from the last."""
    if pod is None:
        return tuple(Wish(name, by=by) for name in facts.containers)
    alive = [
        (member, seen)
        for member in pods.members(pod)
        if (seen := facts.containers.get(member.name)) is not None and restart.is_alive(seen)
    ]
    first = {member.name for member, _ in alive if member.kind is not Kind.SIDECAR} or {member.name for member, _ in alive[-1:]}
    return tuple(Wish(member.name, member.name in first, by, grace_s) for member, _ in alive)


def of_stopped(pod: Pod, facts: PodFacts, fails: Failing | None) -> tuple[Wish, ...]:
    """The whole of a Pod that leaves, is to fail, or has ended and yet runs."""
    if fails is not None:
        return of_all(pod, facts, grace_s=fails.grace_s)
    return of_all(pod, facts, by=deadline(pod) if pod.leaving else 0.0)


def of_working(pod: Pod, facts: PodFacts, *, over: bool) -> tuple[Wish, ...]:
    """Of a Pod that goes on: who is given up, and all that is left where the regular containers are over, or the round is."""
    if rounds.is_ending(pod, facts):
        return tuple(Wish(name, by=0.0) for name in rounds.left(pod, facts))
    return (*(of_all(pod, facts, grace_s=pod.spec.grace_s) if over else ()), *of_doomed(pod, facts))


def of_doomed(pod: Pod, facts: PodFacts) -> Iterator[Wish]:
    """Those that a probe or a hook has given up, or that are defined anew: each is started again by its policy."""
    for seen in facts.containers.values():
        if seen.doomed and seen.state is not State.STOPPED:
            yield Wish(seen.name, grace_s=seen.grace_s if seen.grace_s is not None else pod.spec.grace_s)


def deadline(pod: Pod) -> float:
    """When what is left of a leaving Pod is killed: its deletionTimestamp, which has the grace in it."""
    assert pod.metadata.deletion_timestamp is not None
    return pod.metadata.deletion_timestamp.timestamp()
