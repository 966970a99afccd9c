"""vknix.nspawn.guesses: what is asked for counts as begun, until systemd says otherwise."""

import pytest

from vknix.nspawn.guesses import Doubts, Guesses, came_true
from vknix.nspawn.unit_state import Unit

GUESS = Unit("activating", "start", attempt=1)
WAITS = Unit("activating", "auto-restart", id="0" * 32)
RUNS = Unit("active", "running", id="1" * 32, attempt=1)


@pytest.mark.parametrize(
    ("before", "ends", "expected"),
    [
        (None, 0, True),
        (GUESS, 1, False),  # the end before: systemd says once more that the unit waits, as vknix restarts it
        (GUESS, 2, True),
        (RUNS, 1, True),
        (WAITS, 1, True),
    ],
)
def test_end_is_of_what_was_asked_for_once_systemd_or_its_fact_says_so(before: Unit | None, ends: int, expected: bool) -> None:
    assert came_true(before, ends) is expected


def test_unit_that_runs_is_not_guessed_of() -> None:
    units = {"u": RUNS}
    Guesses(units).make("u", 2, "")
    assert units == {"u": RUNS}


@pytest.mark.parametrize("before", [{}, {"u": WAITS}], ids=["none", "waits"])
def test_dropped_guess_leaves_what_was(before: dict[str, Unit]) -> None:
    units = dict(before)
    guessed = Guesses(units)
    guessed.make("u", 1, "image")
    assert units["u"].active == "activating"
    assert units["u"].attempt == 1
    guessed.drop()
    assert units == before


def test_only_what_is_named_is_dropped() -> None:
    units = dict[str, Unit]()
    guessed = Guesses(units)
    guessed.make("u", 1, "")
    guessed.make("v", 0, "")
    guessed.drop(["u", "w"])
    assert list(units) == ["v"]


def test_what_systemd_has_told_meanwhile_stays() -> None:
    units = dict[str, Unit]()
    guessed = Guesses(units)
    guessed.make("u", 1, "")
    units["u"] = RUNS
    guessed.drop()
    assert units == {"u": RUNS}


def test_systemd_is_asked_once_for_what_is_gone_and_not_while_it_is_about_to_be_started() -> None:
    doubts = Doubts()
    doubts.add("u")
    with doubts.asking(["u", "v"]):
        doubts.add("w")
        assert doubts.due() == {"w"}
        with doubts.asking(["u"]):
            doubts.add("v")
        assert doubts.due() == frozenset()
    assert doubts.due() == {"u", "v"}
    assert doubts.due() == frozenset()


def test_two_starts_at_once_are_counted_by_name_also_where_more_is_said_of_each() -> None:
    doubts = Doubts()
    doubts.add("u")
    with doubts.asking({"u": (0, "image")}):
        with doubts.asking({"u": (1, "image"), "v": (0, "image")}):
            assert doubts.due() == frozenset()
        assert doubts.due() == frozenset()
    assert doubts.due() == {"u"}
