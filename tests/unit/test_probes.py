"""vknix.core.probes: thresholds, and what results make of a container."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import container, ended, facts, pod, running, stopped
from vknix.core import pod as pods
from vknix.core import probes
from vknix.core.container import Probe
from vknix.core.facts import ContainerFacts, State
from vknix.core.pod import Member, Pod
from vknix.core.probes import Probed, ProbeKind, Run

EXEC: dict[str, Any] = {"exec": {"command": ["true"]}}
SOON: dict[str, Any] = {**EXEC, "terminationGracePeriodSeconds": 3}
STARTED, READY = Probed(0, started=True, ready=False), Probed(0, started=True, ready=True)
NOTHING_YET = Probed(0, started=False, ready=False)


def one(*kinds: str, how: dict[str, Any] = EXEC, restart: str = "Always", **fields: Any) -> Pod:
    asked: dict[str, Any] = {f"{kind}Probe": how for kind in kinds}
    return pod(container(**asked, **fields), restart=restart)


def member(of: Pod) -> Member:
    return next(pods.members(of))


def results(text: str, probe: Probe) -> list[bool | None]:
    """What holds after each of the results, written + and -."""
    run, held = Run(), []
    for each in text:
        run = probes.step(run, probe, success=each == "+")
        held.append(run.passing)
    return held


@pytest.mark.parametrize(
    ("success", "failure", "text", "held"),
    [
        pytest.param(1, 3, "+", [True], id="one success"),
        pytest.param(1, 3, "---", [None, None, False], id="three failures"),
        pytest.param(1, 3, "+--+", [True, True, True, True], id="two are too few"),
        pytest.param(1, 3, "+--+--", [True] * 6, id="not in a row"),
        pytest.param(1, 3, "+---+", [True, True, True, False, True], id="there and back"),
        pytest.param(2, 1, "++-+-++", [None, True, False, False, False, False, True], id="two successes"),
        pytest.param(1, 1, "-+-", [False, True, False], id="each counts"),
    ],
)
def test_a_result_holds_when_it_came_as_often_as_its_threshold(
    success: int, failure: int, text: str, held: list[bool | None]
) -> None:
    assert results(text, Probe(success_threshold=success, failure_threshold=failure)) == held


@given(st.text("+-", max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_what_holds_came_that_often_in_a_row(text: str, success: int, failure: int) -> None:
    held = [None, *results(text, Probe(success_threshold=success, failure_threshold=failure))]
    for number, (before, after) in enumerate(pairwise(held), 1):
        if after is not before:
            row = text[:number]
            assert row.endswith("+" * success if after else "-" * failure)


@pytest.mark.parametrize(
    ("kinds", "first"),
    [
        ((), READY),
        (("liveness",), READY),
        (("readiness",), STARTED),
        (("startup",), NOTHING_YET),
        (("startup", "liveness", "readiness"), NOTHING_YET),
    ],
    ids=["none", "liveness", "readiness", "startup", "all"],
)
def test_before_the_first_result(kinds: tuple[str, ...], first: Probed) -> None:
    assert probes.before(member(one(*kinds)).container, 0) == first


@pytest.mark.parametrize(
    ("kinds", "before", "kind", "passing", "after"),
    [
        pytest.param(("startup",), NOTHING_YET, ProbeKind.STARTUP, None, NOTHING_YET, id="startup: nothing holds yet"),
        pytest.param(("startup",), NOTHING_YET, ProbeKind.STARTUP, True, READY, id="startup passed"),
        pytest.param(("startup", "readiness"), NOTHING_YET, ProbeKind.STARTUP, True, STARTED, id="startup passed, readiness next"),
        pytest.param(("readiness",), STARTED, ProbeKind.READINESS, True, READY, id="ready"),
        pytest.param(("readiness",), READY, ProbeKind.READINESS, False, STARTED, id="not any more"),
        pytest.param(("readiness",), READY, ProbeKind.READINESS, None, READY, id="taken over as ready"),
        pytest.param(("liveness",), READY, ProbeKind.LIVENESS, True, READY, id="lives"),
    ],
)
def test_after(kinds: tuple[str, ...], before: Probed, kind: ProbeKind, passing: bool | None, after: Probed) -> None:
    assert probes.after(before, member(one(*kinds)), kind, Run(passing)) == after


@pytest.mark.parametrize(
    ("kind", "policy", "again"),
    [
        (ProbeKind.LIVENESS, "Always", ", will be restarted"),
        (ProbeKind.LIVENESS, "OnFailure", ", will be restarted"),
        (ProbeKind.LIVENESS, "Never", ""),
        (ProbeKind.STARTUP, "Always", ", will be restarted"),
    ],
)
def test_failed_liveness_and_startup_are_the_end_in_the_kubelets_words(kind: ProbeKind, policy: str, again: str) -> None:
    """Until it has ended it is as ready as it was."""
    of = member(one(kind.value, how=SOON, restart=policy))
    before = probes.before(of.container, 4)
    made = probes.after(before, of, kind, Run(passing=False))
    assert (made.attempt, made.ready, made.grace_s) == (4, before.ready, 3)
    assert made.doomed == f"Container main failed {kind.value} probe{again}"


def test_sidecar_is_restarted_whatever_the_policy_of_its_pod() -> None:
    of = pod(initContainers=[container("side", restartPolicy="Always", livenessProbe=EXEC)], restart="Never")
    made = probes.after(READY, member(of), ProbeKind.LIVENESS, Run(passing=False))
    assert made.doomed.endswith(", will be restarted")
    assert made.grace_s is None


SICK = Probed(1, started=True, ready=False, doomed="Container main failed", grace_s=3)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        pytest.param(running("main", 1), True, id="the attempt that runs"),
        pytest.param(ContainerFacts("main", State.STOPPING, 1), True, id="as it ends"),
        pytest.param(running("main", 2), False, id="a later attempt"),
        pytest.param(ContainerFacts("main", State.PREPARING, 1), False, id="one that is being made"),
        pytest.param(stopped("main", ended(137, 1)), False, id="one that has ended"),
        pytest.param(running("other", 1), False, id="another container"),
    ],
)
def test_applied_to_the_attempt_that_was_probed(seen: ContainerFacts, told: bool) -> None:
    (made,) = probes.applied(facts(seen), {"main": SICK}).containers.values()
    assert ((made.up, made.ready, made.doomed, made.grace_s) == (True, False, SICK.doomed, 3)) is told
    assert (made == seen) is not told


def test_attempt_that_nobody_has_probed_yet_is_neither_started_nor_ready() -> None:
    made = probes.unprobed(one("startup"), facts(running(), running("stranger"))).containers
    assert (made["main"].up, made["main"].ready) == (False, False)
    assert (made["stranger"].up, made["stranger"].ready) == (True, True)


@pytest.mark.parametrize(
    ("asked", "port"),
    [(80, 80), ("web", 8080), ("443", 443), ("none", None)],
    ids=["number", "name", "number as text", "no such name"],
)
def test_port(asked: int | str, port: int | None) -> None:
    of = member(one(ports=[{"containerPort": 8080, "name": "web"}, {"containerPort": 9}]))
    assert probes.port(of.container, asked) == port
