"""Containers whose variables others have left in a file, on hosts in memory."""

from typing import Any

from tests.fakes.cluster import Object, until
from tests.loops.world import IMAGE, World, pod

VOLUMES: Object = {"volumes": [{"name": "v", "emptyDir": {}}]}
FIRST: Object = {"name": "first", "image": IMAGE, "command": ["cat"]}


def reading(name: str = "main", *command: str) -> Object:
    ref = {"volumeName": "v", "path": "env", "key": "A"}
    env = [{"name": "A", "valueFrom": {"fileKeyRef": ref}}]
    return {"name": name, "image": IMAGE, "command": list(command or ("cat",)), "env": env}


def printed(world: World, name: str, container: str = "main") -> list[bytes]:
    found = world.host_of(name).container(world.uid(name), container)
    return [line.strip() for log in found.logs for _, line in log] if found is not None else []


def reader(name: str, *command: str, **spec: Any) -> Object:
    return pod(name, *command, container=reading("main", *(command or ("cat",))), **VOLUMES, **spec)


async def test_file_is_read_once_the_init_container_has_written_it(world: World) -> None:
    world.put(reader("web", "echo", "got $(A)", initContainers=[FIRST], restartPolicy="Never"))
    async with world.process():
        await until(lambda: world.state("web", "first") == "running")
        await world.settled()
        assert world.waits_for("web") == "PodInitializing"
        host, uid = world.host_of("web"), world.uid("web")
        host.put(uid, "v", "env", b"A='a'\n")
        host.end(uid, "first", 0)
        await until(lambda: world.phase("web") == "Succeeded")
        assert printed(world, "web") == [b"got a"]
    assert "Failed" not in world.reasons("web")


async def test_container_waits_for_its_key_and_the_others_run(world: World) -> None:
    of = reader("web")
    of["spec"]["containers"].append({"name": "other", "image": IMAGE, "command": ["cat"]})
    world.put(of)
    async with world.process():
        await until(lambda: world.waits_for("web") == "CreateContainerConfigError")
        await until(lambda: world.state("web", "other") == "running")
        await world.settled()
        assert "couldn't parse env file" in world.member("web", "main")["state"]["waiting"]["message"]
        await until(lambda: "Failed" in world.reasons("web"))
        world.host_of("web").put(world.uid("web"), "v", "env", b"A='a'\n")
        await world.runs("web")
    assert world.reasons("web").count("Failed") == 1


async def test_each_attempt_has_what_is_in_the_file_then(world: World) -> None:
    world.put(reader("web", "sleep", "$(A)", initContainers=[FIRST], restartPolicy="Always"))

    def runs(*argv: str) -> bool:
        found = world.host_of("web").container(world.uid("web"), "main")
        return found is not None and found.runs and found.argv == argv

    async with world.process():
        await until(lambda: world.state("web", "first") == "running")
        host, uid = world.host_of("web"), world.uid("web")
        host.put(uid, "v", "env", b"A='1000001'\n")
        host.end(uid, "first", 0)
        await until(lambda: runs("sleep", "1000001") and world.ready("web"))
        host.put(uid, "v", "env", b"A='1000002'\n")
        host.end(uid, "main", 1)
        await until(lambda: runs("sleep", "1000002"))
