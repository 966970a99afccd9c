"""tests.bench.kubelet_rules and truths: a Pod's life as a kubelet tells it breaks no rule, and each lie is found."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.bench import kubelet_rules, truths
from tests.bench.making import Reaches
from tests.bench.programs import Truth

Json = dict[str, Any]

CONDITIONS = ("PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}Z"


def end(code: int, number: int) -> Json:
    reason = "Error" if code else "Completed"
    times = {"startedAt": at(10 + 2 * number), "finishedAt": at(11 + 2 * number)}
    return {"terminated": {"exitCode": code, "reason": reason, **times, "containerID": f"x://{number}"}}


def container(state: Json, *, number: int | None = None, restarts: int = 0, last: Json | None = None, up: bool = False) -> Json:
    return {
        "name": "main",
        "state": state,
        "lastState": last or {},
        "restartCount": restarts,
        "containerID": f"x://{number}" if number is not None else "",
        "imageID": "nix:0" if number is not None else "",
        "ready": up,
        "started": up,
    }


def pod(phase: str, main: Json, *, true: tuple[str, ...] = CONDITIONS, leaving: bool = False) -> Json:
    conditions = [
        {"type": kind, "status": "True" if kind in true else "False", "lastTransitionTime": at(len(kind)), "reason": "R"}
        for kind in CONDITIONS
    ]
    marks = {"deletionTimestamp": at(20), "deletionGracePeriodSeconds": 2} if leaving else {}
    return {
        "metadata": {"name": "web", "generation": 1, **marks},
        "spec": {"restartPolicy": "OnFailure", "containers": [{"name": "main"}]},
        "status": {
            "phase": phase,
            "startTime": at(1),
            "podIP": "10.0.0.2",
            "podIPs": [{"ip": "10.0.0.2"}],
            "hostIP": "192.0.2.1",
            "observedGeneration": 1,
            "conditions": conditions,
            "containerStatuses": [main],
        },
    }


def running(number: int) -> Json:
    return {"running": {"startedAt": at(10 + 2 * number)}}


NEW = pod("Pending", container({"waiting": {"reason": "ContainerCreating"}}), true=("PodScheduled", "Initialized"))
UP = pod("Running", container(running(0), number=0, up=True))
DOWN = pod("Running", container(end(3, 0), number=0), true=CONDITIONS[:3])
AGAIN = pod("Running", container(running(1), number=1, restarts=1, last=end(3, 0), up=True))
WAITS = pod(
    "Running",
    container({"waiting": {"reason": "CrashLoopBackOff"}}, number=1, restarts=1, last=end(3, 1)),
    true=CONDITIONS[:3],
)
OVER = pod("Failed", container(end(3, 1), number=1, restarts=1, last=end(3, 0)), true=("PodScheduled", "Initialized"), leaving=True)
LIFE = (NEW, UP, DOWN, AGAIN, WAITS, OVER)


def test_a_life_breaks_no_rule() -> None:
    assert kubelet_rules.broken(LIFE) == []
    assert truths.broken(LIFE, {"main": Truth(codes=frozenset({3}))}, away=False) == []
    assert truths.last_word(LIFE, forced=False) == []


def lie(of: Json, change: Callable[[Json, Json], object]) -> Json:
    """`change` gets the status of the Pod and of its container."""
    made = deepcopy(of)
    change(made["status"], made["status"]["containerStatuses"][0])
    return made


LIES: dict[str, tuple[tuple[Json, ...], str]] = {
    "phase goes back": ((UP, NEW), "Running became Pending"),
    "an end is undone": ((OVER, UP), "Failed became Running"),
    "a count goes back": ((AGAIN, UP), "main: restartCount went back"),
    "a lost end": (
        (UP, lie(AGAIN, lambda _, main: main.update(lastState={}))),
        "main: the end of the attempt before is not in lastState",
    ),
    "another code": (
        (DOWN, lie(AGAIN, lambda _, main: main["lastState"]["terminated"].update(exitCode=4))),
        "main: an end was told as Error 3",
    ),
    "another message": (
        (
            lie(DOWN, lambda _, main: main["state"]["terminated"].update(message="why")),
            lie(DOWN, lambda _, main: main["state"]["terminated"].update(message="what")),
        ),
        "main: an end was told as Error 3",
    ),
    "another start": (
        (UP, lie(DOWN, lambda _, main: main["state"]["terminated"].update(startedAt=at(9)))),
        "main: ran since 2026-01-01T00:00:10Z, and had begun at 2026-01-01T00:00:09Z",
    ),
    "an unknown wait": (
        (lie(NEW, lambda _, main: main["state"]["waiting"].update(reason="Thinking")),),
        "main: waits for 'Thinking'",
    ),
    "ready and not started": ((lie(UP, lambda _, main: main.update(started=False)),), "main: ready before it has started"),
    "up and not ready": ((lie(UP, lambda _, main: main.update(ready=False)),), "main: has started, has no readiness probe"),
    "ready, and over": ((lie(DOWN, lambda _, main: main.update(ready=True)),), "main: is not running, and ready or started"),
    "backwards": (
        (lie(DOWN, lambda _, main: main["state"]["terminated"].update(finishedAt=at(2))),),
        "main: ended before it began",
    ),
    "no ID": ((lie(UP, lambda _, main: main.update(containerID="")),), "main: runs without an ID"),
    "lost": (
        (lie(DOWN, lambda _, main: main["state"]["terminated"].update(reason="ContainerStatusUnknown", exitCode=137)),),
        "main: is lost on a host that is up",
    ),
    "no container": ((lie(UP, lambda status, _: status.update(containerStatuses=[])),), "containerStatuses are [], not ['main']"),
    "rejected in silence": (
        (lie(UP, lambda status, _: status.update(phase="Failed", containerStatuses=[])),),
        "rejected without a reason",
    ),
    "a success that is none": (
        (lie(OVER, lambda status, _: status.update(phase="Succeeded")),),
        "Succeeded without an exit code 0",
    ),
    "ended and running": ((lie(UP, lambda status, _: status.update(phase="Failed")),), "Failed while a container runs"),
    "ready in parts": (
        (lie(UP, lambda status, _: status["conditions"][3].update(status="False")),),
        "Ready with ContainersReady False",
    ),
    "a condition less": ((lie(UP, lambda status, _: status["conditions"].pop()),), "it lacks the conditions Ready"),
    "a time that moves": (
        (UP, lie(UP, lambda status, _: status["conditions"][0].update(lastTransitionTime=at(50)))),
        "PodScheduled has a new time and the old status",
    ),
    "another address": (
        (UP, lie(UP, lambda status, _: status.update(podIP="10.0.0.3", podIPs=[{"ip": "10.0.0.3"}]))),
        "podIP changed",
    ),
    "the future": ((lie(UP, lambda status, _: status.update(observedGeneration=2)),), "observedGeneration is of the future"),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_are_found(name: str) -> None:
    seen, found = LIES[name]
    assert any(each.startswith(found) for each in kubelet_rules.broken(seen)), kubelet_rules.broken(seen)


def test_a_message_may_become_shorter() -> None:
    long = lie(DOWN, lambda _, main: main["state"]["terminated"].update(message="why"))
    short = lie(DOWN, lambda _, main: main["state"]["terminated"].update(message="w"))
    assert kubelet_rules.broken((NEW, UP, long, short)) == []


def ruled(of: Json) -> Json:
    rules = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [3]}}]
    return {**of, "spec": {**of["spec"], "containers": [{"name": "main", "restartPolicy": "Never", "restartPolicyRules": rules}]}}


def test_a_container_may_be_restarted_with_all_others_where_a_rule_says_so() -> None:
    """It counts as if it had not run."""
    reason = {"reason": "RestartingAllContainers"}
    past = {"terminated": {**end(3, 0)["terminated"], **reason, "exitCode": 137}}
    waits = pod("Running", container({"waiting": reason}, restarts=1, last=past), true=CONDITIONS[:3])
    again = pod("Running", container(running(1), number=1, restarts=1, last=past, up=True))
    assert kubelet_rules.broken([ruled(of) for of in (NEW, UP, DOWN, waits, again)]) == []
    begins = pod("Pending", container({"waiting": {"reason": "PodInitializing"}}, restarts=1, last=past), true=CONDITIONS[:3])
    assert kubelet_rules.broken([ruled(of) for of in (NEW, UP, DOWN, waits, begins, again)]) == []
    assert kubelet_rules.broken([ruled(of) for of in (NEW, UP, DOWN, waits, WAITS)]) == []  # it has begun and ended unseen
    found = kubelet_rules.broken((NEW, UP, DOWN, waits, again))
    assert found == [
        "main: waits for 'RestartingAllContainers'",
        "main: was restarted with all others, and no rule says so",
    ]


def test_words_of_the_scheduler_are_not_a_kubelets() -> None:
    words = [{"type": "PodScheduled", "status": "False", "lastTransitionTime": at(second)} for second in (1, 2)]
    unbound = [{**NEW, "status": {"phase": "Pending", "conditions": [word]}} for word in words]
    assert kubelet_rules.broken((*unbound, NEW, UP)) == []


def test_a_container_that_backs_off_has_not_ended_again() -> None:
    wanted = pod("Running", container(end(3, 1), number=1, restarts=1, last=end(3, 0)), true=CONDITIONS[:3])
    assert kubelet_rules.broken((WAITS, wanted)) == ["main: backed off, and has ended again"]


@pytest.mark.parametrize(
    ("truth", "found"),
    [
        (Truth(codes=frozenset({4})), "main: ended with 3 (Error) of [4] though nothing has stopped it"),
        (Truth(), "main: ended with 3 (Error) of [] though nothing has stopped it"),
        (Truth(codes=frozenset({4}), disturbed=True), "main: ended with 3 (Error) of [4, 137, 143]"),
    ],
)
def test_ends_are_what_programs_gave(truth: Truth, found: str) -> None:
    assert found in truths.broken(LIFE, {"main": truth}, away=False)


def test_nothing_begins_once_its_pod_is_to_go() -> None:
    late = pod("Running", container({"running": {"startedAt": at(30)}}, number=0, up=True), leaving=True)
    assert truths.broken((late,), {"main": Truth()}, away=False) == ["main: began 12 s after its Pod was deleted"]
    assert truths.broken((late,), {"main": Truth()}, away=True) == []


@pytest.mark.parametrize(
    ("begun", "found"),
    [
        ({"a": {"main": 2}}, []),
        ({"a": {"main": 1}, "b": {"main": 1}}, ["main: began on a and b"]),
        ({"a": {"main": 3}}, ["main: began 3 times, and 2 were told"]),
        ({"a": {"main": 1}}, ["main: 2 attempts were told, and it began 1 times"]),
    ],
)
def test_starts_are_what_hosts_saw(begun: dict[str, dict[str, int]], found: list[str]) -> None:
    truth = {"main": Truth(codes=frozenset({3}))}
    assert list(truths.starts(OVER, truth, begun, forced=False)) == found


def test_a_pod_is_gone_only_once_it_has_ended() -> None:
    assert truths.last_word((UP,), forced=False) == ["gone in phase Running"]
    assert truths.last_word((UP,), forced=True) == []


def test_what_is_refused_is_told_so() -> None:
    assert truths.held_back((NEW, UP), Reaches.REFUSED) == ["is to be refused, and was ['Pending', 'Running']"]
    odd = lie(OVER, lambda status, _: status.update(reason="OutOfcpu"))
    assert truths.held_back((odd,), Reaches.RUNNING) == ["was refused: OutOfcpu"]
