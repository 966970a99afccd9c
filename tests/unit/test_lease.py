"""vknix.kube.lease: one leader a node, whatever crashes, hangs or comes twice."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.cluster import Cluster, Fault, connected, until
from vknix.errors import Deposed, Unreachable
from vknix.kube.client import Client
from vknix.kube.lease import LEADER, NodeLease, Times

KEY = ("coordination.k8s.io/leases", "kube-node-lease", "n1")
TIMES = Times(duration_s=40, renew_s=0.05, retry_s=0.01, call_s=0.3)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lease_of(client: Client, clock: Clock | None = None) -> NodeLease:
    return NodeLease(client, "n1", times=TIMES, clock=clock or Clock(), wall=lambda: 1_800_000_000.25)


def leader(fake: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fake.get(*KEY)["metadata"]["annotations"][LEADER])
    return found


@contextlib.asynccontextmanager
async def led(folder: Path, clock: Clock | None = None) -> AsyncIterator[tuple[Cluster, Client, NodeLease]]:
    """A cluster in which process a1 of installation a leads n1."""
    async with connected(folder) as (fake, client):
        lease = lease_of(client, clock)
        await lease.acquire("a1", "a")
        yield fake, client, lease


async def test_the_lease_is_a_kubelets_heartbeat(tmp_path: Path) -> None:
    async with led(tmp_path) as (fake, _, lease):
        assert fake.get(*KEY)["spec"] == {
            "holderIdentity": "n1",
            "leaseDurationSeconds": 40,
            "renewTime": "2027-01-15T08:00:00.250000Z",
        }
        lease.own("node-uid")
        await lease.renew()
        owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "node-uid"}
        assert fake.get(*KEY)["metadata"]["ownerReferences"] == [owner]


async def test_the_first_epoch_is_the_time_so_that_a_deleted_lease_does_not_send_it_back(tmp_path: Path) -> None:
    async with led(tmp_path) as (fake, client, lease):
        assert lease.epoch == 1_800_000_000
        assert await lease_of(client).acquire("a2", "a") == 1_800_000_001
        fake.remove(*KEY)
        assert await lease_of(client).acquire("a3", "a") >= 1_800_000_000


async def test_the_same_installation_takes_over_at_once(tmp_path: Path) -> None:
    async with led(tmp_path) as (fake, client, old):
        async with asyncio.timeout(2):
            assert await lease_of(client).acquire("a2", "a") == old.epoch + 1
        assert leader(fake)["id"] == "a2"
        with pytest.raises(Deposed, match="led by a2"):
            await old.renew()
        assert leader(fake)["id"] == "a2"


async def test_a_released_lease_is_taken_over_at_once_with_a_higher_epoch(tmp_path: Path) -> None:
    async with led(tmp_path) as (fake, client, old):
        await old.release()
        assert leader(fake)["id"] == ""
        async with asyncio.timeout(2):
            assert await lease_of(client).acquire("b1", "b") == old.epoch + 1


async def test_a_live_leader_of_another_installation_is_waited_for(tmp_path: Path) -> None:
    clock, wall = Clock(), Clock()
    async with connected(tmp_path) as (fake, client):
        old = NodeLease(client, "n1", times=TIMES, clock=clock, wall=wall)
        await old.acquire("a1", "a")
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(lease_of(client, clock).acquire("b1", "b"))
            for _ in range(4):
                await looked_twice(fake)
                clock.now += 39
                wall.now += 39
                await old.renew()
                await looked_twice(fake)
                assert not taking.done()
            clock.now += 41  # and no renewal
            assert await taking == old.epoch + 1
        with pytest.raises(Deposed):
            await old.renew()


async def looked_twice(fake: Cluster) -> None:
    """Until the waiter has read the lease as it is now."""
    asked = len(fake.asked("GET"))
    await until(lambda: len(fake.asked("GET")) >= asked + 2)


async def test_a_waiter_does_not_renew_the_heartbeat(tmp_path: Path) -> None:
    async with led(tmp_path) as (fake, client, _):
        writes = len(fake.asked("PUT")) + len(fake.asked("POST"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await lease_of(client).acquire("b1", "b")
        assert len(fake.asked("PUT")) + len(fake.asked("POST")) == writes


async def test_of_two_that_take_over_one_wins(tmp_path: Path) -> None:
    async with connected(tmp_path) as (fake, client):
        clock = Clock()
        lease_a, lease_b = lease_of(client, clock), lease_of(client, clock)
        async with asyncio.TaskGroup() as tasks:
            both = {tasks.create_task(lease_a.acquire("a1", "a")), tasks.create_task(lease_b.acquire("b1", "b"))}
            done, waiting = await asyncio.wait(both, timeout=0.3)
            assert (len(done), len(waiting)) == (1, 1)
            for task in waiting:
                task.cancel()
        assert leader(fake)["id"] in {"a1", "b1"}


async def test_holding_survives_an_outage_and_a_deleted_lease(tmp_path: Path) -> None:
    async with led(tmp_path) as (fake, _, lease):
        async with asyncio.TaskGroup() as tasks:
            holding = tasks.create_task(lease.hold())
            fake.faults.append(Fault(lambda request: request.method == "PUT", times=8, status=503))
            await until(lambda: not fake.faults[0].times)
            fake.remove(*KEY)
            await until(lambda: KEY in fake.objects)
            assert leader(fake)["id"] == "a1"
            assert leader(fake)["epoch"] == lease.epoch
            assert not holding.done()
            holding.cancel()


async def test_a_foreign_write_is_no_deposition(tmp_path: Path) -> None:
    async with led(tmp_path) as (fake, _, lease):
        fake.put(KEY[0], fake.get(*KEY))
        await lease.renew()
        assert leader(fake)["id"] == "a1"


async def test_holding_ends_when_deposed(tmp_path: Path) -> None:
    async with led(tmp_path) as (_, client, lease):
        await lease_of(client).acquire("a2", "a")
        async with asyncio.timeout(5):
            with pytest.raises(Deposed):
                await lease.hold()


async def test_a_silent_server_costs_a_bounded_time(tmp_path: Path) -> None:
    async with led(tmp_path) as (fake, _, lease):
        fake.faults.append(Fault(lambda _: True, times=1000, silence=True))
        async with asyncio.timeout(5):
            with pytest.raises(Unreachable):
                await lease.renew()


async def test_releasing_without_a_cluster_is_quiet(tmp_path: Path) -> None:
    async with led(tmp_path) as (fake, _, lease):
        fake.faults.append(Fault(lambda _: True, times=1000, close=True))
        await lease.release()
