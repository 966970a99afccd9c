"""Pods that have more on disk than they may, on hosts in memory."""

from tests.fakes.cluster import Object, until
from tests.loops.world import World, pod

MIB = 1 << 20
SIZED: Object = {"volumes": [{"name": "x", "emptyDir": {"sizeLimit": "1Mi"}}]}
LIMITED: Object = {"resources": {"limits": {"ephemeral-storage": "1Mi"}}}
WHY = 'Usage of EmptyDir volume "x" exceeds the limit "1Mi". '


async def test_pod_with_too_much_in_a_volume_fails_and_others_run_on(world: World) -> None:
    world.put(pod("big", terminationGracePeriodSeconds=600, **SIZED))
    world.put(pod("small", **SIZED))
    async with world.process() as process:
        await world.runs("big", "small")
        world.host_of("small").fill(world.uid("small"), "x", MIB)
        world.host_of("big").fill(world.uid("big"), "x", MIB + 1)
        await until(lambda: world.phase("big") == "Failed")
        await until(lambda: "Evicted" in world.reasons("big"))
        await world.settled()
        assert world.ready("small")
        world.delete("big", 0)
        await until(lambda: not world.has("big"))
        await until(lambda: process.ledger.evicted == {})
    assert [event for event in world.events("big") if event[0] == "Evicted"] == [("Evicted", WHY)]
    assert process.provider.asked("stop", "small") == []


async def test_reason_is_told_with_the_end_and_not_before(world: World) -> None:
    world.put(pod("web", "cat", container=LIMITED))
    async with world.process():
        await world.runs("web")
        world.host_of("web").fill(world.uid("web"), "main", MIB + 1)
        await until(lambda: world.phase("web") == "Failed")
    status = world.status("web")
    assert (status["reason"], status["message"]) == (
        "Evicted",
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
    )
    assert world.state("web", "main") == "terminated"
    reasons = [request.body["status"].get("reason") for request in world.writes("web") if "status" in (request.body or {})]
    assert reasons.count("Evicted") == 1


async def test_host_that_says_nothing_evicts_nobody(world: World) -> None:
    world.put(pod("web", **SIZED))
    async with world.process() as process:
        await world.runs("web")
        host = world.host_of("web")
        host.fill(world.uid("web"), "x", MIB + 1)
        host.lose()
        await until(lambda: not world.ready("web"))
        assert process.ledger.evicted == {}
        host.heal()
        await until(lambda: world.phase("web") == "Failed")


async def test_next_process_finds_what_is_too_much_again(world: World) -> None:
    world.put(pod("web", **SIZED))
    async with world.process():
        await world.runs("web")
    world.host_of("web").fill(world.uid("web"), "x", MIB + 1)
    async with world.process():
        await until(lambda: world.phase("web") == "Failed")
    assert world.status("web")["reason"] == "Evicted"
