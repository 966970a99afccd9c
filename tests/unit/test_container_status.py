"""vknix.core.container_status: states, last states and counts in the kubelet's words."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.build import ROOT, UID, container, ended, facts, pod, running, stopped, view
from vknix.core import pod as pods
from vknix.core.container_status import ContainerView, View, container_status, stamp
from vknix.core.facts import ContainerFacts, Exit, ImageFacts, ImageState, Reason, State
from vknix.core.pod import Pod
from vknix.errors import Refused

RAN = {
    "name": "main",
    "containerID": "systemd-nspawn://id-0",
    "imageID": f"nix:0{ROOT}",
    "restartCount": 2,
    "state": {"running": {}},
}
WENT_WELL = {
    "terminated": {
        "exitCode": 0,
        "reason": "Completed",
        "startedAt": "1970-01-01T00:00:10Z",
        "finishedAt": "1970-01-01T00:00:20Z",
        "containerID": "systemd-nspawn://id-0",
    }
}
LOST = {
    "terminated": {
        "exitCode": 137,
        "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was terminated",
        "startedAt": None,
        "finishedAt": None,
    }
}


def status(of: Pod, how: View) -> dict[str, Any]:
    return container_status(ContainerView(of, next(pods.members(of)), how))


def told(**fields: Any) -> dict[str, Any]:
    return {"containerStatuses": [{**RAN, **fields}]}


def test_container_that_stops_keeps_the_time_at_which_it_began() -> None:
    of = pod(status=told(state={"running": {"startedAt": "2026-01-01T00:00:00Z"}}))
    stopping = replace(running(), state=State.STOPPING, started=None)
    assert status(of, view(facts(stopping)))["state"] == {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    other = pod(status=told(state={"running": {"startedAt": "2026-01-01T00:00:00Z"}}, containerID="systemd-nspawn://id-9"))
    assert status(other, view(facts(stopping)))["state"] != {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def test_an_end_is_told_with_the_start_that_was_told() -> None:
    """What a host writes down of an attempt is earlier than what its systemd says of it, by up to a second."""
    began = {"startedAt": "1970-01-01T00:00:11Z"}
    of = pod(status=told(state={"running": began}))
    first = status(of, view(facts(stopped("main", ended()))))
    assert first["state"]["terminated"]["startedAt"] == "1970-01-01T00:00:11Z"
    again = pod(status=told(**{key: first[key] for key in ("state", "lastState", "restartCount", "containerID")}))
    assert status(again, view(facts(stopped("main", ended()))))["state"] == first["state"]
    moved_on = pod(status=told(state={"running": {"startedAt": "1970-01-01T00:00:40Z"}}, containerID="systemd-nspawn://id-1"))
    assert status(moved_on, view(facts(stopped("main", ended()))))["state"]["terminated"]["startedAt"] == "1970-01-01T00:00:10Z"


def test_an_end_that_was_told_outlives_what_its_host_knows_of_it() -> None:
    """A vknix that was killed while a host was cleaned leaves a part of it."""
    lost = replace(ended(137, 2), reason=Reason.UNKNOWN, id="", started=None)
    of = pod(leaving=True, status=told(state=WENT_WELL))
    assert status(of, view(facts(stopped("main", lost))))["state"] == WENT_WELL
    runs = pod(leaving=True, status=told(state={"running": {"startedAt": "1970-01-01T00:00:11Z"}}))
    assert status(runs, view(facts(stopped("main", lost))))["state"]["terminated"]["reason"] == "ContainerStatusUnknown"


def test_an_end_is_never_before_the_start_that_was_told() -> None:
    of = pod(status=told(state={"running": {"startedAt": "1970-01-01T00:00:21Z"}}))
    end = status(of, view(facts(stopped("main", ended()))))["state"]["terminated"]
    assert (end["startedAt"], end["finishedAt"]) == ("1970-01-01T00:00:20Z", "1970-01-01T00:00:20Z")


def test_next_attempt_counts_from_when_it_runs() -> None:
    made = status(pod(), view(facts(ContainerFacts("main", State.PREPARING, 1, id="id-1", exits=(ended(),)))))
    assert (made["restartCount"], made["containerID"], made["state"]) == (0, "systemd-nspawn://id-0", WENT_WELL)


def test_a_running_container() -> None:
    assert status(pod(), view(facts(running()))) == {
        "name": "main",
        "image": ROOT,
        "imageID": f"nix:0{ROOT}",
        "containerID": "systemd-nspawn://id-0",
        "restartCount": 0,
        "state": {"running": {"startedAt": "1970-01-01T00:00:30Z"}},
        "lastState": {},
        "ready": True,
        "started": True,
        "user": {"linux": {"uid": 0, "gid": 0, "supplementalGroups": [0]}},
    }


def test_a_stopping_container_runs_still() -> None:
    made = status(pod(leaving=True), view(facts(ContainerFacts("main", State.STOPPING, 0, "id-0", 30.0))))
    assert (list(made["state"]), made["ready"]) == (["running"], True)


@pytest.mark.parametrize(
    ("of", "how", "state", "last"),
    [
        pytest.param(pod(), view(), {"waiting": {"reason": "ContainerCreating"}}, {}, id="new"),
        pytest.param(
            pod(),
            view(facts(ContainerFacts("main", State.PREPARING, 0, "id-0"))),
            {"waiting": {"reason": "ContainerCreating"}},
            {},
            id="starting",
        ),
        pytest.param(pod(restart="Never"), view(facts(stopped("main", ended()))), WENT_WELL, {}, id="ended for good"),
        pytest.param(pod(leaving=True), view(facts(stopped("main", ended()))), WENT_WELL, {}, id="ended while leaving"),
        pytest.param(pod(), view(facts(stopped("main", ended()))), WENT_WELL, {}, id="first restart follows at once"),
        pytest.param(
            pod(),
            view(facts(running("main", 1, ended()))),
            {"running": {"startedAt": "1970-01-01T00:00:30Z"}},
            WENT_WELL,
            id="again",
        ),
        pytest.param(pod(restart="Never", status=told()), view(), LOST, {}, id="lost for good"),
        pytest.param(pod(status=told()), view(), {"waiting": {"reason": "ContainerCreating"}}, LOST, id="lost, to be made anew"),
        pytest.param(
            pod(leaving=True, status=told()),
            view(),
            {"terminated": {**LOST["terminated"], "message": "The container could not be located when the pod was deleted"}},
            {},
            id="lost while leaving",
        ),
        pytest.param(pod(restart="Never", status=told(state=WENT_WELL)), view(), WENT_WELL, {}, id="its end was told"),
    ],
)
def test_state(of: Pod, how: View, state: dict[str, Any], last: dict[str, Any]) -> None:
    made = status(of, how)
    assert (made["state"], made["lastState"]) == (state, last)
    assert made["ready"] is made["started"] is ("running" in state)


def test_crash_loop_says_what_the_kubelet_says() -> None:
    made = status(pod(), view(facts(stopped("main", *(ended(1, attempt) for attempt in range(4))))))
    text = f"back-off 40s restarting failed container=main pod=web_shop({UID})"
    assert made["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": text}}
    assert made["lastState"]["terminated"]["exitCode"] == 1
    assert (made["restartCount"], made["ready"]) == (3, False)


@pytest.mark.parametrize("leaving", [False, True])
def test_what_begins_again_against_its_policy_was_never_told_to_have_ended(leaving: bool) -> None:
    """A probe has ended it, with 0 under OnFailure: the API server takes no end back, also where its Pod is deleted meanwhile."""
    preparing = ContainerFacts("main", State.PREPARING, 1, id="id-1", exits=(ended(0),), streak=1)
    made = status(pod(restart="OnFailure", leaving=leaving), view(facts(preparing)))
    assert (list(made["state"]), made["lastState"]) == (["waiting"], WENT_WELL)


def test_an_attempt_that_is_being_made_backs_off_until_it_runs() -> None:
    ends = tuple(ended(1, attempt) for attempt in (2, 3))
    preparing = ContainerFacts("main", State.PREPARING, 4, id="id-4", exits=ends, streak=4)
    made = status(pod(), view(facts(preparing)))
    assert (made["state"]["waiting"]["reason"], made["restartCount"]) == ("CrashLoopBackOff", 3)
    assert made["lastState"]["terminated"]["containerID"] == made["containerID"] == "systemd-nspawn://id-3"


@pytest.mark.parametrize(("ends", "wait"), [(2, "10s"), (5, "1m20s"), (6, "2m40s"), (7, "5m0s"), (30, "5m0s")])
def test_back_off_is_a_go_duration(ends: int, wait: str) -> None:
    made = status(pod(), view(facts(stopped("main", *(ended(1, attempt) for attempt in range(ends))))))
    assert made["state"]["waiting"]["message"].startswith(f"back-off {wait} restarting")


def test_a_signal_and_a_message_are_told() -> None:
    end = Exit(0, "id-0", 143, 15, Reason.ERROR, None, 20.0, "bye")
    terminated = status(pod(restart="Never"), view(facts(stopped("main", end))))["state"]["terminated"]
    assert (terminated["signal"], terminated["message"], terminated["startedAt"]) == (15, "bye", None)


def test_a_loss_counts_once() -> None:
    of = pod(status=told())
    lost = status(of, view())
    assert lost["restartCount"] == 3
    again = status(pod(status={"containerStatuses": [lost]}), view())
    assert (again["restartCount"], again["lastState"]) == (3, LOST)


@pytest.mark.parametrize("seen", [running(), stopped("main", ended()), ContainerFacts("main", State.PREPARING, 0)])
def test_the_count_never_goes_back_where_a_host_lost_its_facts(seen: ContainerFacts) -> None:
    assert status(pod(status=told()), view(facts(seen)))["restartCount"] == 2


@pytest.mark.parametrize(
    ("before", "reason"), [({}, "ErrImagePull"), ({"state": {"waiting": {"reason": "ErrImagePull"}}}, "ImagePullBackOff")]
)
def test_a_pull_that_fails(before: dict[str, Any], reason: str) -> None:
    of = pod(status={"containerStatuses": [{"name": "main", **before}]})
    waiting = status(of, view(facts(images=(ImageFacts(ROOT, ImageState.FAILED, "no such path"),))))["state"]["waiting"]
    assert waiting["reason"] == reason
    assert waiting["message"].endswith("no such path")


def test_a_held_container_waits_with_its_reason() -> None:
    held = {"main": Refused("f", "secret not found", remedy="create it", reason="CreateContainerConfigError")}
    waiting = status(pod(), view(held=held))["state"]["waiting"]
    assert waiting == {"reason": "CreateContainerConfigError", "message": "f: secret not found; create it"}


def test_resources_and_mounts_are_echoed() -> None:
    asked = {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}
    mounts = [{"name": "v", "mountPath": "/v", "readOnly": True}, {"name": "v", "mountPath": "/w"}]
    made = status(pod(container(resources=asked, volumeMounts=mounts), volumes=[{"name": "v", "emptyDir": {}}]), view())
    assert (made["resources"], made["allocatedResources"]) == (asked, {"cpu": "500m"})
    assert made["volumeMounts"] == [
        {"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": "Disabled"},
        {"name": "v", "mountPath": "/w"},
    ]


def test_times_have_seconds() -> None:
    assert stamp(1767323045.999) == "2026-01-02T03:04:05Z"
