"""From a Pod that is not wanted any more to nothing."""

import asyncio
import json
import time

from tests.fakes.cluster import until
from tests.loops.world import World, pod
from vknix.core.pod import Pod, record


async def test_graceful_deletion_stops_reports_cleans_and_confirms(world: World) -> None:
    world.put(pod("web", terminationGracePeriodSeconds=30))
    async with world.process() as process:
        await world.runs("web")
        world.delete("web", grace_s=30)
        await until(lambda: not world.has("web"))
        await until(lambda: "Killing" in world.reasons("web"))
    stops, cleans = process.provider.asked("stop", "web"), process.provider.asked("clean", "web")
    assert len(stops) == 1
    assert 20 < stops[0].deadline - time.time() <= 30
    assert cleans[0].shown is not None
    assert cleans[0].shown["status"]["phase"] == "Failed"
    assert cleans[0].shown["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143
    confirmed = world.cluster.asked("DELETE", "/pods/web")
    assert [request.body["gracePeriodSeconds"] for request in confirmed] == [0]


async def test_what_does_not_end_by_the_deadline_is_killed(world: World) -> None:
    world.put(pod("web", "sleep", "1000000"))
    async with world.process() as process:
        await world.runs("web")
        world.delete("web", grace_s=0.3)
        await until(lambda: not world.has("web"))
    shown = process.provider.asked("clean", "web")[0].shown
    assert shown is not None
    assert shown["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


async def test_grace_that_is_shortened_later_counts(world: World) -> None:
    world.put(pod("web", "sleep", "1000000"))
    async with world.process() as process:
        await world.runs("web")
        world.delete("web", grace_s=600)
        await until(lambda: process.provider.asked("stop", "web"))
        world.delete("web", grace_s=0)
        await until(lambda: not world.has("web"))


async def test_pod_deleted_by_force_is_stopped_and_cleaned(world: World) -> None:
    world.put(pod("web", "sleep", "1000000"))
    async with world.process() as process:
        await world.runs("web")
        uid = world.uid("web")
        world.cluster.remove("pods", "default", "web")
        await until(lambda: process.provider.asked("clean", "web"))
        await until(lambda: uid not in process.ledger.seen)
    assert process.provider.asked("stop", "web")
    assert not world.cluster.asked("DELETE", "/pods/web")


async def test_pod_whose_containers_are_held_is_deleted_at_once(world: World) -> None:
    """What was done last on the same facts was another step."""
    lacking = [{"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "word"}}}]
    world.put(pod("web", container={"env": lacking}))
    async with world.process() as process:

        async def delete(_: Pod) -> None:
            if len(process.provider.asked("sync", "web")) == 3:
                world.delete("web")

        process.provider.after = delete
        async with asyncio.timeout(3):
            await until(lambda: not world.has("web"))


async def test_pod_deleted_before_anything_is_made_has_failed_before_it_is_gone(world: World) -> None:
    """Its deletion is in the answer to the first status, in which it was not leaving yet."""
    async with world.process() as process:
        process.provider.placing = lambda of: world.delete(of.name)
        world.put(pod("web"))
        await until(lambda: not world.has("web"))
    told = [request.body["status"].get("phase") for request in world.writes("web") if request.method == "PATCH"]
    assert told == ["Pending", "Failed"]
    assert not process.provider.calls


async def test_answer_to_a_write_brings_no_pod_back(world: World) -> None:
    uid = world.put(pod("web"))
    async with world.process() as process:
        await world.runs("web")
        answer = record(json.dumps(world.pod("web")).encode())
        world.cluster.remove("pods", "default", "web")
        await until(lambda: uid not in process.ledger.wanted)
        process.pods.answered(answer)
        await until(lambda: not process.ledger.seen)
        assert not process.ledger.wanted


async def test_deletion_that_the_watch_missed_is_found_by_the_list(world: World) -> None:
    world.put(pod("web"))
    world.put(pod("other"))
    async with world.process() as process:
        await world.runs("web", "other")
        world.cluster.remove("pods", "default", "web")
        world.cluster.compact()
        world.cluster.end_watches()
        await until(lambda: process.provider.asked("clean", "web"))
        assert not process.provider.asked("stop", "other")


async def test_pod_of_the_same_name_is_another_pod(world: World) -> None:
    old = world.put(pod("web"))
    async with world.process() as process:
        await world.runs("web")
        world.cluster.remove("pods", "default", "web")
        new = world.put(pod("web"))
        await world.runs("web")
        await until(lambda: old not in process.ledger.seen)
        assert process.ledger.seen[new].containers["main"].exits == ()


async def test_pod_that_has_ended_is_kept_for_its_log_until_it_is_deleted(world: World) -> None:
    uid = world.put(pod("job", "true", restartPolicy="Never"))
    async with world.process() as process:
        await until(lambda: world.phase("job") == "Succeeded")
        await world.settled()
        assert uid in process.ledger.seen
        world.delete("job")
        await until(lambda: not world.has("job"))
        assert uid not in process.ledger.seen


async def test_address_of_a_pod_that_is_gone_is_free_again(world: World) -> None:
    async with world.process():
        for _ in range(2):
            world.put(pod("web"))
            await world.runs("web")
            assert world.status("web")["podIP"] == "10.1.0.1"
            world.delete("web")
            await until(lambda: not world.has("web"))
            await world.settled()
