"""vknix.kube.events: what arrives at the API server, and that recording never waits for it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.fakes.cluster import Cluster, Fault, connected, until
from vknix.kube.events import NORMAL, WARNING, Limits, Recorder, Reference

WEB = Reference("Pod", "web", "shop", "u1", resource_version="7")
AS_A_KUBELET = Limits()
NODE = Reference("Node", "n1", "", "node-uid")


@contextlib.asynccontextmanager
async def recording(
    folder: Path, clock: Callable[[], float] = lambda: 1_000_000.0, limits: Limits = AS_A_KUBELET
) -> AsyncIterator[tuple[Cluster, Recorder]]:
    async with connected(folder) as (fake, client):
        recorder = Recorder(client, "n1", limits=limits, clock=clock)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(recorder.run())
            yield fake, recorder
            task.cancel()


def at_the_server(fake: Cluster) -> list[dict[str, object]]:
    return [obj for (kind, _, _), obj in fake.objects.items() if kind == "events"]


async def test_an_event_says_what_a_kubelet_would(tmp_path: Path) -> None:
    async with recording(tmp_path) as (fake, recorder):
        recorder.record(WEB, NORMAL, "Started", "Container started", "spec.containers{web}")
        await until(lambda: at_the_server(fake))
        (event,) = at_the_server(fake)
        assert event["involvedObject"] == {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "web",
            "namespace": "shop",
            "uid": "u1",
            "resourceVersion": "7",
            "fieldPath": "spec.containers{web}",
        }
        assert event["source"] == {"component": "kubelet", "host": "n1"}
        assert (event["reportingComponent"], event["reportingInstance"]) == ("kubelet", "n1")
        assert (event["count"], event["firstTimestamp"]) == (1, "1970-01-12T13:46:40Z")


async def test_an_event_of_a_node_lives_in_default_with_its_real_uid(tmp_path: Path) -> None:
    async with recording(tmp_path) as (fake, recorder):
        recorder.record(NODE, NORMAL, "Starting", "Starting vknix.")
        await until(lambda: at_the_server(fake))
        assert fake.asked("POST")[0].path == "/api/v1/namespaces/default/events"
        assert fake.asked("POST")[0].body["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "node-uid"}


async def test_repeats_are_counted_in_one_event(tmp_path: Path) -> None:
    now = [1000.0]
    async with recording(tmp_path, lambda: now[0]) as (fake, recorder):
        for _ in range(3):
            recorder.record(WEB, WARNING, "BackOff", "Back-off")
            now[0] += 100
        recorder.record(WEB, WARNING, "BackOff", "another message")
        await until(lambda: len(fake.requests) == 4)
        await until(lambda: len(at_the_server(fake)) == 2)
        first = next(event for event in at_the_server(fake) if event["message"] == "Back-off")
        assert (first["count"], first["firstTimestamp"], first["lastTimestamp"]) == (
            3,
            "1970-01-01T00:16:40Z",
            "1970-01-01T00:20:00Z",
        )


async def test_a_repeat_after_ten_minutes_is_a_new_event(tmp_path: Path) -> None:
    now = [1000.0]
    async with recording(tmp_path, lambda: now[0]) as (fake, recorder):
        recorder.record(WEB, WARNING, "BackOff", "Back-off")
        now[0] += 601
        recorder.record(WEB, WARNING, "BackOff", "Back-off")
        await until(lambda: len(at_the_server(fake)) == 2)


async def test_a_repeat_of_an_event_that_the_server_forgot_starts_anew(tmp_path: Path) -> None:
    async with recording(tmp_path) as (fake, recorder):
        recorder.record(WEB, WARNING, "BackOff", "Back-off")
        await until(lambda: at_the_server(fake))
        ((kind, namespace, name),) = [key for key in fake.objects if key[0] == "events"]
        fake.remove(kind, namespace, name)
        recorder.record(WEB, WARNING, "BackOff", "Back-off")
        await until(lambda: at_the_server(fake))
        assert at_the_server(fake)[0]["count"] == 1


async def test_a_reply_that_was_lost_does_not_make_two_events(tmp_path: Path) -> None:
    async with recording(tmp_path, limits=Limits(retry_s=0.05)) as (fake, recorder):
        fake.faults.append(Fault(lambda request: request.method == "POST", status=503))
        recorder.record(WEB, NORMAL, "Pulled", "Pulled")
        await until(lambda: at_the_server(fake))
        first, second = fake.asked("POST")
        assert first.body["metadata"]["name"] == second.body["metadata"]["name"]


async def test_an_event_that_is_refused_does_not_hold_up_the_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with recording(tmp_path) as (fake, recorder):
        fake.faults.append(Fault(lambda request: request.method == "POST", status=403))
        recorder.record(WEB, NORMAL, "Pulled", "Pulled")
        recorder.record(WEB, NORMAL, "Started", "Started")
        await until(lambda: at_the_server(fake))
        assert at_the_server(fake)[0]["reason"] == "Started"
        assert "event Pulled of web lost" in caplog.text


async def test_a_full_queue_drops_the_oldest_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(tmp_path) as (fake, client):
        recorder = Recorder(client, "n1")
        with caplog.at_level(logging.WARNING):
            for n in range(Limits().queue + 5):
                recorder.record(WEB, NORMAL, "Tick", str(n))
        assert recorder.dropped == 5
        assert caplog.text.count("events dropped") == 3  # after 1, 2 and 4
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(recorder.run())
            await until(lambda: at_the_server(fake))
            task.cancel()
        assert fake.asked("POST")[0].body["message"] == "5"


async def test_a_burst_goes_at_once_and_the_rest_at_the_limit(tmp_path: Path) -> None:
    async with recording(tmp_path, limits=Limits(qps=20, burst=5)) as (fake, recorder):
        started = asyncio.get_running_loop().time()
        for n in range(10):
            recorder.record(WEB, NORMAL, "Tick", str(n))
        await until(lambda: len(at_the_server(fake)) == 10)
        assert asyncio.get_running_loop().time() - started >= 4 / 20
