"""Lifecycle hooks and deadlines of Pods on hosts in memory."""

import asyncio
import time
from typing import Any

import pytest

from tests.fakes.cluster import Object, until
from tests.loops.test_init import sidecar, starts
from tests.loops.world import QUICK, World, pod
from vknix.errors import NotFound

THERE = ("test", "-e", "/there")


def exec_of(*command: str) -> Object:
    return {"exec": {"command": list(command)}}


def hooks(**of: Object) -> Object:
    return {"lifecycle": of}


SLOW = hooks(postStart=exec_of("sleep", "1000000"))
FAILING = hooks(postStart=exec_of(*THERE))


async def test_container_counts_as_started_once_its_post_start_hook_has_passed(world: World) -> None:
    world.put(pod("web", container=hooks(postStart={"sleep": {"seconds": 1}})))
    async with world.process():
        await until(lambda: world.phase("web") == "Pending" and "Started" in world.reasons("web"))
        assert (world.waits_for("web"), world.container("web")["started"]) == ("ContainerCreating", False)
        await world.runs("web")
    assert world.container("web")["restartCount"] == 0


async def test_post_start_hook_holds_up_the_next_container(world: World) -> None:
    of = pod("web", container=SLOW)
    of["spec"]["containers"].append({**of["spec"]["containers"][0], "name": "next", "lifecycle": None})
    world.put(of)
    async with world.process() as process:
        await until(lambda: "Started" in world.reasons("web"))
        await world.settled()
        assert set(starts(process, "web")) == {"main"}


async def test_failing_post_start_hook_kills_its_container_and_says_why(world: World) -> None:
    world.put(pod("web", container=FAILING))
    async with world.process():
        await until(lambda: world.container("web").get("restartCount") == 1)
        await until(lambda: world.waits_for("web") == "PostStartHookError")
        await until(lambda: {"FailedPostStartHook", "Killing"} <= set(world.reasons("web")))
    assert not world.ready("web")


async def test_post_start_hook_of_a_container_that_was_told_to_run_is_not_run_again(world: World) -> None:
    world.put(pod("web", container=hooks(postStart=exec_of("true"))))
    async with world.process():
        await world.runs("web")
    async with world.process() as process:
        await world.runs("web")
        await world.settled()
        assert process.provider.tried == []


async def test_hook_of_an_attempt_that_is_over_says_nothing_of_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it asks may fail in the moment in which it is cancelled; the next attempt's hook is not run once more for that."""
    uid = world.put(pod("web", container=FAILING))
    asked: list[str] = []
    passes = asyncio.Event()

    async def fails_in_the_end(*_: object) -> int:
        asked.append("once more")
        try:
            await passes.wait()
        except asyncio.CancelledError:
            raise NotFound("container not found") from None
        return 0

    async with world.process() as process:
        monkeypatch.setattr(process.provider, "exec", fails_in_the_end)
        await until(lambda: len(asked) == 1)
        world.host_of("web").end(uid, "main", 1)
        await until(lambda: len(asked) == 2)
        await asyncio.sleep(10 * QUICK.backoff[-1])  # after which a hook whose container was not found would be run again
        changed = world.pod("web")
        world.cluster.put("pods", {**changed, "metadata": {**changed["metadata"], "labels": {"of": "another"}}})
        await world.settled()
        passes.set()
        await until(lambda: world.ready("web"))
    assert len(asked) == 2


async def test_pre_stop_hook_runs_before_the_container_is_stopped(world: World) -> None:
    world.put(pod("web", container=hooks(preStop=exec_of("echo", "bye"))))
    async with world.process() as process:
        await world.runs("web")
        world.delete("web")
        await until(lambda: not world.has("web"))
        assert [request.argv for request in process.provider.tried] == [("echo", "bye")]
        assert len(process.provider.asked("stop", "web")) == 1
        assert "FailedPreStopHook" not in world.reasons("web")


async def test_pre_stop_hook_that_fails_is_told_and_ends_nothing_else(world: World) -> None:
    world.put(pod("web", container=hooks(preStop=exec_of(*THERE))))
    async with world.process():
        await world.runs("web")
        world.delete("web")
        await until(lambda: not world.has("web"))
        await until(lambda: "FailedPreStopHook" in world.reasons("web"))


async def test_pre_stop_hook_is_given_up_when_the_grace_is_over(world: World) -> None:
    world.put(pod("web", container=hooks(preStop=exec_of("sleep", "1000000"))))
    async with world.process() as process:
        await world.runs("web")
        world.delete("web", grace_s=0.5)
        began = time.monotonic()
        await until(lambda: not world.has("web"))
        assert time.monotonic() - began < 5
        assert process.provider.asked("stop", "web")


async def test_hook_goes_with_a_pod_that_is_deleted_by_force(world: World) -> None:
    world.put(pod("web", container=hooks(preStop=exec_of("sleep", "1000000"))))
    async with world.process() as process:
        await world.runs("web")
        world.delete("web", grace_s=600)
        await until(lambda: process.provider.tried)
        world.cluster.remove("pods", "default", "web")
        await until(lambda: process.provider.asked("clean", "web"))


async def test_container_that_ends_by_itself_has_no_pre_stop_hook(world: World) -> None:
    world.put(pod("job", "true", container=hooks(preStop=exec_of("true")), restartPolicy="Never"))
    async with world.process() as process:
        await until(lambda: world.phase("job") == "Succeeded")
        assert process.provider.tried == []


async def test_hooks_of_sidecars_begin_at_once_and_their_turn_comes_later(world: World) -> None:
    world.put(
        pod(
            "web",
            initContainers=[sidecar("side", **hooks(preStop=exec_of("true")))],
            container=hooks(preStop={"sleep": {"seconds": 1}}),
        )
    )
    async with world.process() as process:
        await world.runs("web")
        world.delete("web")
        await until(lambda: process.provider.tried)
        assert not process.provider.asked("stop", "web")
        await until(lambda: not world.has("web"))
        assert [call.containers for call in process.provider.asked("stop", "web")] == [("main",), ("side",)]


async def test_liveness_kill_runs_the_pre_stop_hook(world: World) -> None:
    sick = {**exec_of("test", "!", "-e", "/sick"), "periodSeconds": 1, "failureThreshold": 1}
    world.put(pod("web", container={"livenessProbe": sick, **hooks(preStop=exec_of("echo", "bye"))}))
    async with world.process() as process:
        await world.runs("web")
        world.host_of("web").touch(world.uid("web"), "main", "/sick")
        await until(lambda: world.container("web")["restartCount"] == 1)
        assert ("echo", "bye") in [request.argv for request in process.provider.tried]


async def test_killed_for_a_probe_it_is_started_again_also_where_it_exits_well(world: World) -> None:
    sick = {**exec_of("test", "!", "-e", "/sick"), "periodSeconds": 1, "failureThreshold": 1}
    hook = hooks(preStop=exec_of("cat"))  # while it runs the container ends by itself
    world.put(pod("web", container={"livenessProbe": sick, **hook}, restartPolicy="OnFailure"))
    async with world.process():
        await world.runs("web")
        world.host_of("web").touch(world.uid("web"), "main", "/sick")
        await until(lambda: "Killing" in world.reasons("web"))
        world.host_of("web").end(world.uid("web"), "main", 0)
        await until(lambda: world.container("web")["restartCount"] == 1 and world.state("web", "main") == "running")


async def test_pod_past_its_deadline_is_stopped_and_has_failed(world: World) -> None:
    world.put(pod("job", activeDeadlineSeconds=1000))
    async with world.process():
        await world.runs("job")
        lower_deadline(world, "job")
        await until(lambda: world.phase("job") == "Failed")
        status = world.status("job")
        assert (status["reason"], status["message"]) == (
            "DeadlineExceeded",
            "Pod was active on the node longer than the specified deadline",
        )
        assert world.container("job")["state"]["terminated"]["exitCode"] == 143
        await until(lambda: "DeadlineExceeded" in world.reasons("job"))
        assert world.condition("job", "Ready")["reason"] == "PodFailed"


def lower_deadline(world: World, name: str) -> None:
    of = world.pod(name)
    world.cluster.put("pods", {**of, "spec": {**of["spec"], "activeDeadlineSeconds": 1}})


async def test_deadline_that_is_lowered_later_counts(world: World) -> None:
    world.put(pod("job", activeDeadlineSeconds=1000))
    async with world.process():
        await world.runs("job")
        lower_deadline(world, "job")
        await until(lambda: world.phase("job") == "Failed")


@pytest.mark.parametrize("code", [0, 1])
async def test_crash_loop_ends_at_the_deadline(world: World, code: int) -> None:
    world.put(pod("job", "true" if code == 0 else "false", activeDeadlineSeconds=1000, restartPolicy="Always"))
    async with world.process():
        await until(lambda: world.container("job").get("restartCount", 0) > 0)
        lower_deadline(world, "job")
        await until(lambda: world.phase("job") == "Failed")
        assert world.container("job")["state"]["terminated"]["exitCode"] == code


def ruled(operator: str, *values: int) -> dict[str, Any]:
    rule = {"action": "Restart", "exitCodes": {"operator": operator, "values": list(values)}}
    return {"restartPolicy": "Never", "restartPolicyRules": [rule]}


async def test_rule_restarts_one_container_and_its_policy_holds_for_other_codes(world: World) -> None:
    world.put(pod("job", container=ruled("In", 42), restartPolicy="Always"))
    async with world.process():
        await world.runs("job")
        world.host_of("job").end(world.uid("job"), "main", 42)
        await until(lambda: world.container("job")["restartCount"] == 1 and world.state("job", "main") == "running")
        world.host_of("job").end(world.uid("job"), "main", 1)
        await until(lambda: world.phase("job") == "Failed")


async def test_changed_image_restarts_a_running_container(world: World) -> None:
    world.put(pod("web", restartPolicy="Never"))
    async with world.process():
        await world.runs("web")
        of = world.pod("web")
        changed = {**of["spec"]["containers"][0], "image": f"/nix/store/{'2' * 32}-another"}
        world.cluster.put("pods", {**of, "spec": {**of["spec"], "containers": [changed]}})
        await until(lambda: world.container("web")["restartCount"] == 1 and world.ready("web"))
        await until(lambda: ("Killing", "Container main definition changed, will be restarted") in world.events("web"))
        assert world.container("web")["image"] == changed["image"]
