"""vknix.core.decide: the table, its two folds, and which containers start."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import ROOT, container, ended, facts, pod, running, stopped
from vknix.core import decide, failing
from vknix.core.decide import TABLE, Column, Row, Step, Turn
from vknix.core.facts import ContainerFacts, ImageFacts, ImageState, PodFacts, State
from vknix.core.pod import Pod

TOLD = {"containerStatuses": [{"name": "main", "containerID": "systemd-nspawn://x", "state": {"running": {}}}]}
NOW = 100.0
PULLING = ImageFacts(ROOT, ImageState.PULLING)


def test_the_table_is_complete() -> None:
    assert set(TABLE) == {(row, column) for row in Row for column in Column}


@pytest.mark.parametrize("row", Row)
def test_lost_decides_nothing(row: Row) -> None:
    assert TABLE[row, Column.LOST] is Step.WAIT


def test_only_wanted_pods_work_and_only_absent_ones_are_forgotten() -> None:
    assert {row for (row, _), step in TABLE.items() if step is Step.WORK} == {Row.WANTED}
    assert {key for key, step in TABLE.items() if step in (Step.CONFIRM, Step.FORGET)} == {
        (Row.LEAVING, Column.NOTHING),
        (Row.GONE, Column.NOTHING),
    }


def test_nothing_is_cleaned_while_anything_may_run() -> None:
    assert {column for (_, column), step in TABLE.items() if step is Step.CLEAN} == {Column.STOPPED}


@pytest.mark.parametrize(
    ("of", "row"),
    [
        (None, Row.GONE),
        (pod(), Row.WANTED),
        (pod(leaving=True), Row.LEAVING),
        (pod(leaving=True, status={"phase": "Failed"}), Row.LEAVING),
        (pod(status={"phase": "Succeeded"}), Row.DONE),
        (pod(status={"phase": "Running"}), Row.WANTED),
    ],
    ids=["gone", "wanted", "leaving", "leaving and failed", "done", "runs"],
)
def test_row(of: Pod | None, row: Row) -> None:
    assert decide.row(of, NOW) is row


@pytest.mark.parametrize(("now", "row"), [(1767323049.9, Row.WANTED), (1767323050.0, Row.FAILING)])
def test_deadline_counts_from_the_start(now: float, row: Row) -> None:
    of = pod(activeDeadlineSeconds=5, status={"startTime": "2026-01-02T03:04:05Z"})
    assert failing.expires(of) == 1767323050.0
    assert decide.row(of, now) is row
    assert decide.row(pod(activeDeadlineSeconds=5), now) is Row.WANTED


def of_state(state: State, name: str = "main") -> ContainerFacts:
    return ContainerFacts(name, state, 0, exits=(ended(),) if state is State.STOPPED else ())


@pytest.mark.parametrize(
    ("of", "column"),
    [
        (None, Column.NOTHING),
        (facts(), Column.STOPPED),
        (facts(images=(PULLING,)), Column.STOPPED),
        (facts(of_state(State.PREPARING)), Column.PREPARING),
        (facts(of_state(State.STOPPED)), Column.STOPPED),
        (facts(of_state(State.STOPPED, "a"), of_state(State.PREPARING, "b")), Column.PREPARING),
        (facts(of_state(State.STOPPING, "a"), of_state(State.PREPARING, "b")), Column.STOPPING),
        (facts(of_state(State.STOPPING, "a"), of_state(State.RUNNING, "b")), Column.RUNNING),
        (facts(of_state(State.STOPPED, "a"), stopped("b", ended(1), host_restarts=True)), Column.STOPPING),
    ],
    ids=[
        "nothing",
        "a sandbox",
        "a pull",
        "preparing",
        "stopped",
        "one prepares",
        "one stops",
        "one runs",
        "its host restarts one",
    ],
)
def test_column(of: PodFacts | None, column: Column) -> None:
    assert decide.column(of, lost=False) is column
    assert decide.column(of, lost=True) is Column.LOST


@pytest.mark.parametrize("of", [pod(leaving=True), None], ids=["leaving", "gone"])
def test_a_pod_that_never_began_is_cleaned_and_not_stopped_for_ever(of: Pod | None) -> None:
    assert decide.step(of, facts(images=(PULLING,)), NOW, lost=False) is Step.CLEAN


@pytest.mark.parametrize(
    ("of", "seen", "turn"),
    [
        pytest.param(pod(), None, Turn(("main",)), id="new"),
        pytest.param(pod(), facts(), Turn(("main",)), id="a sandbox alone"),
        pytest.param(pod(), facts(images=(PULLING,)), Turn(), id="pulling"),
        pytest.param(
            pod(), facts(images=(ImageFacts(ROOT, ImageState.FAILED, retry_at=150.0),)), Turn(until=150.0), id="pull failed"
        ),
        pytest.param(pod(), facts(images=(ImageFacts(ROOT, ImageState.FAILED, retry_at=100.0),)), Turn(("main",)), id="pull again"),
        pytest.param(pod(), facts(running()), Turn(), id="runs"),
        pytest.param(pod(), facts(of_state(State.PREPARING)), Turn(), id="is being made"),
        pytest.param(pod(), facts(stopped("main", ended(0, finished=100.0))), Turn(("main",)), id="first restart at once"),
        pytest.param(
            pod(), facts(stopped("main", ended(0), ended(0, 1, finished=95.0))), Turn(until=105.0), id="second after ten seconds"
        ),
        pytest.param(pod(), facts(stopped("main", ended(0), ended(0, 1), host_restarts=True)), Turn(), id="the host's to restart"),
        pytest.param(
            pod(), facts(stopped("main", ended(0, finished=100.0), host_restarts=True)), Turn(("main",)), id="not its first"
        ),
        pytest.param(pod(restart="Never"), facts(stopped("main", ended(1))), Turn(over=True), id="never again"),
        pytest.param(pod(restart="OnFailure"), facts(stopped("main", ended(0))), Turn(over=True), id="it went well"),
        pytest.param(pod(restart="OnFailure"), facts(stopped("main", ended(1, finished=9.0))), Turn(("main",)), id="it failed"),
        pytest.param(pod(restart="Never", status=TOLD), None, Turn(over=True), id="lost, never again"),
        pytest.param(pod(restart="Always", status=TOLD), None, Turn(("main",)), id="lost, again"),
        pytest.param(pod(restart="Never", status=TOLD), facts(), Turn(over=True), id="lost but for its sandbox"),
        pytest.param(
            pod(container("a"), container("main")), facts(running("a"), stopped("main", ended(1))), Turn(("main",)), id="one of two"
        ),
    ],
)
def test_which_containers_start(of: Pod, seen: PodFacts | None, turn: Turn) -> None:
    assert decide.containers(of, seen, 100.0) == turn


states = st.sampled_from([State.PREPARING, State.RUNNING, State.STOPPING])


@given(states, st.sampled_from(["Always", "OnFailure", "Never"]), st.integers(0, 5), st.booleans())
def test_an_attempt_that_is_under_way_is_never_started_again(state: State, policy: str, attempt: int, told: bool) -> None:
    of = pod(restart=policy, status=TOLD if told else {})
    seen = facts(ContainerFacts("main", state, attempt, exits=(ended(1, attempt - 1),) if attempt else ()))
    assert decide.containers(of, seen, 1e9) == Turn()


@given(st.lists(st.integers(0, 255), min_size=1, max_size=9), st.floats(0, 1e6))
def test_never_means_once(codes: list[int], now: float) -> None:
    seen = facts(stopped("main", *(ended(code, index) for index, code in enumerate(codes))))
    assert decide.containers(pod(restart="Never"), seen, now) == Turn(over=True)


@pytest.mark.parametrize(
    ("told", "never"),
    [
        ({}, True),
        ({"state": {"waiting": {"reason": "ContainerCreating"}}}, True),
        ({"containerID": "systemd-nspawn://x"}, False),
        ({"containerID": "", "lastState": {"terminated": {}}}, False),
        ({"lastState": {}}, True),
    ],
)
def test_never_ran(told: dict[str, Any], never: bool) -> None:
    assert decide.never_ran(pod(status={"containerStatuses": [{"name": "main", **told}]}), "main") is never
