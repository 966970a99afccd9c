"""What can't be had: said once, in a status and an Event, and healed when it is put right."""

import asyncio
from dataclasses import replace

import pytest

from tests import podspec
from tests.fakes.cluster import Object, until
from tests.loops.world import IMAGE, MISSING, Call, World, pod
from vknix.core.fields import FIELDS, Verdict
from vknix.core.handlers import Handler
from vknix.core.pod import Pod
from vknix.errors import Unreachable
from vknix.loops.starting import Starter


async def test_unsupported_field_fails_the_pod_in_words_and_no_other(world: World) -> None:
    world.put(pod("bad", resourceClaims=[{"name": "gpu"}]))
    world.put(pod("good"))
    async with world.process() as process:
        await until(lambda: world.phase("bad") == "Failed")
        await world.runs("good")
        await until(lambda: world.reasons("bad"))
        await world.settled()
        assert not process.provider.asked("sync", "bad")
    assert world.status("bad")["message"].startswith("Pod was rejected: spec.resourceClaims: ")
    assert len(world.writes("bad")) == 1
    assert len(world.events("bad")) == 1
    assert "spec.resourceClaims" in world.events("bad")[0][1]


# As the API server takes each: with what it requires.
VOLUMES: dict[str, Object] = {
    "awsElasticBlockStore": {"volumeID": "x"},
    "azureDisk": {"diskName": "x", "diskURI": "x"},
    "azureFile": {"secretName": "x", "shareName": "x"},
    "cephfs": {"monitors": ["x"]},
    "cinder": {"volumeID": "x"},
    "csi": {"driver": "x.example"},
    "fc": {"targetWWNs": ["x"], "lun": 1},
    "flexVolume": {"driver": "x/x"},
    "flocker": {"datasetName": "x"},
    "gcePersistentDisk": {"pdName": "x"},
    "gitRepo": {"repository": "x"},
    "glusterfs": {"endpoints": "x", "path": "x"},
    "iscsi": {"targetPortal": "x", "iqn": "iqn.2026-01.example:x", "lun": 0},
    "photonPersistentDisk": {"pdID": "x"},
    "portworxVolume": {"volumeID": "x"},
    "quobyte": {"registry": "x:1", "volume": "x"},
    "rbd": {"monitors": ["x"], "image": "x"},
    "scaleIO": {"gateway": "x", "system": "x", "secretRef": {"name": "x"}, "volumeName": "x"},
    "storageos": {"volumeName": "x"},
    "vsphereVolume": {"volumePath": "x"},
}
PROJECTED: dict[str, Object] = {
    "clusterTrustBundle": {"name": "x", "path": "x"},
    "podCertificate": {"signerName": "x.example/x", "keyType": "ED25519", "credentialBundlePath": "x"},
}


def test_each_kind_of_volume_is_honoured_or_among_these() -> None:
    below = "spec.volumes[]."
    kinds = {path.split(".")[2] for path in podspec.recorded() if path.startswith(below)}
    taken = {path.split(".")[2] for path, rule in FIELDS.items() if path.startswith(below) and rule.verdict is not Verdict.REFUSED}
    assert kinds - taken == set(VOLUMES)


async def test_each_volume_that_cant_be_had_is_refused_by_its_field_with_a_remedy(world: World) -> None:
    asked = {kind.lower(): (f"spec.volumes[0].{kind}", {kind: of}) for kind, of in VOLUMES.items()}
    asked |= {
        kind.lower(): (f"spec.volumes[0].projected.sources[0].{kind}", {"projected": {"sources": [{kind: of}]}})
        for kind, of in PROJECTED.items()
    }
    for name, (_, of) in asked.items():
        world.put(pod(name, volumes=[{"name": "v", **of}], container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))
    async with world.process() as process:
        await until(lambda: all(world.phase(name) == "Failed" and world.events(name) for name in asked))
        assert not process.provider.asked("sync")
    for name, (field, _) in asked.items():
        status, [(reason, said)] = world.status(name), world.events(name)
        assert (status["reason"], reason) == ("PodFeatureUnsupported", "PodFeatureUnsupported")
        assert status["message"] == f"Pod was rejected: {said}"
        assert said.startswith(f"{field}: ")
        rule = FIELDS[field.replace("[0]", "[]")]
        assert rule.why in said
        assert rule.remedy in said


async def test_pod_that_fits_no_host_fails_so_that_its_controller_makes_another(world: World) -> None:
    world.put(pod("huge", container={"resources": {"requests": {"cpu": "1000"}}}))
    async with world.process():
        await until(lambda: world.phase("huge") == "Failed")
    assert world.status("huge")["reason"] == "OutOfcpu"


async def test_port_of_a_host_is_one_pods(world: World) -> None:
    ports = {"ports": [{"containerPort": 80, "hostPort": 8080}]}
    async with world.process():
        for name in ("first", "second"):  # one for each host
            world.put(pod(name, container=ports))
            await world.runs(name)
        world.put(pod("third", container=ports))
        await until(lambda: world.phase("third") == "Failed")
        assert world.status("third")["reason"] == "NodePorts"
        addresses = {world.status(name)["hostIP"] for name in ("first", "second")}
        assert addresses == {host.facts.address for host in world.hosts.values()}
        world.delete("first", grace_s=0)
        await until(lambda: not world.has("first"))
        world.put(pod("fourth", container=ports))
        await world.runs("fourth")


async def test_pod_that_is_refused_for_a_limit_takes_no_room_from_others(world: World) -> None:
    world.strict_limits = True
    for host in world.hosts.values():
        host.facts = replace(host.facts, controllers=frozenset({"cpu"}))
    whole = {"cpu": f"{world.hosts['red'].facts.cpu_milli}m"}
    async with world.process():
        for name in ("first", "second"):  # one for each host
            world.put(pod(name, container={"resources": {"requests": whole, "limits": {"memory": "1Gi"}}}))
        await until(lambda: [world.phase(name) for name in ("first", "second")] == ["Failed", "Failed"])
        world.put(pod("third", container={"resources": {"requests": whole}}))
        await world.runs("third")
    assert "strictLimits: false" in world.status("first")["message"]


async def test_missing_key_holds_the_container_until_the_config_map_appears(world: World) -> None:
    ref = {"configMapKeyRef": {"name": "settings", "key": "colour"}}
    world.put(pod("web", container={"env": [{"name": "COLOUR", "valueFrom": ref}]}))
    async with world.process():
        await until(lambda: world.waits_for("web") == "CreateContainerConfigError")
        assert "settings" in world.container("web")["state"]["waiting"]["message"]
        await until(lambda: "Failed" in world.reasons("web"))
        world.cluster.put("configmaps", {"metadata": {"name": "settings", "namespace": "default"}, "data": {"colour": "red"}})
        await world.runs("web")
    assert world.reasons("web").count("Failed") == 1


async def test_missing_volume_holds_the_pod_until_the_config_map_appears(world: World) -> None:
    volume = {"name": "settings", "configMap": {"name": "settings"}}
    world.put(pod("web", volumes=[volume], container={"volumeMounts": [{"name": "settings", "mountPath": "/settings"}]}))
    async with world.process():
        await until(lambda: "FailedMount" in world.reasons("web"))
        world.cluster.put("configmaps", {"metadata": {"name": "settings", "namespace": "default"}, "data": {"colour": "red"}})
        await world.runs("web")


async def test_store_path_that_nobody_has_is_pulled_again_and_again(world: World) -> None:
    world.put(pod("web", image=MISSING))
    async with world.process():
        await until(lambda: "ErrImagePull" in [_waiting(request.body) for request in world.writes("web")])
        await until(lambda: world.waits_for("web") == "ImagePullBackOff")
        await until(lambda: {"Pulling", "Failed"} <= set(world.reasons("web")))
        assert world.phase("web") == "Pending"
        for host in world.hosts.values():
            host.images.missing.clear()
        await world.runs("web")
    assert ("Failed", "Error: ErrImagePull") in world.events("web")


def _waiting(body: dict[str, object]) -> object:
    status = body.get("status", {})
    assert isinstance(status, dict)
    return next((of["state"].get("waiting", {}).get("reason") for of in status.get("containerStatuses", ())), None)


async def test_image_that_is_no_store_path_waits_for_one(world: World) -> None:
    world.put(pod("web", image="nginx:1.29"))
    async with world.process():
        await until(lambda: world.waits_for("web") == "InvalidImageName")
        of = world.pod("web")
        world.put({**of, "spec": {**of["spec"], "containers": [{**of["spec"]["containers"][0], "image": IMAGE}]}})
        await world.runs("web")


async def test_image_that_is_no_store_path_keeps_no_pod_from_leaving(world: World) -> None:
    """Also where vknix sees it first when it leaves already, or is past its deadline."""
    world.put(pod("web", image="nginx:1.29"))
    world.put(pod("late", image="nginx:1.29", activeDeadlineSeconds=1))
    world.delete("web")
    async with world.process():
        await until(lambda: not world.has("web"))
        await until(lambda: world.phase("late") == "Failed")
    assert world.status("late")["reason"] == "DeadlineExceeded"


async def test_container_whose_image_becomes_no_store_path_waits_for_one(world: World) -> None:
    world.put(pod("web"))
    async with world.process():
        await world.runs("web")
        of = world.pod("web")
        world.put({**of, "spec": {**of["spec"], "containers": [{**of["spec"]["containers"][0], "image": "nginx:1.29"}]}})
        await until(lambda: world.waits_for("web") == "InvalidImageName")
        assert world.container("web")["lastState"]["terminated"]["exitCode"] == 143
    async with world.process():
        await world.settled()
        assert world.waits_for("web") == "InvalidImageName"
        world.delete("web")
        await until(lambda: not world.has("web"))


async def test_pod_that_goes_while_it_is_looked_at_is_no_bug(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def slow(*_: object) -> Handler:
        asked.set()
        await gone.wait()
        return Handler.NSPAWN

    monkeypatch.setattr(Starter, "handler", slow)
    world.put(pod("web"))
    async with world.process() as process:
        await asyncio.wait_for(asked.wait(), 10)
        world.cluster.remove("pods", "default", "web")
        await until(lambda: not process.ledger.wanted)
        gone.set()
        await world.settled()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_waiting_for_a_store_path_ends_with_the_pod(world: World) -> None:
    world.put(pod("web", image=MISSING))
    async with world.process():
        await until(lambda: world.waits_for("web") == "ImagePullBackOff")
        world.delete("web")
        await until(lambda: not world.has("web"))


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug")], ids=["ValueError", "KeyError"])
async def test_bug_in_the_work_on_one_pod_leaves_the_others_alone(world: World, error: Exception) -> None:
    async def fail(call: Call) -> None:
        if call.pod == "bad":
            raise error

    world.put(pod("bad"))
    async with world.process() as process:
        process.provider.before = fail
        await until(lambda: len(process.provider.asked("sync", "bad")) >= 2)
        world.put(pod("good"))
        await world.runs("good")
        process.provider.before = None
        await world.runs("bad")


async def test_answer_that_was_lost_is_no_second_start(world: World) -> None:
    """Unreachable says that the outcome is unknown; here all was done."""
    uid = world.put(pod("web"))
    answers = iter(range(3))

    async def lose(_: Pod) -> None:
        if next(answers, None) is not None:
            raise Unreachable("the link was lost")

    async with world.process() as process:
        process.provider.after = lose
        await world.runs("web")
        await world.settled()
        assert process.ledger.seen[uid].containers["main"].exits == ()
    assert world.container("web")["restartCount"] == 0
