"""Lifecycle hooks, stop signals, readiness gates, deadlines, restart rules and a changed image, on real hosts."""

import json
import time

import pytest

from tests.integration.build import (
    Json,
    Space,
    at_once,
    condition,
    container,
    has_ended,
    held,
    is_ready,
    pod,
    runs,
    seconds,
    sidecar,
    status,
    terminated,
    with_data,
)

pytestmark = pytest.mark.lab


def of_exec(script: str) -> Json:
    return {"exec": {"command": ["sh", "-c", script]}}


def is_unready(of: Json) -> bool:
    return condition(of, "Ready").get("status") == "False"


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


def test_hooks_by_http_are_called_and_the_container_gets_its_own_signal(space: Space) -> None:
    """A sidecar writes down who calls it; it is there before, and after, the container whose hooks call."""
    image = space.lab.image_busybox
    note = f"#!{image.removeprefix('nix:0')}/bin/sh\necho $QUERY_STRING >> /data/log\necho\n"
    ends_on_term = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
    script = f'mkdir -p /www/cgi-bin; cd /www; printf "$CGI" > cgi-bin/note; chmod +x cgi-bin/note; httpd -p 8080; {ends_on_term}'
    listens = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 60}
    writer = sidecar(image, script, env=[{"name": "CGI", "value": note}], startupProbe=listens)
    hooks = {when: {"httpGet": {"path": f"/cgi-bin/note?{when}", "port": 8080}} for when in ("postStart", "preStop")}
    of_usr1 = "trap 'cat /data/log > /dev/termination-log; exit 7' USR1; while :; do sleep 0.1; done"
    main = container(image, of_usr1, lifecycle={**hooks, "stopSignal": "SIGUSR1"})
    space.create(held(with_data(pod("called", main, initContainers=[writer], os={"name": "linux"}, grace_s=20))))
    assert status(space.wait(is_ready, "called")["called"])["stopSignal"] == "SIGUSR1"
    space.kubectl("delete", "pod", "called", "--wait=false")
    ended = space.wait(has_ended, "called", timeout_s=15)["called"]
    space.let_go("called")
    assert (terminated(ended)["exitCode"], terminated(ended)["message"]) == (7, "postStart\npreStop\n")


def test_hook_that_sleeps_puts_the_signal_off(space: Space) -> None:
    hooks = {"preStop": {"sleep": {"seconds": 3}}}
    script = "trap 'exit 6' TERM; while :; do sleep 0.1; done"
    space.create(held(pod("sleeper", container(space.lab.image_busybox, script, lifecycle=hooks), grace_s=60)))
    space.wait(is_ready, "sleeper")
    before = int(time.time())
    space.kubectl("delete", "pod", "sleeper", "--wait=false")
    ended = space.wait(has_ended, "sleeper", timeout_s=30)["sleeper"]
    space.let_go("sleeper")
    assert terminated(ended)["exitCode"] == 6
    assert before + 3 <= seconds(terminated(ended)["finishedAt"]) < before + 60


def test_readiness_gate_holds_a_pod_back_until_its_condition_is_true(space: Space) -> None:
    space.create(pod("gated", container(space.lab.image_busybox), readinessGates=[{"conditionType": "example.com/wired"}]))
    told = condition(space.wait(runs, "gated")["gated"], "Ready")
    assert (told["status"], told["reason"]) == ("False", "ReadinessGatesNotReady")
    assert 'pod readiness gate "example.com/wired" does not exist' in told["message"]
    for value in ("True", "False"):
        patch = {"status": {"conditions": [{"type": "example.com/wired", "status": value}]}}
        space.kubectl("patch", "pod", "gated", "--subresource=status", f"--patch={json.dumps(patch)}")
        now = space.wait(is_ready if value == "True" else is_unready, "gated")["gated"]
        assert condition(now, "ContainersReady")["status"] == "True"


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
