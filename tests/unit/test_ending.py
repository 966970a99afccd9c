"""vknix.core.ending: whose hook begins, who is told to stop, and when what is left is killed."""

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import container, ended, facts, pod, running, stopped
from vknix.core import ending, restart
from vknix.core.ending import Asked, Wish
from vknix.core.facts import ContainerFacts, PodFacts, State
from vknix.core.pod import Pod

NOW, LEAST = 1000.0, 2.0
PRE_STOP: dict[str, Any] = {"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}
PLAIN, HOOKED = pod(), pod(container(**PRE_STOP))
NOBODY: frozenset[str] = frozenset()
LEAVING = frozenset({"main"})


def advance(
    of: Pod,
    *wishes: Wish,
    asked: Asked | None = None,
    leaving: frozenset[str] = NOBODY,
    seen: PodFacts | None = None,
    now: float = NOW,
) -> ending.Ending:
    known = {("main", 0): asked} if asked is not None else {}
    return ending.advance(of, seen or facts(running()), wishes, known, leaving, now, LEAST)


def test_without_a_hook_it_is_told_at_once_and_killed_at_the_deadline() -> None:
    of = advance(PLAIN, Wish("main", grace_s=30.0))
    assert (of.first, of.hooks, of.stops, of.until) == (["main"], {}, {NOW + 30: ["main"]}, NOW + 30)
    assert of.asked == {("main", 0): Asked(NOW, NOW + 30, NOW, NOW + 30)}


@pytest.mark.parametrize("grace_s", [0.0, 1.0])
def test_no_grace_is_too_short_for_a_moment_between_the_word_and_the_kill(grace_s: float) -> None:
    assert list(advance(PLAIN, Wish("main", grace_s=grace_s)).stops) == [NOW + LEAST]


def test_nobody_is_told_the_same_again_before_the_deadline_and_all_are_after_it() -> None:
    asked = Asked(NOW, NOW + 30, NOW, NOW + 30)
    wish = Wish("main", grace_s=30.0)
    waiting = advance(PLAIN, wish, asked=asked, now=NOW + 29)
    assert (waiting.first, waiting.stops, waiting.until) == ([], {}, NOW + 30)
    late = advance(PLAIN, wish, asked=asked, now=NOW + 31)
    assert (late.first, late.stops, late.until) == ([], {NOW + 30: ["main"]}, NOW + 32)


def test_later_wish_shortens_and_never_lengthens() -> None:
    asked = Asked(NOW, NOW + 30, NOW, NOW + 30)
    assert list(advance(PLAIN, Wish("main", by=NOW + 10), asked=asked, now=NOW + 5).stops) == [NOW + 10]
    longer = advance(PLAIN, Wish("main", by=NOW + 99), asked=asked, now=NOW + 5)
    assert (longer.stops, longer.until) == ({}, NOW + 30)


def test_hook_begins_first_and_has_the_whole_grace() -> None:
    of = advance(HOOKED, Wish("main", grace_s=30.0))
    assert (of.first, of.hooks, of.stops, of.until) == (["main"], {"main": NOW + 30}, {}, NOW + 30)


@pytest.mark.parametrize(
    ("seen", "wish"),
    [
        (facts(running()), Wish("main", by=NOW)),
        (facts(stopped("main", ended(1), host_restarts=True)), Wish("main", grace_s=30.0)),
        (facts(ContainerFacts("main", State.STOPPING, 0)), Wish("main", grace_s=30.0)),
    ],
    ids=["no grace", "it has ended by itself", "it is ending"],
)
def test_hook_is_not_run(seen: PodFacts, wish: Wish) -> None:
    of = advance(HOOKED, wish, seen=seen)
    assert of.hooks == {}
    assert list(of.stops.values()) == [["main"]]


def test_what_the_hook_took_counts_into_the_grace() -> None:
    asked = Asked(NOW, NOW + 30)
    wish = Wish("main", grace_s=30.0)
    assert advance(HOOKED, wish, asked=asked, leaving=LEAVING, now=NOW + 12).stops == {}
    done = advance(HOOKED, wish, asked=asked, now=NOW + 12)
    assert (done.hooks, list(done.stops)) == ({}, [NOW + 30])
    late = advance(HOOKED, wish, asked=asked, leaving=LEAVING, now=NOW + 30)
    assert (late.hooks, list(late.stops)) == ({}, [NOW + 30 + LEAST])


def test_shorter_grace_shortens_the_hook() -> None:
    of = advance(HOOKED, Wish("main", by=NOW + 3), asked=Asked(NOW, NOW + 30), leaving=LEAVING, now=NOW + 1)
    assert (of.hooks, of.until) == ({"main": NOW + 3}, NOW + 3)


def test_hook_begins_before_its_turn_and_the_word_waits_for_it() -> None:
    early = advance(HOOKED, Wish("main", turn=False, grace_s=30.0))
    assert (early.hooks, early.stops) == ({"main": NOW + 30}, {})
    waits = advance(HOOKED, Wish("main", turn=False, grace_s=30.0), asked=Asked(NOW, NOW + 30), now=NOW + 9)
    assert (waits.hooks, waits.stops, waits.until) == ({}, {}, inf)


def side(name: str) -> dict[str, Any]:
    return container(name, restartPolicy="Always")


JOB = pod(container("main"), container("other"), initContainers=[side("first"), side("second")], restart="Never")
ALIVE = (running("first"), running("second"))


@pytest.mark.parametrize(
    ("seen", "turn"),
    [
        (facts(*ALIVE, running("main"), running("other")), "main other"),
        (facts(*ALIVE, running("main"), stopped("other", ended())), "main"),
        (facts(*ALIVE, stopped("main", ended()), stopped("other", ended())), "second"),
        (facts(running("first"), ContainerFacts("second", State.STOPPING, 0)), "second"),
        (facts(running("first"), stopped("second", ended(1), ended(1), host_restarts=True)), "second"),
        (facts(running("first"), stopped("second", ended())), "first"),
        (facts(), ""),
    ],
    ids=[
        "main ones together",
        "what is left of them",
        "the last sidecar",
        "its turn lasts",
        "its host would",
        "the first",
        "nothing",
    ],
)
def test_pod_stops_in_its_order(seen: PodFacts, turn: str) -> None:
    wishes = ending.of_all(JOB, seen, grace_s=30.0)
    assert [wish.name for wish in wishes if wish.turn] == turn.split()
    assert {wish.name for wish in wishes} == {name for name, each in seen.containers.items() if restart.is_alive(each)}


def test_pod_that_nobody_knows_any_more_ends_all_at_once() -> None:
    wishes = ending.of_all(None, facts(*ALIVE, running("main")), by=0.0)
    assert {(wish.name, wish.turn, wish.by) for wish in wishes} == {(name, True, 0.0) for name in ("first", "second", "main")}


def test_the_deadline_has_the_grace_in_it() -> None:
    assert ending.deadline(pod(leaving=True)) == 1767323045.0


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 60)), min_size=1, max_size=8), st.booleans())
def test_deadline_that_is_sent_never_moves_back_and_comes_by_the_grace(steps: list[tuple[float, float]], hook: bool) -> None:
    """However often it is asked, and for whatever grace."""
    asked, now, sent = None, NOW, []
    for grace_s, after_s in steps:
        of = advance(HOOKED if hook else PLAIN, Wish("main", by=NOW + grace_s), asked=asked, now=now)
        asked = of.asked["main", 0]
        sent += list(of.stops)
        now += after_s
    assert sent == sorted(sent, reverse=True)
    assert all(at <= max(NOW + steps[0][0], now + LEAST) for at in sent)
