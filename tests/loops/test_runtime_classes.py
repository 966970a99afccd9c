"""A Pod's RuntimeClass is looked up before it starts, and what its host has counts from then on."""

import pytest

from tests.fakes.cluster import until
from tests.loops.world import World, pod
from vknix.core.handlers import Handler

KIND = "node.k8s.io/runtimeclasses"


def put_class(world: World, name: str, handler: str) -> None:
    world.cluster.put(KIND, {"metadata": {"name": name}, "handler": handler})


def handler_of(world: World, name: str) -> Handler:
    return world.host_of(name).seen(world.uid(name)).handler


@pytest.mark.parametrize("handler", list(Handler))
async def test_the_class_says_the_handler(world: World, handler: Handler) -> None:
    put_class(world, "some-class", handler.value)
    async with world.process():
        command = () if handler is Handler.NIXOS else ("cat",)
        world.put(pod("a", container={"command": list(command)}, runtimeClassName="some-class"))
        await world.runs("a")
        assert handler_of(world, "a") is handler


async def test_a_pod_without_a_class_asks_for_none(world: World) -> None:
    async with world.process():
        world.put(pod("a"))
        await world.runs("a")
        assert world.cluster.asked("GET", "runtimeclasses") == []
        assert handler_of(world, "a") is Handler.NSPAWN


async def test_a_pod_of_an_unknown_handler_waits_until_there_is_one(world: World) -> None:
    put_class(world, "fast", "gvisor")
    async with world.process():
        world.put(pod("a", runtimeClassName="fast"))
        await until(lambda: "FailedCreatePodSandBox" in world.reasons("a"))
        assert (world.phase("a"), world.waits_for("a")) == ("Pending", "ContainerCreating")
        put_class(world, "fast", "nspawn")
        await world.runs("a")


async def test_a_field_that_its_handler_lacks_fails_the_pod_by_name(world: World) -> None:
    put_class(world, "plain", "unit")
    async with world.process():
        world.put(pod("a", runtimeClassName="plain", hostname="other"))
        await until(lambda: world.phase("a") == "Failed")
        assert "spec.hostname" in world.status("a")["message"]


async def test_what_runs_needs_its_class_no_more(world: World) -> None:
    put_class(world, "passing", "unit")
    async with world.process():
        world.put(pod("a", runtimeClassName="passing"))
        await world.runs("a")
    world.cluster.remove(KIND, "", "passing")
    async with world.process() as process:
        world.host_of("a").end(world.uid("a"), "main", 1)
        await until(lambda: world.container("a").get("restartCount") == 1)
        await world.runs("a")
        assert "FailedCreatePodSandBox" not in world.reasons("a")
        assert process.provider.asked("clean", "a") == []
