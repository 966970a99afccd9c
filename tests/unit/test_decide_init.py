"""vknix.core.decide: the order of init containers and sidecars, up and down."""

from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import container, ended, facts, pod, running, stopped
from vknix.core import decide, ending
from vknix.core.decide import Step, Turn
from vknix.core.facts import ContainerFacts, PodFacts, State
from vknix.core.pod import Pod

NOW = 1000.0


def init(name: str) -> dict[str, Any]:
    return container(name)


def sidecar(name: str) -> dict[str, Any]:
    return container(name, restartPolicy="Always")


def of(*before: dict[str, Any], restart: str = "Always", main: tuple[str, ...] = ("main",), **fields: Any) -> Pod:
    return pod(*(container(name) for name in main), initContainers=list(before), restart=restart, **fields)


def done(name: str, code: int = 0, at: float = NOW) -> ContainerFacts:
    return stopped(name, ended(code, finished=at))


def starting(name: str) -> ContainerFacts:
    return ContainerFacts(name, State.PREPARING, 0)


def not_up(name: str) -> ContainerFacts:
    """Its startup probe has not passed."""
    return ContainerFacts(name, State.RUNNING, 0, up=False, ready=False)


TWO = of(init("one"), init("two"))
MIXED = of(init("one"), sidecar("side"), init("two"))
BESIDE = of(sidecar("first"), sidecar("second"), main=("main", "other"))


@pytest.mark.parametrize(
    ("wanted", "seen", "run"),
    [
        pytest.param(TWO, None, "one", id="the first alone"),
        pytest.param(TWO, facts(starting("one")), "", id="it starts"),
        pytest.param(TWO, facts(running("one")), "", id="it runs"),
        pytest.param(TWO, facts(done("one")), "two", id="it is done"),
        pytest.param(TWO, facts(done("one", 3)), "one", id="it failed, its first restart"),
        pytest.param(TWO, facts(done("one"), running("two")), "", id="the second runs"),
        pytest.param(TWO, facts(done("one"), done("two")), "main", id="all are done"),
        pytest.param(TWO, facts(done("one"), done("two"), starting("main")), "", id="main starts"),
        pytest.param(TWO, facts(done("one"), done("two"), done("main", 1)), "main", id="main alone is restarted"),
        pytest.param(MIXED, facts(done("one")), "side", id="a sidecar in its turn"),
        pytest.param(MIXED, facts(done("one"), starting("side")), "", id="a sidecar that starts holds back"),
        pytest.param(MIXED, facts(done("one"), not_up("side")), "", id="so does its startup probe"),
        pytest.param(MIXED, facts(done("one"), running("side")), "two", id="one that has started does not"),
        pytest.param(MIXED, facts(done("one"), done("side", 1), running("two")), "side", id="it is restarted while init runs"),
        pytest.param(MIXED, facts(done("one"), done("side", 1), done("two")), "side", id="and holds back again"),
        pytest.param(MIXED, facts(done("one"), running("side"), done("two")), "main", id="main beside it"),
        pytest.param(MIXED, facts(done("one"), done("side"), done("two"), running("main")), "side", id="it ends, main runs"),
        pytest.param(BESIDE, facts(running("first"), running("second")), "main other", id="main ones start together"),
        pytest.param(
            BESIDE, facts(running("first"), not_up("second"), running("main")), "other", id="main has begun: nothing waits"
        ),
    ],
)
def test_turn(wanted: Pod, seen: PodFacts | None, run: str) -> None:
    assert decide.containers(wanted, seen, NOW) == Turn(tuple(run.split()))


@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
def test_init_that_fails_again_waits_its_back_off(policy: str) -> None:
    seen = facts(stopped("one", ended(1), ended(1, 1, finished=NOW)))
    assert decide.containers(of(init("one"), restart=policy), seen, NOW) == Turn(until=NOW + 10)


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
def test_init_that_succeeds_is_never_restarted(policy: str) -> None:
    assert decide.containers(of(init("one"), restart=policy), facts(done("one"), running("main")), inf) == Turn()


def test_init_that_fails_ends_a_pod_of_never_and_stops_its_sidecars() -> None:
    wanted = of(sidecar("side"), init("one"), init("two"), restart="Never")
    failed = facts(running("side"), done("one", 3))
    assert decide.failed_init(wanted, failed)
    assert decide.containers(wanted, failed, NOW) == Turn(over=True)


@pytest.mark.parametrize("since", [500.0, inf], ids=["made anew", "not made yet"])
@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
def test_new_sandbox_begins_with_the_first_init_container(policy: str, since: float) -> None:
    wanted = of(init("one"), init("two"), restart=policy)
    seen = facts(done("one", at=100.0), done("two", at=200.0), done("main", 137, at=400.0), since=since)
    assert not decide.failed_init(wanted, seen)
    assert not decide.initialised(wanted, seen)
    assert decide.containers(wanted, seen, NOW) == Turn(("one",))


@pytest.mark.parametrize(
    ("one", "two", "run"),
    [
        (done("one", at=600.0), done("two", at=200.0), "two"),
        (running("one"), done("two", at=200.0), ""),
        (done("one", at=600.0), done("two", at=700.0), "main"),
    ],
    ids=["the first is done", "the first runs", "both are done"],
)
def test_new_sandbox_goes_through_all_of_them_once(one: ContainerFacts, two: ContainerFacts, run: str) -> None:
    seen = facts(one, two, done("main", 137, at=400.0), since=500.0)
    assert decide.containers(TWO, seen, NOW) == Turn(tuple(run.split()))


def test_init_of_a_new_sandbox_does_not_wait_for_a_back_off() -> None:
    seen = facts(stopped("one", *(ended(0, number, finished=NOW - 5) for number in range(5))), since=NOW)
    assert decide.containers(of(init("one")), seen, NOW) == Turn(("one",))


def test_new_sandbox_of_a_pod_of_never_that_has_run_runs_nothing() -> None:
    seen = facts(done("one", at=100.0), done("main", 137, at=400.0), since=500.0)
    assert decide.containers(of(init("one"), restart="Never"), seen, NOW) == Turn(over=True)


@pytest.mark.parametrize(
    ("wanted", "seen", "over"),
    [
        pytest.param(of(restart="Never"), None, False, id="new"),
        pytest.param(of(init("one"), restart="Never"), facts(done("one")), False, id="main never ran"),
        pytest.param(of(init("one"), restart="Never"), facts(done("one", 1)), True, id="init failed: it never will"),
        pytest.param(of(init("one"), restart="OnFailure"), facts(done("one", 1)), False, id="init is tried again"),
        pytest.param(of(restart="Never", main=("main", "other")), facts(done("main")), False, id="one of two never ran"),
        pytest.param(of(restart="Never"), facts(done("main")), True, id="main ended"),
        pytest.param(of(restart="Always"), facts(done("main")), False, id="main goes on"),
    ],
)
def test_over(wanted: Pod, seen: PodFacts | None, over: bool) -> None:
    assert decide.over(wanted, seen) is over


@pytest.mark.parametrize("state", [State.RUNNING, State.STOPPING])
def test_doomed_containers_are_stopped_while_others_are_started(state: State) -> None:
    sick = ContainerFacts("main", state, 0, doomed="Container main failed liveness probe, will be restarted")
    seen = facts(sick, done("other", 1))
    wanted = of(main=("main", "other"))
    assert decide.step(wanted, seen, NOW, lost=False) is Step.WORK
    assert [wish.name for wish in ending.of_doomed(wanted, seen)] == ["main"]
    assert decide.containers(wanted, seen, NOW) == Turn(("other",))


HOOKED: dict[str, Any] = {"lifecycle": {"postStart": {"sleep": {"seconds": 1}}}}


@pytest.mark.parametrize(
    ("one", "turn"),
    [
        pytest.param((), Turn(("one",)), id="it is to start"),
        pytest.param((starting("one"),), Turn(), id="it starts"),
        pytest.param((replace(running("one"), hooking=True),), Turn(), id="its hook runs"),
        pytest.param((running("one"),), Turn(("two", "three")), id="its hook has passed"),
        pytest.param(
            (stopped("one", ended(1), ended(1, 1, finished=NOW)),),
            Turn(("two", "three"), until=NOW + 10),
            id="it waits for its restart",
        ),
    ],
)
def test_post_start_hook_holds_up_the_containers_behind_it(one: tuple[ContainerFacts, ...], turn: Turn) -> None:
    wanted = pod(container("one", **HOOKED), container("two"), container("three"))
    assert decide.containers(wanted, facts(*one), NOW) == turn


kinds = st.lists(st.sampled_from(["init", "side"]), max_size=5)


@given(kinds, st.sampled_from(["Always", "OnFailure", "Never"]))
def test_each_start_is_one_at_a_time_and_in_order_until_the_main_ones(before: list[str], policy: str) -> None:
    names = [f"{kind}-{number}" for number, kind in enumerate(before)]
    wanted = of(*((sidecar if name.startswith("side") else init)(name) for name in names), restart=policy, main=("a", "b"))
    seen: list[ContainerFacts] = []
    for name in names:
        assert decide.containers(wanted, facts(*seen), NOW) == Turn((name,))
        assert decide.containers(wanted, facts(*seen, starting(name)), NOW) == Turn()
        seen.append(running(name) if name.startswith("side") else done(name))
    assert decide.containers(wanted, facts(*seen), NOW) == Turn(("a", "b"))
