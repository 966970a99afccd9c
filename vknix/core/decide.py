"""What to do next for a Pod: a total table of (what the cluster wants) x (what its host has), and which containers run now.

The theory. The row is read off the Pod, the column off its host; nothing is remembered between two decisions, so a restart of
vknix needs no recovery. *Lost* comes before all else: a host that does not answer, or was not listed since the link came up, may
run anything, so nothing is started, confirmed or forgotten on its word. Each step is idempotent; what it did shows in the facts.
"""

from dataclasses import dataclass
from enum import Enum

from vknix.core import image, restart
from vknix.core import pod as pods
from vknix.core.facts import ContainerFacts, ImageState, PodFacts, State
from vknix.core.pod import Container, Pod


class Row(Enum):
    WANTED = "wanted"
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


_W, _L, _G, _D = Row.WANTED, Row.LEAVING, Row.GONE, Row.DONE

TABLE: dict[tuple[Row, Column], Step] = {
    (_W, Column.NOTHING): Step.WORK,
    (_W, Column.PREPARING): Step.WORK,
    (_W, Column.RUNNING): Step.WORK,
    (_W, Column.STOPPING): Step.WAIT,
    (_W, Column.STOPPED): Step.WORK,
    (_W, Column.LOST): Step.WAIT,
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


def row(pod: Pod | None) -> Row:
    if pod is None:
        return Row.GONE
    if pod.leaving:
        return Row.LEAVING
    return Row.DONE if pod.ended else Row.WANTED


def column(facts: PodFacts | None, *, lost: bool) -> Column:
    """The fold of the containers' states: what is most alive counts. A sandbox without containers has nothing to stop."""
    if lost:
        return Column.LOST
    if facts is None:
        return Column.NOTHING
    states = {container.state for container in facts.containers.values()}
    for state, of in ((State.RUNNING, Column.RUNNING), (State.STOPPING, Column.STOPPING), (State.PREPARING, Column.PREPARING)):
        if state in states:
            return of
    return Column.STOPPED


def step(pod: Pod | None, facts: PodFacts | None, *, lost: bool) -> Step:
    return TABLE[row(pod), column(facts, lost=lost)]


@dataclass(frozen=True, slots=True)
class Turn:
    """Containers to start now, and when to look again (None: when something changes)."""

    run: tuple[str, ...] = ()
    until: float | None = None


def containers(pod: Pod, facts: PodFacts | None, now: float) -> Turn:
    """Which containers of a wanted Pod start now; what runs, is being made or is its host's to restart is left alone."""
    run: list[str] = []
    later: list[float] = []
    for path, container in pods.containers(pod):
        at = _start_at(pod, path, container, facts, now)
        if at is not None and at <= now:
            run.append(container.name)
        elif at is not None:
            later.append(at)
    return Turn(tuple(run), min(later, default=None))


def _start_at(pod: Pod, path: str, container: Container, facts: PodFacts | None, now: float) -> float | None:
    """When vknix is to start it; None: not at all, or not before something changes."""
    fetched = facts.images.get(image.parse(container.image, f"{path}.image").path) if facts is not None else None
    if fetched is not None and fetched.state is not ImageState.PRESENT:
        return fetched.retry_at if fetched.state is ImageState.FAILED else None
    seen = facts.containers.get(container.name) if facts is not None else None
    if seen is None:
        return now if never_ran(pod, container.name) or restart.may_restart(pod.spec.restart_policy, 137) else None
    return _again_at(pod, seen, now)


def _again_at(pod: Pod, seen: ContainerFacts, now: float) -> float | None:
    if seen.state is not State.STOPPED:
        return None
    ended = seen.last_exit
    if ended is None:
        return now
    if not restart.may_restart(pod.spec.restart_policy, ended.code):
        return None
    if seen.host_restarts and restart.delay_s(seen.streak) > 0:
        return None
    return restart.due(seen, ended)


def never_ran(pod: Pod, container: str) -> bool:
    """The API server has never heard of an instance of it: so there was none, as each is told before the next begins."""
    told = pod.told(container)
    return not told.get("containerID") and not told.get("lastState")


def deadline(pod: Pod) -> float:
    """When what is left of a leaving Pod is killed: its deletionTimestamp, which has the grace in it."""
    assert pod.metadata.deletion_timestamp is not None
    return pod.metadata.deletion_timestamp.timestamp()
