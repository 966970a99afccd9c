"""From a Pod that is wanted to one that runs."""

import asyncio
import json
from dataclasses import replace

import pytest

from tests.fakes.cluster import Fault, until
from tests.loops.world import QUICK, Call, World, pod


async def test_pod_is_bound_before_anything_of_it_is_made(world: World) -> None:
    world.put(pod("web"))
    async with world.process() as process:
        await world.runs("web")
    for call in process.provider.asked("sync", "web"):
        assert call.shown is not None
        assert call.shown["metadata"]["annotations"]["vknix.io/host"] == "blue"
        assert call.shown["status"]["podIP"] == "10.1.0.1"


async def test_running_pod_is_told_with_addresses_and_conditions(world: World) -> None:
    world.put(pod("web"))
    async with world.process():
        await world.runs("web")
    status = world.status("web")
    assert (status["hostIP"], status["podIP"], status["podIPs"]) == ("192.0.2.1", "10.1.0.1", [{"ip": "10.1.0.1"}])
    assert {of["type"]: of["status"] for of in status["conditions"]} == dict.fromkeys(
        ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"), "True"
    )
    container = world.container("web")
    assert container["containerID"].startswith("systemd-nspawn://")
    assert (container["ready"], container["restartCount"]) == (True, 0)


async def test_pod_on_its_hosts_network_is_told_as_that_host_and_probed_there(world: World) -> None:
    address = world.hosts["blue"].facts.address
    probe = {"readinessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 1}}
    world.put(pod("web", hostNetwork=True, container={**probe, "ports": [{"containerPort": 1, "hostPort": 1}]}))
    async with world.process() as process:
        await until(lambda: f"dial tcp {address}:1" in str(world.events("web")))
        assert {call.shown["status"]["podIP"] for call in process.provider.asked("sync", "web") if call.shown} == {address}
    status = world.status("web")
    assert (status["hostIP"], status["podIP"], status["podIPs"]) == (address, address, [{"ip": address}])


async def test_events_tell_the_start_as_a_kubelet_does(world: World) -> None:
    world.hosts["blue"].images.fetch_s = 0.2
    world.put(pod("web"))
    async with world.process():
        await world.runs("web")
        await until(lambda: "Started" in world.reasons("web"))
    told = [reason for reason in world.reasons("web") if reason != "MissingClusterDNS"]
    assert told == ["Pulling", "Pulled", "Created", "Started"]


async def test_start_takes_three_writes_and_a_pod_that_does_not_change_takes_none(world: World) -> None:
    uid = world.put(pod("web"))
    async with world.process() as process:
        await world.runs("web")
        await world.settled()
        assert len(world.writes("web")) <= 3, [request.body for request in world.writes("web")]
        before = len(world.writes("web"))
        process.pods.wake(uid)
        await world.settled()
        assert len(world.writes("web")) == before


async def test_one_pod_at_a_time_has_one_worker_and_none_waits_for_another(world: World) -> None:
    at_work: list[str] = []
    most = 0
    held = asyncio.Event()

    async def hold(call: Call) -> None:
        nonlocal most
        at_work.append(call.pod)
        most = max(most, at_work.count("slow"))
        if call.pod == "slow":
            await held.wait()
        at_work.remove(call.pod)

    uid = world.put(pod("slow"))
    async with world.process() as process:
        process.provider.before = hold
        await until(lambda: "slow" in at_work)
        world.put(pod("quick"))
        process.pods.wake(uid)
        await world.runs("quick")
        process.pods.wake(uid)
        await world.settled()
        assert world.phase("slow") == "Pending"
        held.set()
        await world.runs("slow")
    assert most == 1


async def test_end_while_files_are_made_anew_is_restarted_at_once(world: World) -> None:
    """The turn that made the files began before the end: nobody waits for the host to say more than that."""
    world.times = replace(QUICK, told=3600.0)
    settings = {"metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "1"}}
    world.cluster.put("configmaps", settings)
    volume = {"name": "v", "configMap": {"name": "settings"}}
    uid = world.put(pod("web", restartPolicy="Always", volumes=[volume]))
    async with world.process() as process:
        await world.runs("web")
        await world.settled()
        read = Fault(lambda request: request.path.endswith("/configmaps/settings"), held=asyncio.Event())
        world.cluster.faults.append(read)
        world.cluster.put("configmaps", {**settings, "data": {"a": "2"}})
        await until(lambda: read.times == 0)
        world.host_of("web").end(uid, "main", 1)
        await until(lambda: process.ledger.seen[uid].containers["main"].exits)
        assert read.held is not None
        read.held.set()
        before = len(process.provider.calls)
        await until(lambda: any(call.run == ("main",) for call in process.provider.calls[before:]))


async def test_api_server_that_fails_for_a_while_only_delays(world: World) -> None:
    world.cluster.faults.append(Fault(lambda request: request.method == "PATCH" and "/pods/" in request.path, 5, status=500))
    world.put(pod("web"))
    async with world.process():
        await world.runs("web")


@pytest.mark.parametrize(
    ("policy", "command", "phase", "attempts"),
    [
        ("Never", "true", "Succeeded", 1),
        ("Never", "false", "Failed", 1),
        ("OnFailure", "true", "Succeeded", 1),
    ],
    ids=["Never-0", "Never-1", "OnFailure-0"],
)
async def test_pod_that_is_not_restarted_ends(world: World, policy: str, command: str, phase: str, attempts: int) -> None:
    uid = world.put(pod("job", command, restartPolicy=policy))
    async with world.process() as process:
        await until(lambda: world.phase("job") == phase)
        await world.settled()
        assert len(process.ledger.seen[uid].containers["main"].exits) == attempts
    ended = world.container("job")["state"]["terminated"]
    assert ended["exitCode"] == (0 if phase == "Succeeded" else 1)
    assert ended["reason"] == ("Completed" if phase == "Succeeded" else "Error")
    assert world.condition("job", "Ready")["reason"] == ("PodCompleted" if phase == "Succeeded" else "PodFailed")


@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
async def test_crash_is_restarted_at_once_and_then_by_its_host(world: World, policy: str) -> None:
    world.put(pod("web", restartPolicy=policy))
    async with world.process() as process:
        await world.runs("web")
        host, uid = world.host_of("web"), world.uid("web")
        host.end(uid, "main", 3)
        await until(lambda: world.container("web")["restartCount"] == 1 and world.ready("web"))
        assert len(process.provider.asked("sync", "web")) >= 2
        assert world.container("web")["lastState"]["terminated"]["exitCode"] == 3
        synced = len(process.provider.asked("sync", "web"))
        host.end(uid, "main", 4)
        await until(lambda: world.waits_for("web") == "CrashLoopBackOff")
        assert world.phase("web") == "Running"
        assert not world.ready("web")
        assert world.container("web")["state"]["waiting"]["message"].startswith("back-off 10s restarting failed container=main")
        await until(lambda: "BackOff" in world.reasons("web"))
        await until(lambda: world.container("web")["restartCount"] == 2 and world.ready("web"))
        assert len(process.provider.asked("sync", "web")) == synced
    assert world.container("web")["lastState"]["terminated"]["exitCode"] == 4


async def test_pod_with_a_token_gets_a_fresh_one_before_it_expires(world: World) -> None:
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}
    volume = {"name": "token", "projected": {"sources": [token]}}
    mount = {"volumeMounts": [{"name": "token", "mountPath": "/token"}]}
    soon = b'{"status":{"token":"old","expirationTimestamp":"2000-01-01T00:00:00Z"}}'
    world.cluster.faults.append(Fault(lambda request: request.path.endswith("/token"), 2, status=201, body=soon))
    world.put(pod("web", volumes=[volume], container=mount))
    async with world.process() as process:
        await world.runs("web")
        await until(lambda: process.provider.calls[-1].run == () and process.provider.calls[-1].method == "sync")
        await world.settled()
        assert world.container("web")["restartCount"] == 0
    assert len(world.cluster.asked("POST", "/token")) >= 2


async def test_an_annotation_of_the_pods_author_does_not_choose_its_host(world: World) -> None:
    forged = pod("web")
    forged["metadata"]["annotations"] = {"vknix.io/host": "nowhere"}
    world.put(forged)
    async with world.process():
        await world.runs("web")
    assert world.pod("web")["metadata"]["annotations"]["vknix.io/host"] == "blue"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        pytest.param(404, "serviceaccounts default not found", id="account-missing"),
        pytest.param(403, "unable to create new content in namespace test because it is being terminated", id="namespace-going"),
    ],
)
async def test_token_that_is_not_to_be_had_is_told_and_waited_for(world: World, code: int, why: str) -> None:
    volume = {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    absent = json.dumps({"kind": "Status", "message": why, "code": code}).encode()
    world.cluster.faults.append(Fault(lambda request: request.path.endswith("/token"), 2, status=code, body=absent))
    world.put(pod("web", volumes=[volume], container={"volumeMounts": [{"name": "token", "mountPath": "/token"}]}))
    async with world.process():
        await world.runs("web")
        await until(lambda: "FailedMount" in world.reasons("web"))
    assert why in next(text for reason, text in world.events("web") if reason == "FailedMount")
