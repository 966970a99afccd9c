"""One container's exit restarts all, on hosts in memory."""

from functools import partial
from itertools import groupby

import pytest

from tests.fakes.cluster import Object, until
from tests.loops.world import IMAGE, Process, World, pod

RULES = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]
NAMES = ("init", "side", "main", "other")


def container(name: str, *command: str, **fields: object) -> Object:
    return {"name": name, "image": IMAGE, "command": list(command or ("cat",)), **fields}


def job(name: str = "web") -> Object:
    of = pod(
        name,
        container={"restartPolicy": "Never", "restartPolicyRules": RULES},
        initContainers=[container("init", "true"), container("side", restartPolicy="Always")],
        restartPolicy="Never",
    )
    of["spec"]["containers"].append(container("other"))
    return of


def starts(process: Process) -> list[str]:
    """In their order; the first is asked for again once its closure is there."""
    every = [name for call in process.provider.asked("sync", "web") for name in call.run]
    return [name for name, _ in groupby(every)]


def counts(world: World) -> dict[str, int]:
    return {name: world.member("web", name)["restartCount"] for name in NAMES}


def in_round(world: World, number: int) -> bool:
    return counts(world) == dict.fromkeys(NAMES, number) and world.ready("web")


async def test_all_start_anew_from_the_init_container(world: World) -> None:
    world.put(job())
    async with world.process() as process:
        await world.runs("web")
        for number in (1, 2):
            world.host_of("web").end(world.uid("web"), "main", 42)
            await until(partial(in_round, world, number))
        assert starts(process) == ["init", "side", "main", "other"] * 3
        assert world.condition("web", "AllContainersRestarting")["status"] == "False"
        assert world.member("web", "other")["lastState"]["terminated"]["reason"] == "RestartingAllContainers"
        assert world.condition("web", "Initialized")["status"] == "True"
        phases = {request.body["status"].get("phase") for request in world.writes("web") if "status" in (request.body or {})}
        assert "Failed" not in phases
        told = [each for request in world.writes("web") for each in (request.body or {}).get("status", {}).get("conditions", ())]
        assert [each["status"] for each in told if each["type"] == "AllContainersRestarting"] == ["False", *["True", "False"] * 2]
        world.host_of("web").end(world.uid("web"), "main", 0)
        world.host_of("web").end(world.uid("web"), "other", 0)
        await until(lambda: world.phase("web") == "Succeeded")


async def test_another_exit_code_restarts_nobody(world: World) -> None:
    world.put(job())
    async with world.process() as process:
        await world.runs("web")
        world.host_of("web").end(world.uid("web"), "main", 41)
        await until(lambda: world.state("web", "main") == "terminated")
        await world.settled()
        assert starts(process) == ["init", "side", "main", "other"]


@pytest.mark.parametrize("when", ["before it is known", "while it ends"])
async def test_next_process_goes_on_with_it(world: World, when: str) -> None:
    world.put(job())
    async with world.process() as process:
        await world.runs("web")
        if when == "while it ends":
            world.host_of("web").end(world.uid("web"), "main", 42)
            await until(lambda: process.provider.asked("stop", "web"))
    if when == "before it is known":
        world.host_of("web").end(world.uid("web"), "main", 42)
    async with world.process() as process:
        await until(lambda: in_round(world, 1))
        assert "main" in starts(process)


async def test_what_leaves_does_not_start_anew(world: World) -> None:
    world.put(job())
    async with world.process() as process:
        await world.runs("web")
        world.delete("web", 1)
        world.host_of("web").end(world.uid("web"), "main", 42)
        await until(lambda: not world.has("web"))
        assert starts(process) == ["init", "side", "main", "other"]
