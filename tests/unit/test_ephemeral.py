"""Ephemeral containers: when they start, what they count for, and what becomes of one that can't be had."""

from typing import Any

import msgspec
import pytest

from tests.unit.build import ROOT, container, ended, facts, plan, pod, running, stopped, view
from vknix.core import decide, late
from vknix.core.facts import PodFacts
from vknix.core.pod import Pod
from vknix.core.status import pod_status
from vknix.nspawn import unit
from vknix.nspawn.plan import Settings


def debugged(**fields: Any) -> Pod:
    return pod(ephemeralContainers=[container("debug", **fields)], initContainers=[container("init")])


STARTS: list[Any] = [
    pytest.param(debugged(), facts(running("init")), ("debug",), id="while init runs"),
    pytest.param(debugged(), facts(stopped("init", ended()), running()), ("debug",), id="beside the others"),
    pytest.param(debugged(targetContainerName="main"), facts(running("init")), (), id="not before its target runs"),
    pytest.param(
        debugged(targetContainerName="main"), facts(stopped("init", ended()), running()), ("debug",), id="among its target's"
    ),
    pytest.param(debugged(), facts(stopped("init", ended()), running(), running("debug")), (), id="once"),
    pytest.param(debugged(), facts(stopped("init", ended()), running(), stopped("debug", ended(1))), (), id="never again"),
]


@pytest.mark.parametrize(("wanted", "seen", "run"), STARTS)
def test_it_starts_whenever_it_comes_and_runs_once(wanted: Pod, seen: PodFacts, run: tuple[str, ...]) -> None:
    assert decide.containers(wanted, seen, 1000.0).run == run


def test_it_is_told_apart_and_counts_for_nothing() -> None:
    seen = facts(stopped("init", ended()), running(), stopped("debug", ended(7)))
    made = pod_status(debugged(), view(seen))
    (told,) = made["ephemeralContainerStatuses"]
    assert (told["name"], told["state"]["terminated"]["exitCode"], told["ready"]) == ("debug", 7, False)
    assert [status["name"] for status in made["containerStatuses"]] == ["main"]
    assert [status["name"] for status in made["initContainerStatuses"]] == ["init"]
    assert made["phase"] == "Running"
    assert {each["type"]: each["status"] for each in made["conditions"]}["Ready"] == "True"


def test_pod_whose_own_containers_are_done_stops_it_and_ends_then() -> None:
    wanted = pod(restart="Never", ephemeralContainers=[container("debug")])
    seen = facts(stopped("main", ended()), running("debug"))
    assert decide.containers(wanted, seen, 1000.0).over
    assert pod_status(wanted, view(seen))["phase"] == "Running"
    assert pod_status(wanted, view(facts(stopped("main", ended()), stopped("debug", ended(137)))))["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"image": "ubuntu"}, "InvalidImageName"), ({"volumeDevices": [{"name": "v"}]}, "CreateContainerConfigError")],
    ids=["image", "field"],
)
def test_one_that_cant_be_had_is_refused_alone(fields: dict[str, Any], reason: str) -> None:
    wanted = pod(ephemeralContainers=[container("good"), container("bad", **fields)])
    made = late.admitted(wanted, msgspec.json.encode(wanted) if "image" in fields else _raw(fields))
    seen = facts(running())
    assert decide.containers(made, seen, 1000.0).run == ("good",)
    told = {each["name"]: each for each in pod_status(made, view(seen))["ephemeralContainerStatuses"]}
    waiting = told["bad"]["state"]["waiting"]
    assert waiting["reason"] == reason
    assert "spec.ephemeralContainers[1]" in waiting["message"]
    assert (told["bad"]["image"], told["bad"]["imageID"]) == (fields.get("image", ROOT), "")


def _raw(fields: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"spec": {"ephemeralContainers": [container("good"), container("bad", **fields)]}})


def test_its_target_is_joined_and_the_others_stay_as_they_are() -> None:
    of = plan(pod(container(), ephemeralContainers=[container("debug", targetContainerName="main")]))
    main, debug = of.machines
    assert not of.spaces.ipc
    assert not [word for word in unit.exec_start(of, main, Settings("/tool", 7)) if word.startswith("--pids")]
    words = unit.exec_start(of, debug, Settings("/tool", 7))
    assert [word for word in words if word.startswith("--pids")] == [f"--pids=/run/vknix/{of.uid32}/c/main/run"]
    assert "--setenv=SYSTEMD_NSPAWN_SHARE_NS_PID=1" in unit.systemd_run(of, debug, Settings("/tool", 7))
