"""Hosts that are lost, listed late or rebooted; and vknix itself, killed and started again."""

import asyncio

import pytest

from tests.fakes.cluster import Fault, until
from tests.loops.world import World, pod
from vknix.errors import Deposed


async def test_next_process_restarts_and_syncs_nothing(world: World) -> None:
    names = [f"web-{number}" for number in range(4)]
    for name in names:
        world.put(pod(name))
    async with world.process():
        await world.runs(*names)
        await world.settled()
    told = {name: (world.container(name)["containerID"], world.status(name)["podIP"]) for name in names}
    writes = {name: len(world.writes(name)) for name in names}
    async with world.process() as process:
        await until(lambda: len(process.ledger.seen) == 4)
        await world.settled()
        assert not [call for call in process.provider.calls if call.pod in names]
    assert {name: (world.container(name)["containerID"], world.status(name)["podIP"]) for name in names} == told
    assert {name: len(world.writes(name)) for name in names} == writes


async def test_next_process_finds_what_has_ended_meanwhile(world: World) -> None:
    world.put(pod("job", restartPolicy="Never"))
    async with world.process():
        await world.runs("job")
    world.host_of("job").end(world.uid("job"), "main", 7, message="enough")
    async with world.process():
        await until(lambda: world.phase("job") == "Failed")
    ended = world.container("job")["state"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (7, "enough")


async def test_next_process_cleans_what_was_deleted_meanwhile(world: World) -> None:
    uid = world.put(pod("web"))
    async with world.process():
        await world.runs("web")
    host = world.host_of("web")
    world.cluster.remove("pods", "default", "web")
    async with world.process():
        await until(lambda: host.container(uid, "main") is None)


async def test_next_process_gives_no_address_twice(world: World) -> None:
    world.put(pod("old"))
    async with world.process():
        await world.runs("old")
    async with world.process():
        for name in ("new", "newer", "newest"):
            world.put(pod(name))
        await world.runs("new", "newer", "newest")
    addresses = [world.status(name)["podIP"] for name in ("old", "new", "newer", "newest")]
    assert len(set(addresses)) == 4


async def test_next_process_renews_tokens_of_what_it_took_over(world: World) -> None:
    volume = {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    world.put(pod("web", volumes=[volume], container={"volumeMounts": [{"name": "token", "mountPath": "/token"}]}))
    async with world.process():
        await world.runs("web")
    async with world.process() as process:
        await until(lambda: process.provider.asked("sync", "web"))
        await world.settled()
        assert [call.run for call in process.provider.asked("sync", "web")] == [()]


async def test_lost_host_keeps_the_phase_and_starts_nothing_elsewhere(world: World) -> None:
    world.put(pod("web"))
    async with world.process() as process:
        await world.runs("web")
        host, before = world.host_of("web"), world.container("web")["containerID"]
        synced = len(process.provider.asked("sync", "web"))
        host.lose("no route to host")
        await until(lambda: not world.ready("web"))
        ready = world.condition("web", "Ready")
        assert (world.phase("web"), ready["reason"]) == ("Running", "HostUnreachable")
        assert "no route to host" in ready["message"]
        await world.settled()
        assert world.host_of("web") is host
        host.heal()
        await world.runs("web")
        assert world.container("web")["containerID"] == before
        assert len(process.provider.asked("sync", "web")) == synced


async def test_pod_deleted_while_its_host_is_lost_goes_when_it_is_back(world: World) -> None:
    world.put(pod("web"))
    async with world.process():
        await world.runs("web")
        host = world.host_of("web")
        host.lose()
        await until(lambda: not world.ready("web"))
        world.delete("web")
        await world.settled()
        assert world.has("web")
        host.heal()
        await until(lambda: not world.has("web"))


async def test_pod_that_ended_on_a_lost_host_is_told_when_it_is_back(world: World) -> None:
    world.put(pod("job", restartPolicy="Never"))
    async with world.process():
        await world.runs("job")
        host = world.host_of("job")
        host.lose()
        await until(lambda: not world.ready("job"))
        host.end(world.uid("job"), "main", 5)
        host.heal()
        await until(lambda: world.phase("job") == "Failed")
    assert world.container("job")["state"]["terminated"]["exitCode"] == 5


async def test_inherited_pod_without_a_host_waits_until_each_host_was_asked(world: World) -> None:
    world.put(pod("old"))
    world.hosts["red"].lose()
    async with world.process() as process:
        await until(lambda: process.ledger.wanted)
        world.put(pod("new"))
        await world.runs("new")
        await world.settled()
        assert not process.provider.asked("sync", "old")
        assert not world.writes("old")
        world.hosts["red"].heal()
        await world.runs("old")
    assert world.host_of("new") is world.hosts["blue"]


async def test_reboot_restarts_pods_and_ends_those_that_are_not_restarted(world: World) -> None:
    world.put(pod("web"))
    world.put(pod("job", restartPolicy="Never"))
    async with world.process():
        await world.runs("web", "job")
        for host in world.hosts.values():
            host.reboot()
        await until(lambda: world.container("web")["restartCount"] == 1 and world.ready("web"))
        await until(lambda: world.phase("job") == "Failed")
    for ended in (world.container("web")["lastState"], world.container("job")["state"]):
        assert (ended["terminated"]["exitCode"], ended["terminated"]["reason"]) == (137, "ContainerStatusUnknown")


async def test_host_that_lost_its_disk_makes_a_pod_anew_and_counts_it(world: World) -> None:
    uid = world.put(pod("web"))
    async with world.process():
        await world.runs("web")
        host = world.host_of("web")
        host.lose()
        await until(lambda: not world.ready("web"))
        host.clean(uid)
        host.heal()
        await world.runs("web")
    assert world.container("web")["restartCount"] == 1


async def test_hosts_that_answer_before_the_api_server_lose_nothing(world: World) -> None:
    world.put(pod("web"))
    async with world.process():
        await world.runs("web")
    before = world.container("web")["containerID"]
    world.cluster.faults.append(Fault(lambda request: request.path == "/api/v1/pods", 3, status=503))
    async with world.process() as process:
        await until(lambda: process.ledger.seen)
        assert not process.ledger.wanted
        await until(lambda: process.ledger.wanted)
        await world.settled()
    assert world.container("web")["containerID"] == before


async def test_deposed_ends_everything(world: World) -> None:
    async def depose() -> None:
        async with world.process():
            await until(lambda: world.node().get("status"))
            for host in world.hosts.values():
                host.epoch += 1
            world.put(pod("web"))
            await asyncio.Event().wait()

    with pytest.raises(BaseExceptionGroup) as raised:
        await depose()
    assert raised.value.subgroup(Deposed) is not None
