"""vknix.core.pod: the API's JSON, decoded as Go clients send it."""

import json

import msgspec
import pytest

from tests.unit.build import UID, container, pod
from vknix.core import pod as pods

RAW = json.dumps(
    {
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "uid": UID, "resourceVersion": "7", "managedFields": [{"manager": "x"}]},
        "spec": {"containers": [{"name": "main", "image": "x", "resources": {}, "env": None}], "volumes": None, "future": {"a": 1}},
        "status": {"phase": "Running"},
    }
).encode()


def test_unknown_fields_and_nulls_do_no_harm() -> None:
    made = pods.decode(RAW)
    assert (made.uid, made.name, made.namespace, made.phase) == (UID, "web", "shop", "Running")
    assert (made.spec.volumes, made.spec.containers[0].env) == (None, None)


def test_a_record_keeps_the_bytes() -> None:
    assert pods.record(RAW) == pods.PodRecord(made := pods.decode(RAW).uid, "shop", "web", "7", RAW)
    assert made == UID


@pytest.mark.parametrize("raw", [b"{}", b"[]", b'{"metadata": {"name": "x"}}'])
def test_what_is_no_pod_is_a_validation_error(raw: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        pods.record(raw)


@pytest.mark.parametrize(("asked", "grace_s"), [(None, 30), (0, 1), (5, 5)])
def test_grace_is_a_second_at_least(asked: int | None, grace_s: int) -> None:
    assert pod(terminationGracePeriodSeconds=asked).spec.grace_s == grace_s


@pytest.mark.parametrize(("phase", "over"), [(None, False), ("Pending", False), ("Succeeded", True), ("Failed", True)])
def test_ended(phase: str | None, over: bool) -> None:
    assert pod(status={"phase": phase}).ended is over


def test_told_finds_any_kind_of_container() -> None:
    status = {
        "initContainerStatuses": [{"name": "first"}],
        "containerStatuses": [{"name": "main"}],
        "ephemeralContainerStatuses": None,
    }
    of = pod(status=status)
    assert (of.told("first"), of.told("main"), of.told("none")) == ({"name": "first"}, {"name": "main"}, {})


@pytest.mark.parametrize(
    ("policy", "held"),
    [("Always", "OnFailure"), ("OnFailure", "OnFailure"), ("Never", "Never")],
    ids=["Always", "OnFailure", "Never"],
)
def test_members_come_in_their_order_each_with_its_policy(policy: str, held: str) -> None:
    of = pod(container("main"), initContainers=[container("first"), container("side", restartPolicy="Always")], restart=policy)
    assert [(each.path, each.name, each.kind, each.policy) for each in pods.members(of)] == [
        ("spec.initContainers[0]", "first", pods.Kind.INIT, held),
        ("spec.initContainers[1]", "side", pods.Kind.SIDECAR, "Always"),
        ("spec.containers[0]", "main", pods.Kind.REGULAR, policy),
    ]


def test_containers_have_their_paths() -> None:
    assert [path for path, _ in pods.containers(pod(container("a"), container("b")))] == [
        "spec.containers[0]",
        "spec.containers[1]",
    ]
