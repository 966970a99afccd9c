"""vknix.core.status: phases, conditions, and patches that the API server turns into what is wanted."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import container, ended, facts, pod, running, stopped, told, view
from vknix.core import status
from vknix.core.container_status import View
from vknix.core.facts import ContainerFacts, Exit, PodFacts, State
from vknix.core.pod import Pod
from vknix.core.status import patch, pod_status
from vknix.errors import Refused

TWO = (container("a"), container("b"))
RAN: dict[str, Any] = {
    "phase": "Running",
    "containerStatuses": [{"name": "main", "containerID": "x://1", "state": {"running": {}}, "ready": True}],
}


def condition(of: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(dict(each) for each in of["conditions"] if each["type"] == kind)


def make(name: str, kind: str) -> ContainerFacts:
    """`kind`: runs, starts, or an exit code; a trailing + is a back-off after it."""
    if kind == "runs":
        return running(name)
    if kind == "starts":
        return ContainerFacts(name, State.PREPARING, 0)
    code = int(kind.rstrip("+"))
    return stopped(name, *(ended(code, attempt) for attempt in range(3 if kind.endswith("+") else 1)))


@pytest.mark.parametrize(
    ("policy", "kinds", "phase"),
    [
        ("Always", ("runs", "runs"), "Running"),
        ("Always", ("runs", "starts"), "Pending"),
        ("Always", ("runs",), "Pending"),
        ("Always", (), "Pending"),
        ("Always", ("0", "0"), "Running"),
        ("Always", ("1+", "1+"), "Running"),
        ("Always", ("1+", "runs"), "Running"),
        ("OnFailure", ("0", "0"), "Succeeded"),
        ("OnFailure", ("0", "1"), "Running"),
        ("OnFailure", ("1+", "0"), "Running"),
        ("OnFailure", ("0", "runs"), "Running"),
        ("Never", ("0", "0"), "Succeeded"),
        ("Never", ("0", "1"), "Failed"),
        ("Never", ("1", "runs"), "Running"),
        ("Never", ("1",), "Pending"),
    ],
)
def test_phase(policy: str, kinds: tuple[str, ...], phase: str) -> None:
    seen = facts(*(make(name, kind) for name, kind in zip("ab", kinds, strict=False)))
    assert pod_status(pod(*TWO, restart=policy), view(seen))["phase"] == phase


@pytest.mark.parametrize(
    ("policy", "kinds", "phase"),
    [("Always", ("0", "0"), "Succeeded"), ("Always", ("0", "137"), "Failed"), ("Always", ("runs", "0"), "Running")],
)
def test_a_leaving_pod_ends_whatever_its_policy(policy: str, kinds: tuple[str, ...], phase: str) -> None:
    seen = facts(*(make(name, kind) for name, kind in zip("ab", kinds, strict=True)))
    assert pod_status(pod(*TWO, restart=policy, leaving=True), view(seen))["phase"] == phase


def test_a_leaving_pod_that_never_ran_has_failed_once_nothing_of_it_is_left() -> None:
    assert pod_status(pod(leaving=True), view(facts()))["phase"] == "Pending"
    assert pod_status(pod(leaving=True), view())["phase"] == "Failed"


def test_a_pod_that_was_lost_has_failed_or_starts_anew() -> None:
    assert pod_status(pod(restart="Never", status=RAN), view())["phase"] == "Failed"
    assert pod_status(pod(status=RAN), view())["phase"] == "Running"
    assert pod_status(pod(restart="Never", leaving=True, status=RAN), view())["phase"] == "Failed"


def test_lost_host_keeps_the_phase() -> None:
    made = pod_status(pod(status=RAN), view(facts(running()), lost="host a does not answer"))
    assert made["phase"] == "Running"
    assert made["containerStatuses"] == [{**RAN["containerStatuses"][0], "ready": False}]
    ready = condition(made, "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "HostUnreachable", "host a does not answer")


def test_a_rejected_pod_has_failed_with_the_reason() -> None:
    refused = Refused("spec.hostPID", "no", remedy="drop it")
    made = pod_status(pod(), view(refused=refused))
    assert (made["phase"], made["reason"]) == ("Failed", "PodFeatureUnsupported")
    assert made["message"] == "Pod was rejected: spec.hostPID: no; drop it"


views = st.builds(
    lambda seen, lost, refused: view(seen, lost=lost, refused=refused),
    st.one_of(st.none(), st.lists(st.sampled_from(["runs", "starts", "0", "1", "1+"]), max_size=2)).map(
        lambda kinds: None if kinds is None else facts(*(make(name, kind) for name, kind in zip("ab", kinds, strict=False)))
    ),
    st.sampled_from([None, "away"]),
    st.sampled_from([None, Refused("", "no")]),
)


@given(st.sampled_from(["Succeeded", "Failed"]), st.sampled_from(["Always", "OnFailure", "Never"]), st.booleans(), views)
def test_terminal_phases_never_un_happen(phase: str, policy: str, leaving: bool, how: View) -> None:
    assert pod_status(pod(*TWO, restart=policy, leaving=leaving, status={"phase": phase}), how)["phase"] == phase


@given(st.lists(views, min_size=1, max_size=6), st.sampled_from(["Always", "OnFailure", "Never"]))
def test_over_any_history_phase_and_counts_go_forward_only(history: list[View], policy: str) -> None:
    of, phases, counts = pod(*TWO, restart=policy), ["Pending"], {"a": 0, "b": 0}
    for how in history:
        of = told(of, apply(of.status, patch(of.status, pod_status(of, how))))
        phases.append(of.phase)
        for name in counts:
            count = of.told(name).get("restartCount", 0)
            assert count >= counts[name]
            counts[name] = count
    terminal = [phase for phase in phases if phase in ("Succeeded", "Failed")]
    assert phases[len(phases) - len(terminal) :] == terminal[:1] * len(terminal)


def test_all_conditions_of_a_running_pod() -> None:
    made = pod_status(pod(), view(facts(running())))
    assert {each["type"]: each["status"] for each in made["conditions"]} == dict.fromkeys(status.OWNED[:5], "True")
    assert {each["observedGeneration"] for each in made["conditions"]} == {made["observedGeneration"]} == {3}


@pytest.mark.parametrize(
    ("policy", "kinds", "reason", "message"),
    [
        ("Always", ("runs", "1+"), "ContainersNotReady", "containers with unready status: [b]"),
        ("Always", (), "ContainersNotReady", "containers with unready status: [a b]"),
        ("Never", ("0", "0"), "PodCompleted", None),
        ("Never", ("0", "1"), "PodFailed", None),
    ],
)
def test_why_a_pod_is_not_ready(policy: str, kinds: tuple[str, ...], reason: str, message: str | None) -> None:
    seen = facts(*(make(name, kind) for name, kind in zip("ab", kinds, strict=False)))
    made = pod_status(pod(*TWO, restart=policy), view(seen))
    for kind in ("Ready", "ContainersReady"):
        told_of = condition(made, kind)
        assert (told_of["status"], told_of["reason"], told_of["message"]) == ("False", reason, message)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ([], 'corresponding condition of pod readiness gate "x/y" does not exist.'),
        ([{"type": "x/y", "status": "False"}], 'the status of pod readiness gate "x/y" is not "True", but False'),
        ([{"type": "x/y", "status": "True"}], None),
    ],
)
def test_readiness_gates(conditions: list[dict[str, Any]], message: str | None) -> None:
    of = pod(readinessGates=[{"conditionType": "x/y"}], status={"conditions": conditions})
    made = pod_status(of, view(facts(running())))
    assert condition(made, "ContainersReady")["status"] == "True"
    ready = condition(made, "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == (
        ("True", None, None) if message is None else ("False", "ReadinessGatesNotReady", message)
    )


def test_transition_times_move_only_with_the_status() -> None:
    of = pod()
    first = apply({}, pod_status(of, view(facts(running()), now=100.0)))
    later = pod_status(told(of, first), view(facts(stopped("main", ended(1), ended(1, 1))), now=200.0))
    assert condition(later, "Ready")["lastTransitionTime"] == "1970-01-01T00:03:20Z"
    assert condition(later, "Initialized")["lastTransitionTime"] == "1970-01-01T00:01:40Z"
    assert later["startTime"] == "1970-01-01T00:01:40Z"


def test_container_statuses_are_sorted_and_complete() -> None:
    made = pod_status(pod(container("b"), container("a")), view(facts(running("b"))))
    assert [each["name"] for each in made["containerStatuses"]] == ["a", "b"]


def test_addresses_are_told_once_the_pod_is_placed() -> None:
    assert "podIP" not in pod_status(pod(), view(placed=False))
    made = pod_status(pod(), view())
    assert (made["podIP"], made["podIPs"], made["hostIP"]) == ("10.0.0.2", [{"ip": "10.0.0.2"}], "192.0.2.1")


MERGE_KEYS = {"conditions": "type", "podIPs": "ip", "hostIPs": "ip"}  # the patchMergeKey of PodStatus' lists; others are replaced


def apply(to: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A strategic merge patch on a PodStatus, as the API server does it; what is empty is left out of what it answers."""
    made = dict(to)
    for key, value in change.items():
        if value is None:
            made.pop(key, None)
        elif key in MERGE_KEYS:
            made[key] = _merged(made.get(key) or [], value, MERGE_KEYS[key])
        else:
            made[key] = value
    kept: dict[str, Any] = json.loads(json.dumps(_without_empty(made)))
    return kept


def _merged(to: list[dict[str, Any]], change: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    replace = {"$patch": "replace"} in change
    made = {} if replace else {each[key]: each for each in to}
    for each in change:
        if each != {"$patch": "replace"}:
            whole = {**made.get(each[key], {}), **each}
            made[each[key]] = {name: value for name, value in whole.items() if value is not None}
    return list(made.values())


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        made = {key: _without_empty(inner) for key, inner in value.items()}
        return {key: inner for key, inner in made.items() if inner is not None and inner not in ("", [], {})}
    return [_without_empty(inner) for inner in value] if isinstance(value, list) else value


def owned(of: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The part of a status that `wanted` speaks of."""
    made = {key: value for key, value in of.items() if key in wanted}
    kinds = {each["type"] for each in wanted.get("conditions", ())}
    if "conditions" in made:
        made["conditions"] = sorted(
            (each for each in made["conditions"] if each["type"] in kinds), key=lambda each: str(each["type"])
        )
    cleaned: dict[str, Any] = _without_empty(made)
    return cleaned


FOREIGN = {"type": "x/y", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
statuses = st.builds(
    lambda how, policy, ip: pod_status(
        pod(*TWO, restart=policy), View(how.facts, how.now, how.lost, None, {}, ("192.0.2.1",), ip, True)
    ),
    views,
    st.sampled_from(["Always", "Never"]),
    st.sampled_from([("10.0.0.2",), ("10.0.0.3",), ("10.0.0.3", "fd00::3")]),
)


@given(statuses, statuses)
def test_a_patch_makes_what_was_told_into_what_is_wanted(before: dict[str, Any], wanted: dict[str, Any]) -> None:
    start = apply({"qosClass": "Burstable", "conditions": [FOREIGN]}, before)
    made = apply(start, patch(start, wanted))
    assert owned(made, wanted) == owned(_without_empty(wanted), wanted)
    assert patch(made, wanted) == {}
    assert made["qosClass"] == "Burstable"
    assert FOREIGN in made["conditions"]


def test_a_patch_leaves_out_what_is_as_told() -> None:
    of = pod()
    first = apply({}, pod_status(of, view(facts(running()))))
    change = patch(first, pod_status(told(of, first), view(facts(running("main", 1, ended(1))))))
    assert set(change) == {"containerStatuses"}


def test_a_pod_with_a_new_address_loses_the_old_one() -> None:
    assert patch({"podIPs": [{"ip": "10.0.0.2"}]}, {"podIPs": [{"ip": "10.0.0.3"}]}) == {
        "podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.3"}]
    }


def test_an_ended_pod_is_told_of_its_generation_only() -> None:
    status_told = {"phase": "Failed", "conditions": [FOREIGN, {"type": "Ready", "status": "False", "observedGeneration": 1}]}
    of: Pod = pod(status=status_told)
    change = patch(of.status, pod_status(of, view(facts(running()))))
    assert change == {"observedGeneration": 3, "conditions": [{"type": "Ready", "status": "False", "observedGeneration": 3}]}


@pytest.mark.parametrize(
    ("leaving", "exits", "phase"), [(False, (), "Pending"), (False, (ended(1),), "Running"), (True, (ended(1),), "Running")]
)
def test_container_whose_post_start_hook_runs_waits_and_its_pod_has_not_ended(
    leaving: bool, exits: tuple[Exit, ...], phase: str
) -> None:
    seen = replace(running("main", len(exits), *exits), hooking=True, up=False, ready=False)
    told = pod_status(pod(restart="Never", leaving=leaving), view(facts(seen)))
    assert told["phase"] == phase
    assert told["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}


@pytest.mark.parametrize(
    "last",
    [
        ContainerFacts("main", State.PREPARING, 1, exits=(ended(3),), streak=1),
        stopped("main", ended(3), host_restarts=True),
    ],
    ids=["it is being started", "its host will start it"],
)
def test_leaving_pod_is_over_once_nothing_of_it_is_about_to_run(last: ContainerFacts) -> None:
    """What is told of an ended Pod is told for ever: the attempt that is about to begin would be in nobody's status."""
    assert pod_status(pod(leaving=True, status={"phase": "Running"}), view(facts(last)))["phase"] == "Running"
    over = facts(stopped("main", ended(3)))
    assert pod_status(pod(leaving=True, status={"phase": "Running"}), view(over))["phase"] == "Failed"


@pytest.mark.parametrize(("again", "phase"), [(True, "Pending"), (False, "Failed")])
def test_leaving_pod_whose_init_container_may_come_again_is_not_over(again: bool, phase: str) -> None:
    of = pod(initContainers=[container("init")], leaving=True)
    assert pod_status(of, view(facts(stopped("init", ended(3), host_restarts=again))))["phase"] == phase


EXPIRED = {"startTime": "1970-01-01T00:00:10Z"}


@pytest.mark.parametrize("leaving", [False, True])
def test_phase_of_a_pod_past_its_deadline_is_that_of_any_pod_until_it_has_ended(leaving: bool) -> None:
    """A Pod whose init containers run is Pending, whether it was let live or not."""
    of = pod(initContainers=[container("init")], activeDeadlineSeconds=50, status=EXPIRED, leaving=leaving)
    assert pod_status(of, view(facts(running("init")), now=60.0))["phase"] == "Pending"


@pytest.mark.parametrize(
    ("seen", "phase", "reason"),
    [
        (None, "Failed", "DeadlineExceeded"),
        (facts(running()), "Running", None),
        (facts(stopped("main", ended(1), ended(1), host_restarts=True)), "Running", None),
        (facts(stopped("main", ended(0))), "Failed", "DeadlineExceeded"),
    ],
    ids=["nothing", "it runs", "its host would restart it", "it has ended"],
)
def test_pod_past_its_deadline_has_failed_once_nothing_of_it_can_run(seen: PodFacts | None, phase: str, reason: str | None) -> None:
    told = pod_status(pod(activeDeadlineSeconds=50, status=EXPIRED), view(seen, now=60.0))
    assert (told["phase"], told["reason"]) == (phase, reason)
    assert pod_status(pod(activeDeadlineSeconds=51, status=EXPIRED), view(seen, now=60.0))["reason"] is None


def test_termination_messages_of_a_pod_share_what_there_is() -> None:
    each = [container(f"c{number}") for number in range(4)]
    seen = facts(*(stopped(f"c{number}", ended(1, message="é" * 4096)) for number in range(4)))
    told = pod_status(pod(*each, restart="Never"), view(seen))["containerStatuses"]
    assert {status["state"]["terminated"]["message"] for status in told} == {"é" * 1536}


def test_sidecar_of_a_host_that_is_lost_is_not_ready() -> None:
    status = {"initContainerStatuses": [{"name": "init", "ready": True}, {"name": "side", "ready": True}], "phase": "Running"}
    of = pod(status=status, initContainers=[container("init"), container("side", restartPolicy="Always")])
    told = pod_status(of, view(lost="the link was lost"))["initContainerStatuses"]
    assert [(each["name"], each["ready"]) for each in told] == [("init", True), ("side", False)]


def test_pod_whose_container_is_being_started_again_has_not_ended() -> None:
    """By a rule, or for another image, also where its policy is Never."""
    seen = facts(ContainerFacts("main", State.PREPARING, 1, "id-1", exits=(ended(42),)))
    assert pod_status(pod(restart="Never"), view(seen))["phase"] == "Running"
