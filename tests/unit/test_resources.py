"""vknix.core.resources: of a container, of a Pod, and as the downward API shows them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import around, container, pod
from vknix.core import resources
from vknix.core.container import ResourceSelector
from vknix.core.pod import Kind, Pod
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


def test_the_overhead_of_its_runtime_class_is_the_pods() -> None:
    of = pod(BIG, overhead={"cpu": "10m", "memory": "1Mi"})
    assert resources.requested(of) == Amounts(260, (1 << 30) + (1 << 20), 0)
    assert resources.limited(of) == Amounts(1510, (1 << 30) + (1 << 20), None)
    assert resources.limited(pod(FREE, overhead={"cpu": "10m"})) == Amounts()


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


def of(kind: Kind, milli: int) -> tuple[Kind, dict[str, Any]]:
    policy = {"restartPolicy": "Always"} if kind is Kind.SIDECAR else {}
    return kind, container("c", resources={"requests": {"cpu": f"{milli}m"}}, **policy)


def with_inits(each: list[tuple[Kind, dict[str, Any]]]) -> Pod:
    named = [(kind, {**of, "name": f"c{number}"}) for number, (kind, of) in enumerate(each)]
    regular = [of for kind, of in named if kind is Kind.REGULAR]
    return pod(*regular, initContainers=[of for kind, of in named if kind is not Kind.REGULAR])


@pytest.mark.parametrize(
    ("each", "milli"),
    [
        pytest.param([of(Kind.INIT, 700), of(Kind.REGULAR, 100), of(Kind.REGULAR, 200)], 700, id="init is the most"),
        pytest.param([of(Kind.INIT, 200), of(Kind.INIT, 250), of(Kind.REGULAR, 300)], 300, id="init runs alone"),
        pytest.param([of(Kind.SIDECAR, 100), of(Kind.REGULAR, 300)], 400, id="a sidecar runs on"),
        pytest.param([of(Kind.SIDECAR, 100), of(Kind.INIT, 500), of(Kind.REGULAR, 300)], 600, id="init beside a sidecar"),
        pytest.param([of(Kind.INIT, 500), of(Kind.SIDECAR, 100), of(Kind.REGULAR, 300)], 500, id="init before a sidecar"),
        pytest.param([of(Kind.SIDECAR, 300), of(Kind.SIDECAR, 300), of(Kind.REGULAR, 0)], 600, id="two sidecars"),
    ],
)
def test_a_pod_asks_for_what_runs_at_once(each: list[tuple[Kind, dict[str, Any]]], milli: int) -> None:
    assert resources.requested(with_inits(each)).cpu_milli == milli


def as_the_scheduler(each: list[tuple[Kind, int]]) -> int:
    """PodRequests of k8s.io/component-helpers/resource, line by line."""
    requests = sum(amount for kind, amount in each if kind is Kind.REGULAR)
    restartable = most_of_init = 0
    for kind, amount in each:
        if kind is Kind.SIDECAR:
            requests += amount
            restartable += amount
            most_of_init = max(most_of_init, restartable)
        elif kind is Kind.INIT:
            most_of_init = max(most_of_init, amount + restartable)
    return max(requests, most_of_init)


before_main = st.lists(st.tuples(st.sampled_from([Kind.INIT, Kind.SIDECAR]), st.integers(0, 999)), max_size=5)


@given(before_main, st.lists(st.integers(0, 999), min_size=1, max_size=3))
def test_a_pod_asks_for_what_the_scheduler_adds_up(before: list[tuple[Kind, int]], regular: list[int]) -> None:
    each = [*before, *((Kind.REGULAR, amount) for amount in regular)]
    assert resources.requested(with_inits([of(*one) for one in each])).cpu_milli == as_the_scheduler(each)


def test_an_init_container_without_a_limit_leaves_the_pod_without_one() -> None:
    assert resources.limited(pod(BIG, initContainers=[FREE])).cpu_milli is None
    assert resources.limited(pod(BIG, initContainers=[{**BIG, "name": "first"}])).cpu_milli == 1500
