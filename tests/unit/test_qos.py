"""vknix.core.qos: the numbers that the kubelet gives."""

from typing import Any

import pytest

from tests.unit.build import container, pod
from vknix.core import qos

GIB = 1 << 30
FULL = {"limits": {"cpu": "1", "memory": "1Gi"}}


def asks(memory: str, name: str = "main", **fields: Any) -> dict[str, Any]:
    return container(name, resources={"requests": {"memory": memory}}, **fields)


@pytest.mark.parametrize(
    ("each", "of"),
    [
        ((container(),), "BestEffort"),
        ((container(resources=FULL),), "Guaranteed"),
        ((container(resources=FULL), container("b")), "Burstable"),
        ((asks("1Gi"),), "Burstable"),
        ((container(resources={**FULL, "requests": {"cpu": "500m"}}),), "Burstable"),
    ],
)
def test_class(each: tuple[dict[str, Any], ...], of: str) -> None:
    assert qos.qos_class(pod(*each)) == of


def test_what_the_api_server_says_holds() -> None:
    assert qos.qos_class(pod(status={"qosClass": "Guaranteed"})) == "Guaranteed"


def test_the_whole_pods_resources_make_the_class() -> None:
    assert qos.qos_class(pod(resources=FULL)) == "Guaranteed"


@pytest.mark.parametrize(
    ("each", "score"),
    [
        (container(resources=FULL), -997),
        (container(), 1000),
        (asks("0.5Gi"), 938),
        (asks("1"), 999),
        (asks("8Gi"), 3),
        (asks("80Gi"), 3),
    ],
)
def test_score(each: dict[str, Any], score: int) -> None:
    of = pod(each)
    assert qos.oom_score_adj(of, of.spec.containers[0], 8 * GIB) == score


def test_a_critical_pod_is_protected() -> None:
    of = pod(priority=2_000_001_000)
    assert qos.oom_score_adj(of, of.spec.containers[0], 8 * GIB) == -997


def test_a_sidecar_is_no_worse_off_than_the_containers_that_it_serves() -> None:
    of = pod(asks("4Gi"), initContainers=[asks("1Gi", "side", restartPolicy="Always")])
    assert of.spec.init_containers is not None
    assert qos.oom_score_adj(of, of.spec.init_containers[0], 8 * GIB) == 500


def test_what_the_pod_requests_beyond_its_containers_is_shared() -> None:
    of = pod(asks("1Gi"), container("b"), resources={"requests": {"memory": "3Gi"}})
    assert [qos.oom_score_adj(of, each, 8 * GIB) for each in of.spec.containers] == [750, 875]
