"""vknix.core.resources: of a container, of a Pod, and as the downward API shows them."""

from typing import Any

import pytest

from tests.unit.build import around, container, pod
from vknix.core import resources
from vknix.core.pod import ResourceSelector
from vknix.core.resources import Amounts
from vknix.errors import Refused

BIG = container("big", resources={"limits": {"cpu": "1500m", "memory": "1Gi"}, "requests": {"cpu": "250m"}})
FREE = container("free")


def test_what_is_not_requested_is_requested_as_it_is_limited() -> None:
    big = pod(BIG).spec.containers[0]
    assert resources.limits(big) == Amounts(1500, 1 << 30, None)
    assert resources.requests(big) == Amounts(250, 1 << 30, None)
    assert resources.requests(pod(FREE).spec.containers[0]) == Amounts()


def test_a_pod_asks_for_the_sum() -> None:
    assert resources.requested(pod(BIG, {**BIG, "name": "two"}, FREE)) == Amounts(500, 2 << 30, 0)


def test_a_pod_is_limited_where_each_container_is() -> None:
    assert resources.limited(pod(BIG, {**BIG, "name": "two"})) == Amounts(3000, 2 << 30, None)
    assert resources.limited(pod(BIG, FREE)) == Amounts()


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", None, "2"),
        ("limits.cpu", "0", "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.cpu", "1m", "250"),
        ("requests.cpu", "1", "1"),
        ("limits.memory", None, str(1 << 30)),
        ("limits.memory", "1Mi", "1024"),
        ("limits.memory", "1M", "1074"),
        ("limits.ephemeral-storage", "1Gi", "100"),
        ("requests.ephemeral-storage", None, "0"),
    ],
)
def test_resource_field(resource: str, divisor: str | None, value: str) -> None:
    of = pod(BIG, FREE)
    selector = ResourceSelector(resource=resource, divisor=divisor)
    assert resources.value(of, of.spec.containers[0], selector, around(), "f") == value


def test_another_containers_resources() -> None:
    of = pod(BIG, FREE)
    selector = ResourceSelector(resource="limits.cpu", container_name="big", divisor="1m")
    assert resources.value(of, of.spec.containers[1], selector, around(), "f") == "1500"


def test_no_limit_is_the_hosts_own() -> None:
    of = pod(FREE)
    selector = ResourceSelector(resource="limits.memory", divisor="1Gi")
    assert resources.value(of, of.spec.containers[0], selector, around(), "f") == "8"


@pytest.mark.parametrize("asked", [{"resource": "limits.gpu"}, {"resource": "limits.cpu", "container_name": "none"}])
def test_what_there_is_not_is_refused(asked: dict[str, Any]) -> None:
    of = pod(BIG)
    with pytest.raises(Refused):
        resources.value(of, of.spec.containers[0], ResourceSelector(**asked), around(), "f")
