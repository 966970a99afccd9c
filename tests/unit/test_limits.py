"""What a container's cgroup and its Pod's slice are given: the kubelet's and runc's numbers."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.build import SETTINGS, container, inputs, plan, pod
from vknix.core import resources
from vknix.core.pod import Pod
from vknix.nspawn import limits, unit
from vknix.nspawn import plan as plans
from vknix.nspawn.plan import MachinePlan


def machine(**asked: Any) -> MachinePlan:
    return plan(pod(container(resources=asked))).machines[0]


def attributes(of: MachinePlan) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in of.limits.decode().splitlines() if not line.startswith("#"))


@pytest.mark.parametrize(
    ("asked", "cpu", "memory"),
    [
        ({}, "max 100000", "max"),
        ({"cpu": "1500m"}, "150000 100000", "max"),
        ({"cpu": "1m"}, "1000 100000", "max"),
        ({"cpu": "25m"}, "2500 100000", "max"),
        ({"cpu": "100000"}, "10000000000 100000", "max"),
        ({"memory": "1Gi"}, "max 100000", "1073741824"),
        ({"memory": "0"}, "max 100000", "max"),
    ],
)
def test_limits_as_the_kernel_reads_them(asked: dict[str, str], cpu: str, memory: str) -> None:
    made = attributes(machine(limits=asked))
    assert (made["cpu.max"], made["memory.max"]) == (cpu, memory)
    assert (made["memory.swap.max"], made["memory.oom.group"]) == ("0", "1")


@pytest.mark.parametrize(
    ("cpu", "weight"), [("0", 1), ("1m", 1), ("2m", 1), ("20m", 6), ("100m", 17), ("1", 100), ("4", 303), ("1000", 10000)]
)
def test_weights_are_runcs(cpu: str, weight: int) -> None:
    made = plan(pod(container(resources={"requests": {"cpu": cpu}})))
    assert attributes(made.machines[0])["cpu.weight"] == str(weight)
    assert dict(unit.properties(made, made.machines[0], SETTINGS))["CPUWeight"] == str(weight)


def huge(of: Pod) -> list[dict[str, int]]:
    """Of each container, on a host that has pages of these sizes."""
    host = replace(SETTINGS, huge=("2Mi", "1Gi"))
    made = map(attributes, plans.pod_plan(of, inputs(of), ("10.0.0.2",), host, {}).machines)
    return [{name: int(value) for name, value in each.items() if "hugetlb" in name} for each in made]


def test_huge_pages_are_limited_by_their_size() -> None:
    asking = container(resources={"limits": {"hugepages-2Mi": "4Mi", "memory": "1Gi", "cpu": "1"}})
    one, other = huge(pod(asking, container("other")))
    of_sizes = {"2MB": 4 << 20, "2MB.rsvd": 4 << 20, "1GB": 0, "1GB.rsvd": 0}
    slices = {f"^hugetlb.{size}.max": value for size, value in of_sizes.items()}
    own = {name.removeprefix("^"): value for name, value in slices.items()}
    assert (one, other) == (slices | own, slices | dict.fromkeys(own, 0))


def test_huge_pages_of_the_whole_pod_are_for_each_container_without_its_own() -> None:
    of = pod(
        container(resources={"limits": {"hugepages-2Mi": "2Mi"}}),
        container("other"),
        resources={"limits": {"hugepages-2Mi": "6Mi", "cpu": "1"}},
    )
    limited = [(each["^hugetlb.2MB.max"] >> 20, each["hugetlb.2MB.max"] >> 20) for each in huge(of)]
    assert limited == [(6, 2), (6, 6)]


def test_a_host_without_huge_pages_has_no_limits_of_them() -> None:
    assert "hugetlb" not in plan(pod(container(resources={"limits": {"hugepages-2Mi": "4Mi"}}))).machines[0].limits.decode()


def test_the_file_tells_what_was_asked_for() -> None:
    asked = {"limits": {"cpu": "0.5"}, "requests": {"cpu": "0.25", "memory": "1Gi"}}
    assert limits.read(machine(**asked).limits) == asked
    assert limits.read(machine().limits) == {}
    assert limits.read(b"") == {}


def test_a_container_without_a_limit_has_the_pods() -> None:
    of = pod(container(resources={"limits": {"cpu": "1"}}), resources={"limits": {"cpu": "2", "memory": "1Gi"}})
    assert resources.effective(of, of.spec.containers[0]).cpu_milli == 1000
    assert attributes(plan(of).machines[0])["memory.max"] == str(1 << 30)


@pytest.mark.parametrize(
    ("spec", "properties"),
    [
        ({}, {"CPUWeight": "1"}),
        ({"resources": {"limits": {"cpu": "500m"}}}, {"CPUWeight": "59", "CPUQuota": "50%"}),
        ({"resources": {"limits": {"cpu": "1m"}}}, {"CPUWeight": "1", "CPUQuota": "1%"}),
        ({"resources": {"requests": {"cpu": "1"}}, "overhead": {"cpu": "1"}}, {"CPUWeight": "174"}),
        (
            {"resources": {"limits": {"memory": "1Gi"}}, "overhead": {"memory": "1Mi"}},
            {"CPUWeight": "1", "MemoryMax": str((1 << 30) + (1 << 20) + (8 << 20)), "MemorySwapMax": "0"},
        ),
    ],
)
def test_a_slice_has_what_is_asked_for_the_pod(spec: dict[str, Any], properties: dict[str, str]) -> None:
    assert dict(limits.pod_slice(pod(**spec), None)) == properties


def test_a_slice_counts_processes_where_the_configuration_says_so() -> None:
    assert dict(limits.pod_slice(pod(), 100))["TasksMax"] == "104"
