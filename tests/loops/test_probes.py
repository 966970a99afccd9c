"""Probes of containers that run on hosts in memory: readiness, liveness and startup, and processes that come and go."""

import asyncio
from typing import Any

import pytest

from tests.fakes.cluster import Object, until
from tests.loops.test_init import container, sidecar
from tests.loops.world import World, pod
from vknix.core.facts import State
from vknix.errors import NotFound


def when(*test: str, **fields: Any) -> Object:
    """Each second; what comes counts at once."""
    return {"exec": {"command": ["test", *test]}, "periodSeconds": 1, "failureThreshold": 1, **fields}


READY, NOT_SICK, UP = when("-e", "/ready"), when("!", "-e", "/sick"), when("-e", "/up")
PATIENT = {**UP, "failureThreshold": 60}


def web(name: str = "web", **probes: Object) -> Object:
    return pod(name, container={f"{kind}Probe": probe for kind, probe in probes.items()})


async def running(world: World, name: str = "web") -> None:
    await until(lambda: world.state(name, "main") == "running")


async def test_readiness_flips_and_nothing_is_restarted(world: World) -> None:
    uid = world.put(web(readiness=READY))
    async with world.process():
        await running(world)
        assert (world.phase("web"), world.ready("web")) == ("Running", False)
        assert world.condition("web", "Ready")["reason"] == "ContainersNotReady"
        await until(lambda: ("Unhealthy", "Readiness probe failed: ") in world.events("web"))
        world.host_of("web").touch(uid, "main", "/ready")
        await until(lambda: world.ready("web"))
        world.host_of("web").remove(uid, "main", "/ready")
        await until(lambda: not world.ready("web"))
    told = world.container("web")
    assert (told["ready"], told["started"], told["restartCount"]) == (False, True, 0)
    assert "Killing" not in world.reasons("web")


@pytest.mark.parametrize("kind", ["httpGet", "tcpSocket"])
async def test_pod_that_listens_becomes_ready(world: World, kind: str) -> None:
    probe = {kind: {"port": "web"}, "periodSeconds": 1, "failureThreshold": 1}
    uid = world.put(pod("web", container={"readinessProbe": probe, "ports": [{"name": "web", "containerPort": 8080}]}))
    async with world.process():
        await running(world)
        refused = "Readiness probe failed: dial tcp 10.1.0.1:8080: connection refused"
        await until(lambda: ("Unhealthy", refused) in world.events("web"))
        world.host_of("web").listen(uid, "main", 8080, lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await until(lambda: world.ready("web"))


async def test_container_that_is_not_alive_is_killed_and_comes_back(world: World) -> None:
    uid = world.put(web(liveness=NOT_SICK))
    async with world.process():
        await world.runs("web")
        before = world.container("web")["containerID"]
        world.host_of("web").touch(uid, "main", "/sick")
        await until(lambda: world.container("web")["restartCount"] == 1 and world.ready("web"))
        await until(lambda: "Killing" in world.reasons("web"))
        await world.settled()
    told = world.container("web")
    assert (told["restartCount"], told["lastState"]["terminated"]["exitCode"]) == (1, 143)
    assert told["containerID"] != before
    events = [each for each in world.events("web") if each[0] in ("Unhealthy", "Killing")]
    assert events == [
        ("Unhealthy", "Liveness probe failed: "),
        ("Killing", "Container main failed liveness probe, will be restarted"),
    ]


async def test_grace_of_a_probe_is_for_what_it_kills(world: World) -> None:
    probe = {**NOT_SICK, "terminationGracePeriodSeconds": 1}
    uid = world.put(pod("web", "sleep", "1000000", container={"livenessProbe": probe}, terminationGracePeriodSeconds=600))
    async with world.process() as process:
        await world.runs("web")
        world.host_of("web").touch(uid, "main", "/sick")
        await until(lambda: world.container("web")["restartCount"] == 1)
        first = process.provider.asked("stop", "web")[0]
    assert first.containers == ("main",)
    assert world.container("web")["lastState"]["terminated"]["exitCode"] == 137


async def test_container_that_is_not_alive_ends_a_pod_of_never(world: World) -> None:
    uid = world.put(pod("web", container={"livenessProbe": NOT_SICK}, restartPolicy="Never"))
    async with world.process():
        await world.runs("web")
        world.host_of("web").touch(uid, "main", "/sick")
        await until(lambda: world.phase("web") == "Failed")
        await until(lambda: ("Killing", "Container main failed liveness probe") in world.events("web"))
    assert world.container("web")["restartCount"] == 0


async def test_container_that_was_killed_to_start_again_does_though_another_vknix_sees_it_end(world: World) -> None:
    of = pod("web", "sleep", "1000000", container={"livenessProbe": NOT_SICK}, restartPolicy="OnFailure")
    of["spec"]["terminationGracePeriodSeconds"] = 600
    uid = world.put(of)
    async with world.process() as process:
        await world.runs("web")
        host = world.host_of("web")
        host.touch(uid, "main", "/sick")
        await until(
            lambda: bool(process.provider.asked("stop", "web")) and host.seen(uid).containers["main"].state is State.STOPPING
        )
    host.end(uid, "main", 0)
    async with world.process():
        await until(lambda: world.container("web")["restartCount"] == 1 and world.state("web", "main") == "running")
        host.end(uid, "main", 0)
        await until(lambda: world.phase("web") == "Succeeded")


async def test_another_container_is_restarted_while_one_is_being_killed(world: World) -> None:
    sick = container("sick", "sleep", "1000000", livenessProbe=NOT_SICK)
    of = pod("web", terminationGracePeriodSeconds=600)
    of["spec"]["containers"].append(sick)
    uid = world.put(of)
    async with world.process() as process:
        await world.runs("web")
        world.host_of("web").touch(uid, "sick", "/sick")
        await until(lambda: process.provider.asked("stop", "web"))
        world.host_of("web").end(uid, "main", 1)
        await until(lambda: world.member("web", "main")["restartCount"] == 1 and world.state("web", "main") == "running")
        assert world.member("web", "sick")["restartCount"] == 0
        assert ("main",) in [call.run for call in process.provider.asked("sync", "web")]  # at once, before its host would


async def test_startup_probe_holds_back_the_others(world: World) -> None:
    """Both would fail at once."""
    uid = world.put(web(startup=PATIENT, liveness=UP, readiness=READY))
    async with world.process():
        await running(world)
        await until(lambda: ("Unhealthy", "Startup probe failed: ") in world.events("web"))
        assert (world.container("web")["started"], world.ready("web")) == (False, False)
        assert {message for reason, message in world.events("web") if reason == "Unhealthy"} == {"Startup probe failed: "}
        host = world.host_of("web")
        host.touch(uid, "main", "/up")
        await until(lambda: world.container("web")["started"])
        assert not world.ready("web")
        host.touch(uid, "main", "/ready")
        await world.runs("web")
    assert world.container("web")["restartCount"] == 0


async def test_container_that_does_not_start_in_time_is_killed(world: World) -> None:
    world.put(web(startup={**UP, "failureThreshold": 2}))
    async with world.process():
        await until(lambda: world.container("web").get("restartCount") == 1)
        await until(lambda: "Killing" in world.reasons("web"))
    killing = "Container main failed startup probe, will be restarted"
    assert [message for reason, message in world.events("web") if reason == "Killing"] == [killing]


async def test_startup_probe_of_a_sidecar_holds_back_main(world: World) -> None:
    uid = world.put(pod("web", initContainers=[sidecar("side", startupProbe=PATIENT)]))
    async with world.process():
        await until(lambda: "Unhealthy" in world.reasons("web"))
        await world.settled()
        assert world.waits_for("web") == "PodInitializing"
        world.host_of("web").touch(uid, "side", "/up")
        await world.runs("web")


async def test_next_process_keeps_who_is_ready(world: World) -> None:
    uid = world.put(web(startup=PATIENT, liveness=NOT_SICK, readiness=READY))
    world.put(web("other", liveness=NOT_SICK))
    async with world.process():
        await running(world)
        for path in ("/up", "/ready"):
            world.host_of("web").touch(uid, "main", path)
        await world.runs("web", "other")
        await world.settled()
    writes = len(world.writes("web"))
    async with world.process() as process:
        await until(lambda: len(process.ledger.probed) == 2)
        await world.settled()
        assert len(world.writes("web")) == writes
        world.host_of("web").remove(uid, "main", "/ready")
        await until(lambda: not world.ready("web"))
        world.host_of("web").touch(uid, "main", "/sick")
        await until(lambda: world.container("web")["restartCount"] == 1)


async def test_pod_that_was_told_as_lost_is_ready_again_in_the_next_process(world: World) -> None:
    world.put(web(liveness=NOT_SICK))
    async with world.process():
        await world.runs("web")
        world.host_of("web").lose()
        await until(lambda: not world.ready("web"))
    world.host_of("web").heal()
    async with world.process():
        await world.runs("web")


async def test_lost_host_is_no_failure_of_a_probe(world: World) -> None:
    uid = world.put(web(liveness=NOT_SICK))
    async with world.process() as process:
        await world.runs("web")
        host = world.host_of("web")
        host.lose()
        await until(lambda: not world.ready("web"))
        host.touch(uid, "main", "/sick")
        tries = len(process.provider.tried)
        await until(lambda: len(process.provider.tried) > tries + 1)
        host.remove(uid, "main", "/sick")
        host.heal()
        await world.runs("web")
        await world.settled()
    assert world.container("web")["restartCount"] == 0
    assert "Unhealthy" not in world.reasons("web")


async def test_leaving_pod_is_asked_whether_it_is_ready_and_not_whether_it_lives(world: World) -> None:
    main = {"livenessProbe": NOT_SICK, "readinessProbe": READY}
    uid = world.put(pod("web", "sleep", "1000000", container=main, terminationGracePeriodSeconds=600))
    async with world.process():
        await running(world)
        host = world.host_of("web")
        host.touch(uid, "main", "/ready")
        await world.runs("web")
        world.delete("web", grace_s=600)
        await until(lambda: "Killing" in world.reasons("web"))
        host.touch(uid, "main", "/sick")
        host.remove(uid, "main", "/ready")
        await until(lambda: not world.ready("web"))
        await until(lambda: ("Unhealthy", "Readiness probe failed: ") in world.events("web"))
        assert [message for reason, message in world.events("web") if reason == "Unhealthy"] == ["Readiness probe failed: "]
        world.delete("web", grace_s=0)
        await until(lambda: not world.has("web"))


@pytest.mark.parametrize("kind", ["startup", "liveness", "readiness"])
async def test_probe_that_goes_on_after_its_end_does_not_end_the_node(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What it asks may fail in the moment in which it is cancelled: a task group tells of the failure then."""
    world.put(pod("web", container={f"{kind}Probe": {**UP, "timeoutSeconds": 600}}))
    asked, failed = asyncio.Event(), asyncio.Event()

    async def fails_in_the_end(*_: object) -> int:
        asked.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            failed.set()
            raise NotFound("container not found") from None
        return 0

    async with world.process() as process:
        monkeypatch.setattr(process.provider, "exec", fails_in_the_end)
        await asyncio.wait_for(asked.wait(), 10)
        world.delete("web")
        await until(lambda: not world.has("web"))
        await asyncio.wait_for(failed.wait(), 10)
        await world.settled()
        world.put(web("next"))
        await running(world, "next")


async def test_probes_end_with_their_pod(world: World) -> None:
    world.put(web(liveness=NOT_SICK))
    async with world.process() as process:
        await world.runs("web")
        world.delete("web")
        await until(lambda: not world.has("web"))
        await until(lambda: not process.ledger.probed)
