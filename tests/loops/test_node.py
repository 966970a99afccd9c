"""The Node that stands for the pool."""

import asyncio
import json

from tests.fakes.cluster import until
from tests.loops.world import NODE, World, pod
from vknix.loops.heartbeat import SLICES


def _ready(world: World) -> str:
    conditions = world.node().get("status", {}).get("conditions", ())
    return next((str(of["status"]) for of in conditions if of["type"] == "Ready"), "")


async def test_node_is_registered_and_ready_once_its_hosts_are_listed(world: World) -> None:
    async with world.process():
        await until(lambda: _ready(world) == "True")
    node = world.node()
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == NODE
    assert node["metadata"]["labels"]["shape"] == "fake"
    assert node["status"]["capacity"]["cpu"] == "8000m"
    assert node["status"]["addresses"][0] == {"type": "InternalIP", "address": "192.0.2.1"}


async def test_deleted_node_is_registered_again_and_its_pods_run_on(world: World) -> None:
    world.put(pod("web"))
    async with world.process() as process:
        await world.runs("web")
        old = world.node()["metadata"]["uid"]
        world.cluster.remove("nodes", "", NODE)
        async with asyncio.timeout(2):  # the node controller takes its Pods away soon
            await until(lambda: _ready(world) == "True" and world.node()["metadata"]["uid"] != old)
        await world.settled()
        assert not process.provider.asked("stop", "web")
    assert json.loads(world.node()["metadata"]["annotations"][SLICES]).keys() == {"blue", "red"}


async def test_pieces_of_the_pod_cidrs_are_told_before_the_first_pod_starts(world: World) -> None:
    world.put(pod("web"))
    async with world.process():
        await world.runs("web")
    requests = world.cluster.requests
    told = next(n for n, request in enumerate(requests) if request.path == f"/api/v1/nodes/{NODE}" and request.method == "PATCH")
    bound = next(n for n, request in enumerate(requests) if "vknix.io/host" in json.dumps(request.body))
    assert told < bound


async def test_pieces_stay_with_their_hosts(world: World) -> None:
    told = {"blue": "10.1.7.0/24", "red": "10.1.9.0/24"}
    world.cluster.put("nodes", {"metadata": {"name": NODE, "annotations": {SLICES: json.dumps(told)}}, "spec": {}})
    world.put(pod("web"))
    async with world.process():
        await world.runs("web")
    assert json.loads(world.node()["metadata"]["annotations"][SLICES]) == told
    assert world.status("web")["podIP"] == "10.1.7.1"


async def test_node_is_not_ready_while_no_host_answers(world: World) -> None:
    async with world.process():
        await until(lambda: _ready(world) == "True")
        world.hosts["red"].lose()
        await until(lambda: "1 of 2 hosts away" in json.dumps(world.node()["status"]["conditions"]))
        assert _ready(world) == "True"
        world.hosts["blue"].lose("no route to host")
        await until(lambda: _ready(world) == "False")
        assert "no route to host" in json.dumps(world.node()["status"]["conditions"])
        world.hosts["blue"].heal()
        await until(lambda: _ready(world) == "True")


async def test_labels_that_somebody_took_off_come_back_and_others_stay(world: World) -> None:
    async with world.process():
        await until(lambda: _ready(world) == "True")
        node = world.node()
        world.cluster.put("nodes", {**node, "metadata": {**node["metadata"], "labels": {"mine": "yes"}}})
        await until(lambda: world.node()["metadata"]["labels"].get("shape") == "fake")
    assert world.node()["metadata"]["labels"]["mine"] == "yes"


async def test_status_that_says_nothing_new_is_not_written(world: World) -> None:
    async with world.process():
        await until(lambda: _ready(world) == "True")
        await world.settled()
        before = len(world.cluster.asked("PATCH", f"/nodes/{NODE}/status"))
        node = world.node()
        world.cluster.put(
            "nodes", {**node, "metadata": {**node["metadata"], "annotations": {**node["metadata"]["annotations"], "x": "y"}}}
        )
        await world.settled()
        assert len(world.cluster.asked("PATCH", f"/nodes/{NODE}/status")) == before
