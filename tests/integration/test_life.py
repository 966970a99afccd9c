"""Lifecycle hooks, deadlines, restart rules and a changed image, on real hosts."""

import json

import pytest

from tests.integration.build import Json, Space, at_once, container, has_ended, held, is_ready, pod, status, terminated, with_data

pytestmark = pytest.mark.lab


def of_exec(script: str) -> Json:
    return {"exec": {"command": ["sh", "-c", script]}}


def test_hooks_run_in_the_container(space: Space) -> None:
    image = space.lab.image_busybox
    hooks = {"postStart": of_exec("echo started > /data/log"), "preStop": of_exec("echo ending >> /data/log; sleep 1")}
    script = "trap 'cat /data/log > /dev/termination-log; exit 0' TERM; while :; do sleep 0.1; done"
    of = held(with_data(pod("hooked", container(image, script, lifecycle=hooks), grace_s=20)))
    space.create(of, pod("failing", container(image, lifecycle={"postStart": of_exec("exit 4")})))
    space.wait(is_ready, "hooked")
    at_once(
        lambda: space.wait_event("failing", "FailedPostStartHook"),
        lambda: space.wait(has_ended, "failing"),
        lambda: space.kubectl("delete", "pod", "hooked", "--wait=false"),
    )
    ended = space.wait(has_ended, "hooked", timeout_s=15)["hooked"]
    space.let_go("hooked")
    assert terminated(ended)["message"] == "started\nending\n"


def test_deadline_that_is_lowered_ends_a_pod(space: Space) -> None:
    space.create(pod("late", container(space.lab.image_busybox), activeDeadlineSeconds=1000))
    space.wait(is_ready, "late")
    space.kubectl("patch", "pod", "late", "--type=merge", '--patch={"spec":{"activeDeadlineSeconds":1}}')
    of = space.wait(has_ended, "late")["late"]
    assert (of["status"]["phase"], of["status"]["reason"]) == ("Failed", "DeadlineExceeded")


def test_rule_of_one_container_restarts_it(space: Space) -> None:
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
    script = "[ -e /data/again ] && exit 0; touch /data/again; exit 42"
    of = container(space.lab.image_busybox, script, restartPolicy="Never", restartPolicyRules=rules)
    ended = space.run(with_data(pod("ruled", of)))
    assert (ended["status"]["phase"], status(ended)["restartCount"]) == ("Succeeded", 1)


def test_changed_image_restarts_a_running_container(space: Space) -> None:
    space.create(pod("web", container(space.lab.image_busybox)))
    space.wait(is_ready, "web")
    another = space.lab.image_busybox.removeprefix("nix:0")
    patch = {"spec": {"containers": [{"name": "main", "image": another}]}}
    space.kubectl("patch", "pod", "web", f"--patch={json.dumps(patch)}")
    of = space.wait(lambda of: is_ready(of) and status(of)["restartCount"] == 1, "web")["web"]
    assert status(of)["image"] == another
    space.wait_event("web", "Killing")
