"""In-place resize: granted, waited for, or said to be in vain."""

from tests.fakes.cluster import until
from tests.loops.world import World, pod

SMALL = {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}}


def resize(world: World, name: str, resources: dict[str, dict[str, str]]) -> None:
    of = world.pod(name)
    main = {**of["spec"]["containers"][0], "resources": resources}
    metadata = {**of["metadata"], "generation": of["metadata"]["generation"] + 1}
    world.put({**of, "metadata": metadata, "spec": {**of["spec"], "containers": [main]}})


async def test_resize_comes_into_force_while_the_container_runs(world: World) -> None:
    world.put(pod("web", container={"resources": SMALL}))
    async with world.process():
        await world.runs("web")
        before = world.container("web")["containerID"]
        more = {"requests": {"cpu": "200m"}, "limits": {"memory": "64Mi"}}
        resize(world, "web", more)
        await until(lambda: world.container("web").get("resources") == more)
        await until(lambda: "ResizeCompleted" in world.reasons("web"))
        await until(lambda: not world.condition("web", "PodResizeInProgress"))
    assert world.container("web")["containerID"] == before


async def test_deferred_resize_is_granted_once_there_is_room(world: World) -> None:
    world.put(pod("web", container={"resources": SMALL}))
    async with world.process():
        await world.runs("web")
        host = world.host_of("web").facts
        for index in range(len(world.hosts)):
            world.put(pod(f"big-{index}", container={"resources": {"requests": {"cpu": f"{host.cpu_milli - 200}m"}}}))
        await world.runs("big-0", "big-1")
        resize(world, "web", {"requests": {"cpu": "1"}})
        await until(lambda: world.condition("web", "PodResizePending").get("reason") == "Deferred")
        for index in range(len(world.hosts)):
            world.delete(f"big-{index}", 0)
        await until(lambda: world.container("web").get("resources") == {"requests": {"cpu": "1"}})
        await until(lambda: not world.condition("web", "PodResizePending"))


async def test_resize_beyond_its_host_is_infeasible(world: World) -> None:
    world.put(pod("web", container={"resources": SMALL}))
    async with world.process():
        await world.runs("web")
        resize(world, "web", {"requests": {"cpu": "1000"}})
        await until(lambda: world.condition("web", "PodResizePending").get("reason") == "Infeasible")
        assert world.container("web")["resources"] == SMALL
        await until(lambda: "ResizeInfeasible" in world.reasons("web"))
