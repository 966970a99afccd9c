"""What to do next for a Pod: a total table of (what the cluster wants) x (what its host has), and which containers run now.

The theory. The row is read off the Pod, the column off its host; nothing is remembered between two decisions, so a restart of
vknix needs no recovery. *Lost* comes before all else: a host that does not answer, or was not listed since the link came up, may
run anything, so nothing is started, confirmed or forgotten on its word. Each step is idempotent; what it did shows in the facts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from vknix.core import hooks, restart, rounds, storage
from vknix.core import pod as pods
from vknix.core.facts import ContainerFacts, ImageState, PodFacts, State
from vknix.core.failing import failing
from vknix.core.pod import Kind, Member, Pod


class Row(Enum):
    WANTED = "wanted"
    FAILING = "failing"  # past its activeDeadlineSeconds, or evicted
    LEAVING = "leaving"  # has a deletionTimestamp
    GONE = "gone"  # not in the API server any more
    DONE = "done"  # Succeeded or Failed, which are for ever


class Column(Enum):
    NOTHING = "nothing"
    PREPARING = "preparing"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    LOST = "lost"


class Step(Enum):
    WORK = "work"  # start what containers() says
    WAIT = "wait"
    STOP = "stop"  # with the Pod's grace; a later deadline never counts
    KILL = "kill"
    CLEAN = "clean"
    CONFIRM = "confirm"  # tell the API server that the Pod is gone
    FORGET = "forget"


_W, _F, _L, _G, _D = Row.WANTED, Row.FAILING, Row.LEAVING, Row.GONE, Row.DONE

TABLE: dict[tuple[Row, Column], Step] = {
    (_W, Column.NOTHING): Step.WORK,
    (_W, Column.PREPARING): Step.WORK,
    (_W, Column.RUNNING): Step.WORK,
    (_W, Column.STOPPING): Step.WORK,
    (_W, Column.STOPPED): Step.WORK,
    (_W, Column.LOST): Step.WAIT,
    (_F, Column.NOTHING): Step.WAIT,  # it is told to have failed
    (_F, Column.PREPARING): Step.STOP,
    (_F, Column.RUNNING): Step.STOP,
    (_F, Column.STOPPING): Step.STOP,
    (_F, Column.STOPPED): Step.STOP,  # an Event says so
    (_F, Column.LOST): Step.WAIT,
    (_L, Column.NOTHING): Step.CONFIRM,
    (_L, Column.PREPARING): Step.STOP,
    (_L, Column.RUNNING): Step.STOP,
    (_L, Column.STOPPING): Step.STOP,
    (_L, Column.STOPPED): Step.CLEAN,
    (_L, Column.LOST): Step.WAIT,
    (_G, Column.NOTHING): Step.FORGET,
    (_G, Column.PREPARING): Step.KILL,
    (_G, Column.RUNNING): Step.KILL,
    (_G, Column.STOPPING): Step.KILL,
    (_G, Column.STOPPED): Step.CLEAN,
    (_G, Column.LOST): Step.WAIT,
    (_D, Column.NOTHING): Step.WAIT,
    (_D, Column.PREPARING): Step.KILL,
    (_D, Column.RUNNING): Step.KILL,
    (_D, Column.STOPPING): Step.KILL,
    (_D, Column.STOPPED): Step.WAIT,  # kept for its logs until it is deleted
    (_D, Column.LOST): Step.WAIT,
}
assert set(TABLE) == {(row, column) for row in Row for column in Column}


def row(pod: Pod | None, now: float) -> Row:
    if pod is None:
        return Row.GONE
    if pod.leaving:
        return Row.LEAVING
    if pod.ended:
        return Row.DONE
    return Row.FAILING if failing(pod, now) is not None else Row.WANTED


def column(facts: PodFacts | None, *, lost: bool) -> Column:
    """The fold of the containers' states: what is most alive counts. A sandbox without containers has nothing to stop.

    What its host would start again is not stopped yet: it may run by the time that it is cleaned.
    """
    if lost:
        return Column.LOST
    if facts is None:
        return Column.NOTHING
    states = {container.state for container in facts.containers.values()}
    for state, of in ((State.RUNNING, Column.RUNNING), (State.STOPPING, Column.STOPPING), (State.PREPARING, Column.PREPARING)):
        if state in states:
            return of
    return Column.STOPPING if any(container.host_restarts for container in facts.containers.values()) else Column.STOPPED


def step(pod: Pod | None, facts: PodFacts | None, now: float, *, lost: bool) -> Step:
    return TABLE[row(pod, now), column(facts, lost=lost)]


@dataclass(frozen=True, slots=True)
class Turn:
    """Containers to start now, and when to look again (None: when something changes). `over`: the sidecars are to end."""

    run: tuple[str, ...] = ()
    over: bool = False
    until: float | None = None


def containers(pod: Pod, facts: PodFacts | None, now: float) -> Turn:
    """Which containers of a wanted Pod start now; what runs, is being made or is its host's to restart is left alone.

    Init containers go one after the other, each once a sandbox; a sidecar opens the way for the next as soon as it has started.
    Regular containers do not wait for each other, but for a postStart hook of one before them.
    """
    if rounds.is_ending(pod, facts):
        return Turn()
    if over(pod, facts):
        return Turn(over=True)
    run: list[str] = []
    later: list[float] = []
    for member in _in_turn(pod, facts):
        at = _start_at(pod, member, facts, now)
        starts = at is not None and at <= now
        if starts:
            run.append(member.name)
        elif at is not None:
            later.append(at)
        if hooks.has_post_start(member) and (starts or _is_starting(member, facts)):
            break
    return Turn(tuple(run), until=min(later, default=None))


def _is_starting(member: Member, facts: PodFacts | None) -> bool:
    seen = facts.containers.get(member.name) if facts is not None else None
    return seen is not None and (seen.state is State.PREPARING or (seen.state is State.RUNNING and seen.hooking))


def _in_turn(pod: Pod, facts: PodFacts | None) -> Iterator[Member]:
    """The containers whose turn it is, or was: not those behind an init container that is not done. An ephemeral one waits for
    nothing but its target.
    """
    begun, members = initialised(pod, facts), tuple(pods.members(pod))
    yield from (each for each in members if each.kind is Kind.EPHEMERAL and (each.target is None or _runs(each.target, facts)))
    for member in members:
        if member.kind is Kind.EPHEMERAL or (member.kind is Kind.INIT and begun):
            continue
        yield member
        if not begun and member.kind is not Kind.REGULAR and not init_done(member, facts):
            return


def _runs(name: str, facts: PodFacts | None) -> bool:
    seen = facts.containers.get(name) if facts is not None else None
    return seen is not None and seen.state is State.RUNNING


def initialised(pod: Pod, facts: PodFacts | None) -> bool:
    """Whether a regular container has started in the sandbox that is there: what comes before is then behind."""
    return (
        any(member.kind is Kind.REGULAR and _started_here(facts, member.name) for member in pods.members(pod))
        if facts is not None
        else False
    )


def _started_here(facts: PodFacts, name: str) -> bool:
    seen = facts.containers.get(name)
    if seen is None:
        return False
    if seen.state is not State.STOPPED:
        return True
    ended = seen.last_exit
    return ended is not None and ended.finished >= facts.since


def init_done(member: Member, facts: PodFacts | None) -> bool:
    """A sidecar has started, an init container has exited 0, in the sandbox that is there."""
    seen = facts.containers.get(member.name) if facts is not None else None
    if facts is None or seen is None:
        return False
    if member.kind is Kind.SIDECAR:
        return seen.state is State.RUNNING and seen.up
    ended = seen.last_exit
    return seen.state is State.STOPPED and ended is not None and ended.code == 0 and ended.finished >= facts.since


def over(pod: Pod, facts: PodFacts | None) -> bool:
    """No regular container will run again, or none ever will: an init container has failed for good."""
    return failed_init(pod, facts) or all(
        _ended_for_good(pod, member, facts) for member in pods.members(pod) if member.kind is Kind.REGULAR
    )


def failed_init(pod: Pod, facts: PodFacts | None) -> bool:
    return any(
        member.kind is Kind.INIT and _ended_for_good(pod, member, facts) and not _succeeded(member, facts)
        for member in pods.members(pod)
    )


def _succeeded(member: Member, facts: PodFacts | None) -> bool:
    """In whichever sandbox."""
    seen = facts.containers.get(member.name) if facts is not None else None
    return seen is not None and seen.last_exit is not None and seen.last_exit.code == 0


def _ended_for_good(pod: Pod, member: Member, facts: PodFacts | None) -> bool:
    seen = facts.containers.get(member.name) if facts is not None else None
    if seen is None:
        return not never_ran(pod, member.name) and not restart.may_restart(member, 137)
    ended = seen.last_exit
    return seen.state is State.STOPPED and ended is not None and not restart.again(member, seen, ended)


def _start_at(pod: Pod, member: Member, facts: PodFacts | None, now: float) -> float | None:
    """When vknix is to start it; None: not at all, or not before something changes."""
    if storage.unreadable(pod, member.path, member.container) is not None:
        return None
    for root in storage.roots(pod, member.path, member.container).values():
        fetched = facts.images.get(root) if facts is not None else None
        if fetched is not None and fetched.state is not ImageState.PRESENT:
            return fetched.retry_at if fetched.state is ImageState.FAILED else None
    seen = facts.containers.get(member.name) if facts is not None else None
    if facts is None or seen is None:
        return now if never_ran(pod, member.name) or restart.may_restart(member, 137) else None
    return _again_at(member, seen, facts, now)


def _again_at(member: Member, seen: ContainerFacts, facts: PodFacts, now: float) -> float | None:
    if seen.state is not State.STOPPED:
        return None
    ended = seen.last_exit
    if ended is None:
        return now
    if member.kind is Kind.INIT and ended.finished < facts.since:
        return ended.finished  # no restart: each sandbox has its own run
    if not restart.again(member, seen, ended):
        return None
    if seen.host_restarts and restart.delay_s(seen.streak) > 0 and not seen.redefined:
        return None
    return restart.due(seen, ended)


def never_ran(pod: Pod, container: str) -> bool:
    """The API server has heard of no instance of it in this round: so there was none, as each is told before the next begins."""
    told = pod.told(container)
    if rounds.waits(told):
        return True
    return not told.get("containerID") and not told.get("lastState")
