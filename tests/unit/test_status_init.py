"""vknix.core.status and container_status: what init containers, sidecars and probes make of phases and conditions."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.build import container, ended, facts, pod, running, stopped, view
from tests.unit.test_status import condition
from vknix.core.facts import ContainerFacts, PodFacts, State
from vknix.core.pod import Pod
from vknix.core.status import pod_status

INIT = container("init")
SIDE = container("side", restartPolicy="Always")
DONE, FAILED = stopped("init", ended()), stopped("init", ended(3))
CRASHES = stopped("init", ended(3), ended(3, 1))
NOT_UP = replace(running("side"), up=False, ready=False)
NOT_READY = replace(running("side"), ready=False)


def of(*before: dict[str, Any], **fields: Any) -> Pod:
    return pod(initContainers=list(before), **fields)


def exits(name: str, code: int) -> ContainerFacts:
    return stopped(name, ended(code))


def waiting(status: dict[str, Any]) -> str:
    return str(status["state"].get("waiting", {}).get("reason", ""))


@pytest.mark.parametrize(
    ("policy", "before", "seen", "phase"),
    [
        pytest.param("Always", [INIT], None, "Pending", id="new"),
        pytest.param("Always", [INIT], facts(running("init")), "Pending", id="init runs"),
        pytest.param("Always", [INIT], facts(DONE), "Pending", id="init is done"),
        pytest.param("Always", [INIT], facts(CRASHES), "Pending", id="init crashes"),
        pytest.param("Always", [INIT], facts(DONE, running()), "Running", id="main runs"),
        pytest.param("Never", [INIT], facts(FAILED), "Failed", id="init failed for good"),
        pytest.param("OnFailure", [INIT], facts(FAILED), "Pending", id="init failed and is tried again"),
        pytest.param("Never", [SIDE, INIT], facts(running("side"), FAILED), "Pending", id="init failed, a sidecar runs"),
        pytest.param("Never", [SIDE, INIT], facts(exits("side", 143), FAILED), "Failed", id="and then it does not"),
        pytest.param("Never", [SIDE], facts(NOT_UP), "Pending", id="a sidecar starts"),
        pytest.param("Never", [SIDE], facts(running("side"), exits("main", 0)), "Running", id="main is over, its sidecar runs"),
        pytest.param("Never", [SIDE], facts(exits("side", 137), exits("main", 0)), "Succeeded", id="its exit code does not count"),
        pytest.param("Never", [SIDE], facts(exits("side", 0), exits("main", 1)), "Failed", id="main's does"),
        pytest.param("Always", [INIT], facts(running("init", 1, ended()), exits("main", 137)), "Pending", id="init runs anew"),
    ],
)
def test_phase(policy: str, before: list[dict[str, Any]], seen: PodFacts | None, phase: str) -> None:
    assert pod_status(of(*before, restart=policy), view(seen))["phase"] == phase


@pytest.mark.parametrize(
    ("seen", "phase"),
    [(facts(running("init")), "Pending"), (facts(exits("init", 137)), "Failed"), (None, "Failed")],
    ids=["while it stops", "when it has", "when nothing is left"],
)
def test_leaving_pod_that_was_initialising_fails(seen: PodFacts | None, phase: str) -> None:
    assert pod_status(of(INIT, leaving=True), view(seen))["phase"] == phase


@pytest.mark.parametrize(
    ("before", "seen", "lacking"),
    [
        pytest.param([INIT, SIDE], None, "init side", id="none has begun"),
        pytest.param([INIT, SIDE], facts(DONE), "side", id="one is done"),
        pytest.param([INIT, SIDE], facts(FAILED), "init side", id="one failed"),
        pytest.param([INIT, SIDE], facts(DONE, NOT_UP), "side", id="a sidecar starts"),
        pytest.param([INIT, SIDE], facts(DONE, NOT_READY), "", id="a sidecar need not be ready"),
        pytest.param([INIT, SIDE], facts(DONE, exits("side", 1), running()), "", id="main has started: it stays"),
        pytest.param([], None, "", id="nothing to do"),
    ],
)
def test_initialized(before: list[dict[str, Any]], seen: PodFacts | None, lacking: str) -> None:
    made = condition(pod_status(of(*before), view(seen)), "Initialized")
    assert (made["status"], made["reason"], made["message"]) == (
        ("False", "ContainersNotInitialized", f"containers with incomplete status: [{lacking}]")
        if lacking
        else ("True", None, None)
    )


def test_pod_that_succeeded_was_initialised() -> None:
    made = pod_status(of(INIT, restart="Never"), view(facts(DONE, exits("main", 0))))
    assert (condition(made, "Initialized")["status"], condition(made, "Initialized")["reason"]) == ("True", "PodCompleted")


def test_pod_that_failed_stays_as_initialised_as_it_was() -> None:
    """Its host has nothing of it any more."""
    ends = [
        {"name": name, "containerID": f"x://{name}", "state": {"terminated": {"exitCode": code}}}
        for name, code in (("side", 0), ("main", 1))
    ]
    for was in ("True", "False"):
        told = {"conditions": [{"type": "Initialized", "status": was}], "initContainerStatuses": ends[:1]}
        leaving = of(SIDE, leaving=True, status={**told, "containerStatuses": ends[1:]})
        made = pod_status(leaving, view())
        assert (made["phase"], condition(made, "Initialized")["status"]) == ("Failed", was)


def test_new_sandbox_is_not_initialised() -> None:
    seen = facts(DONE, exits("main", 137), since=1000.0)
    assert condition(pod_status(of(INIT, SIDE), view(seen)), "Initialized")["status"] == "False"


@pytest.mark.parametrize("seen", [None, facts(running("init"))], ids=["new", "init runs"])
def test_all_that_waits_in_a_pod_with_init_containers_is_initialising(seen: PodFacts | None) -> None:
    made = pod_status(of(INIT, container("next")), view(seen))
    assert [waiting(each) for each in made["containerStatuses"]] == ["PodInitializing"]
    assert waiting(made["initContainerStatuses"][1]) == "PodInitializing"


def test_init_statuses_keep_their_order() -> None:
    made = pod_status(of(container("z"), container("a")), view())
    assert [each["name"] for each in made["initContainerStatuses"]] == ["z", "a"]


@pytest.mark.parametrize(
    ("seen", "ready"), [(running("init"), False), (DONE, True), (FAILED, False), (CRASHES, False)], ids=["runs", "0", "3", "again"]
)
def test_init_container_is_ready_once_it_has_exited_0(seen: ContainerFacts, ready: bool) -> None:
    assert pod_status(of(INIT), view(facts(seen)))["initContainerStatuses"][0]["ready"] is ready


@pytest.mark.parametrize(
    ("seen", "lacking"),
    [
        (facts(DONE, running("side"), running()), ""),
        (facts(DONE, NOT_READY, running()), "side"),
        (facts(DONE, NOT_UP, replace(running(), ready=False)), "main side"),
        (facts(DONE, exits("side", 1), running()), "side"),
    ],
    ids=["all are", "a sidecar is not", "neither is", "a sidecar is away"],
)
def test_pod_is_ready_when_main_ones_and_sidecars_are(seen: PodFacts, lacking: str) -> None:
    made = condition(pod_status(of(INIT, SIDE), view(seen)), "ContainersReady")
    message = f"containers with unready status: [{lacking}]" if lacking else None
    assert (made["status"], made["message"]) == ("False" if lacking else "True", message)


@pytest.mark.parametrize(
    ("up", "ready", "told"),
    [(False, False, (False, False)), (True, False, (True, False)), (True, True, (True, True))],
    ids=["starts", "started", "ready"],
)
def test_what_probes_say_is_told(up: bool, ready: bool, told: tuple[bool, bool]) -> None:
    made = pod_status(pod(), view(facts(replace(running(), up=up, ready=ready))))
    status = made["containerStatuses"][0]
    assert (status["started"], status["ready"], made["phase"]) == (*told, "Running")


def test_stopping_container_that_is_not_ready_does_not_become_so() -> None:
    seen = replace(running(), state=State.STOPPING, ready=False)
    assert pod_status(pod(leaving=True), view(facts(seen)))["containerStatuses"][0]["ready"] is False
