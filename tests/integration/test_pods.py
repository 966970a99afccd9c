"""Pods from start to end: phases, exit codes, what is told of them, and many at once."""

from typing import Any

import pytest

from tests.integration.build import (
    Json,
    Space,
    container,
    has_ended,
    host_of,
    is_ready,
    phase,
    pod,
    seconds,
    snapshots,
    status,
    terminated,
    wait_as_before,
)
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

# A fault of its own is what ends a PID 1: endless recursion runs out of stack. A signal that it sends to itself never arrives.
FAULT = "f() { f; }; f"

# name: script, restartPolicy, phase, what is in state.terminated
ENDS: dict[str, tuple[str, str, str, Json]] = {
    "zero": ("exit 0", "Never", "Succeeded", {"exitCode": 0, "reason": "Completed"}),
    "three": ("exit 3", "Never", "Failed", {"exitCode": 3, "reason": "Error"}),
    "code-133": ("exit 133", "Never", "Failed", {"exitCode": 133, "reason": "Error"}),  # which nspawn has another use for
    "late-133": ("sleep 1; exit 133", "Never", "Failed", {"exitCode": 133, "reason": "Error"}),
    "code-137": ("exit 137", "Never", "Failed", {"exitCode": 137, "reason": "Error"}),
    "fault": (FAULT, "Never", "Failed", {"exitCode": 139, "signal": 11, "reason": "Error"}),
    "on-failure": ("exit 0", "OnFailure", "Succeeded", {"exitCode": 0, "reason": "Completed"}),
    "message": ("echo why > /dev/termination-log; exit 4", "Never", "Failed", {"exitCode": 4, "message": "why\n"}),
}
MISSING = "/bin/no-such-program"


@pytest.fixture(scope="module")
def ended(shared: Space) -> dict[str, Json]:
    """All of them, and some of another shape, at their ends."""
    image = shared.lab.image_busybox
    pods = [pod(name, container(image, script), restart=restart) for name, (script, restart, _, _) in ENDS.items()]
    missing = pod("missing-program", {**container(image), "command": [MISSING]})
    from_logs = container(image, "echo the last words; exit 1", terminationMessagePolicy="FallbackToLogsOnError")
    elsewhere = container(image, "echo why > /said; exit 5", terminationMessagePath="/said")
    serve = container(image, "echo hello > /tmp/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp & sleep 3", name="serve")
    fetch = container(image, "until wget -qO- http://localhost:8080/ 2>/dev/null; do sleep 0.1; done", name="fetch")
    program = pod("program", {"name": "main", "image": f"{image}/bin/echo", "args": ["hello", "from the image"]})
    shared.create(*pods, missing, pod("from-logs", from_logs), pod("elsewhere", elsewhere), pod("two", serve, fetch), program)
    return shared.wait(has_ended)


@pytest.mark.parametrize("name", ENDS)
def test_end_of_a_container_is_told(ended: dict[str, Json], name: str) -> None:
    _, _, expected_phase, expected = ENDS[name]
    told = terminated(ended[name])
    assert (phase(ended[name]), {key: told.get(key) for key in expected}) == (expected_phase, expected)


@pytest.mark.parametrize("name", ENDS)
def test_end_has_both_its_times(ended: dict[str, Json], name: str) -> None:
    told = terminated(ended[name])
    created = seconds(ended[name]["metadata"]["creationTimestamp"])
    assert created <= seconds(told["startedAt"]) <= seconds(told["finishedAt"]) <= created + 40


def test_missing_program_is_a_start_error(ended: dict[str, Json]) -> None:
    told = terminated(ended["missing-program"])
    assert (told["exitCode"], told["reason"]) == (128, "StartError")
    assert MISSING in told["message"]


def test_failed_container_can_leave_its_log_as_message(ended: dict[str, Json]) -> None:
    assert terminated(ended["from-logs"])["message"].strip() == "the last words"


def test_termination_message_is_where_the_pod_says(ended: dict[str, Json]) -> None:
    assert terminated(ended["elsewhere"])["message"] == "why\n"


def test_containers_of_a_pod_share_localhost(ended: dict[str, Json], shared: Space) -> None:
    assert terminated(ended["two"], "fetch")["exitCode"] == 0
    assert shared.logs("two", "--container=fetch") == "hello\n"


def test_image_that_names_a_program_needs_no_command(ended: dict[str, Json], shared: Space) -> None:
    assert phase(ended["program"]) == "Succeeded"
    assert shared.logs("program") == "hello from the image\n"


def test_events_of_a_start_are_those_of_a_kubelet(ended: dict[str, Json], shared: Space) -> None:
    shared.wait_event("zero", "Started")
    assert {"Scheduled", "Pulled", "Created"} <= {reason for reason, _ in shared.events("zero")}


def test_event_of_a_failed_start_names_the_program(ended: dict[str, Json], shared: Space) -> None:
    assert MISSING in shared.wait_event("missing-program", "Failed")


def test_twenty_pods_run_on_both_hosts_and_leave_nothing(lab: Lab, space: Space) -> None:
    before = snapshots(lab)
    names = [f"many-{number}" for number in range(20)]
    space.create(*(pod(name, container(lab.image_busybox)) for name in names))
    pods = space.wait(is_ready, *names, timeout_s=60)
    assert {host_of(of) for of in pods.values()} == {host.name for host in lab.hosts}
    assert len({of["status"]["podIP"] for of in pods.values()}) == len(names)
    assert all(status(of)["restartCount"] == 0 for of in pods.values())
    space.kubectl("delete", "pods", "--all", "--timeout=60s")
    wait_as_before(lab, before)


def test_status_of_a_running_pod_is_whole(space: Space, lab: Lab) -> None:
    small = {"requests": {"cpu": "10m"}, "limits": {"memory": "64Mi"}}
    space.create(pod("whole", container(lab.image_busybox, resources=small)))
    of = space.wait(is_ready, "whole")["whole"]
    told = of["status"]
    assert (told["hostIPs"], told["podIPs"]) == ([{"ip": told["hostIP"]}], [{"ip": told["podIP"]}])
    assert (told["qosClass"], told["observedGeneration"]) == ("Burstable", of["metadata"]["generation"])
    kinds = {"PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"}
    assert {each["type"]: each["status"] for each in told["conditions"]} == dict.fromkeys(kinds, "True")
    assert {each["observedGeneration"] for each in told["conditions"]} == {of["metadata"]["generation"]}
    main = status(of)
    assert (main["started"], main["ready"], main["restartCount"], main["image"]) == (True, True, 0, lab.image_busybox)
    assert main["containerID"].startswith("systemd-nspawn://")
    assert main["imageID"].endswith(lab.image_busybox.removeprefix("nix:0"))


def test_environment_of_a_pod_that_asks_for_nothing(space: Space) -> None:
    image = space.lab.image_busybox
    script = "id -u; pwd; hostname; ls /nix/store | wc -l; echo $HOME; which ls"
    space.run(pod("plain", container(image, script)))
    uid, directory, hostname, paths, home, ls = space.logs("plain").splitlines()
    assert (uid, directory, hostname, home) == ("0", "/", "plain", "/root")
    assert paths == "2", "a machine sees its closure, and no other path"
    assert ls == f"{image.removeprefix('nix:0')}/bin/ls"


USERS: list[tuple[str, dict[str, Any], str]] = [
    ("user", {"runAsUser": 1000, "runAsGroup": 1001}, "1000 1001"),
    ("root", {}, "0 0"),
]


@pytest.mark.parametrize(("name", "context", "expected"), USERS, ids=[name for name, _, _ in USERS])
def test_container_runs_as_the_user_that_is_asked_for(space: Space, name: str, context: dict[str, Any], expected: str) -> None:
    space.run(pod(name, container(space.lab.image_busybox, "echo $(id -u) $(id -g)", securityContext=context)))
    assert space.logs(name).strip() == expected
