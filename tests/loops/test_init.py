"""Init containers and sidecars: one after the other, beside the others, and down again in reverse."""

from typing import Any

import pytest

from tests.fakes.cluster import Object, until
from tests.loops.world import IMAGE, Process, World, pod


def container(name: str, *command: str, **fields: Any) -> Object:
    return {"name": name, "image": IMAGE, "command": list(command or ("cat",)), **fields}


def sidecar(name: str, *command: str, **fields: Any) -> Object:
    return container(name, *command, restartPolicy="Always", **fields)


def starts(process: Process, name: str) -> list[str]:
    """The containers of a Pod that were started, in their order."""
    return [container for call in process.provider.asked("sync", name) for container in call.run]


async def end(world: World, name: str, code: int) -> None:
    """Ends a container of the Pod `web` as soon as it runs, and waits until that is told."""
    await until(lambda: world.state("web", name) == "running")
    before = world.member("web", name)
    world.host_of("web").end(world.uid("web"), name, code)
    await until(lambda: world.state("web", name) != "running" or world.member("web", name)["containerID"] != before["containerID"])


async def test_init_containers_run_to_their_end_before_main_starts(world: World) -> None:
    world.put(pod("web", initContainers=[container("one"), container("two")]))
    async with world.process() as process:
        await until(lambda: world.state("web", "one") == "running")
        await world.settled()
        assert (world.phase("web"), world.waits_for("web")) == ("Pending", "PodInitializing")
        assert world.condition("web", "Initialized")["message"] == "containers with incomplete status: [one two]"
        for name in ("one", "two"):
            await end(world, name, 0)
        await world.runs("web")
        assert list(dict.fromkeys(starts(process, "web"))) == ["one", "two", "main"]
    assert [world.member("web", name)["restartCount"] for name in ("one", "two", "main")] == [0, 0, 0]
    assert world.member("web", "two")["ready"]
    assert world.condition("web", "Initialized")["status"] == "True"


async def test_quick_init_containers_lose_no_time(world: World) -> None:
    world.put(pod("web", initContainers=[container(f"init-{number}", "true") for number in range(5)]))
    async with world.process():
        await world.runs("web")
    assert {world.member("web", f"init-{number}")["restartCount"] for number in range(5)} == {0}


async def test_init_container_that_fails_is_tried_again(world: World) -> None:
    world.put(pod("web", initContainers=[container("init")]))
    async with world.process():
        for code in (3, 4):
            await end(world, "init", code)
            assert world.phase("web") == "Pending"
        await until(lambda: "BackOff" in world.reasons("web"))
        await end(world, "init", 0)
        await world.runs("web")
    assert (world.member("web", "init")["restartCount"], world.container("web")["restartCount"]) == (2, 0)


async def test_init_container_that_fails_for_good_fails_the_pod_and_ends_its_sidecars(world: World) -> None:
    world.put(pod("job", initContainers=[sidecar("side"), container("init", "false")], restartPolicy="Never"))
    async with world.process() as process:
        await until(lambda: world.phase("job") == "Failed")
        assert "main" not in starts(process, "job")
    assert world.member("job", "side")["state"]["terminated"]["exitCode"] == 143
    assert world.waits_for("job") == "PodInitializing"


async def test_sidecar_starts_before_main_and_is_stopped_after_it(world: World) -> None:
    world.put(pod("job", initContainers=[sidecar("first"), sidecar("second")], restartPolicy="Never"))
    async with world.process() as process:
        await world.runs("job")
        assert list(dict.fromkeys(starts(process, "job"))) == ["first", "second", "main"]
        world.host_of("job").end(world.uid("job"), "main", 0)
        await until(lambda: world.phase("job") == "Succeeded")
        stops = [call.containers for call in process.provider.asked("stop", "job")]
        assert list(dict.fromkeys(stops)) == [("second",), ("first",)]
        await until(lambda: world.reasons("job").count("Killing") == 2)
    assert [world.member("job", name)["state"]["terminated"]["exitCode"] for name in ("second", "first")] == [143, 143]


async def test_sidecar_that_is_deaf_is_killed_when_its_grace_is_over(world: World) -> None:
    side = sidecar("side", "sleep", "1000000")
    world.put(pod("job", "true", initContainers=[side], restartPolicy="Never", terminationGracePeriodSeconds=1))
    async with world.process():
        await until(lambda: world.phase("job") == "Succeeded")
    assert world.member("job", "side")["state"]["terminated"]["exitCode"] == 137


async def test_sidecar_that_ends_is_restarted_and_main_is_not(world: World) -> None:
    world.put(pod("web", initContainers=[sidecar("side")], restartPolicy="Never"))
    async with world.process():
        await world.runs("web")
        world.host_of("web").end(world.uid("web"), "side", 0)
        await until(lambda: world.member("web", "side")["restartCount"] == 1 and world.ready("web"))
    assert world.container("web")["restartCount"] == 0


async def test_deleted_pod_stops_main_first_and_then_its_sidecars(world: World) -> None:
    world.put(pod("web", initContainers=[sidecar("first"), sidecar("second")]))
    async with world.process() as process:
        await world.runs("web")
        world.delete("web")
        await until(lambda: not world.has("web"))
        stops = [call.containers for call in process.provider.asked("stop", "web")]
    assert list(dict.fromkeys(stops)) == [("main",), ("second",), ("first",)]


async def test_pod_that_is_deleted_while_it_initialises_goes(world: World) -> None:
    world.put(pod("web", initContainers=[container("init")]))
    async with world.process() as process:
        await until(lambda: world.state("web", "init") == "running")
        world.delete("web")
        await until(lambda: not world.has("web"))
        assert starts(process, "web").count("main") == 0


async def test_next_process_goes_on_where_init_was(world: World) -> None:
    world.put(pod("web", initContainers=[container("one", "true"), container("two")]))
    async with world.process():
        await until(lambda: world.state("web", "two") == "running")
    world.host_of("web").end(world.uid("web"), "two", 0)
    async with world.process() as process:
        await world.runs("web")
        assert set(starts(process, "web")) == {"main"}
    assert [world.member("web", name)["restartCount"] for name in ("one", "two")] == [0, 0]


@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
async def test_reboot_runs_init_again_before_main(world: World, policy: str) -> None:
    world.put(pod("web", initContainers=[container("init", "true"), sidecar("side")], restartPolicy=policy))
    async with world.process() as process:
        await world.runs("web")
        before = len(starts(process, "web"))
        world.host_of("web").reboot()
        await until(lambda: world.container("web")["restartCount"] == 1 and world.ready("web"))
        assert list(dict.fromkeys(starts(process, "web")[before:])) == ["init", "side", "main"]
    assert {name: world.member("web", name)["restartCount"] for name in ("init", "side")} == {"init": 1, "side": 1}


async def test_events_of_init_containers_name_them(world: World) -> None:
    world.put(pod("web", initContainers=[container("init", "true")]))
    async with world.process():
        await world.runs("web")
        await until(lambda: world.reasons("web").count("Started") == 2)
    events = [of for (kind, _, _), of in world.cluster.objects.items() if kind == "events"]
    paths = [of["involvedObject"].get("fieldPath") for of in events if of["reason"] == "Started"]
    assert paths == ["spec.initContainers{init}", "spec.containers{main}"]
