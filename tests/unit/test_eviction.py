"""vknix.core.eviction: who has more on disk than it may, in the kubelet's words."""

from typing import Any

import msgspec
import pytest

from tests.unit.build import container, ended, facts, pod, running, stopped, view
from vknix.core import ending, eviction
from vknix.core.decide import Row, row
from vknix.core.failing import failing
from vknix.core.pod import Pod
from vknix.core.status import pod_status
from vknix.core.usage import PodDisk

MIB = 1 << 20


def limited(name: str = "main", limit: str = "1Mi", **fields: Any) -> dict[str, Any]:
    return container(name, resources={"limits": {"ephemeral-storage": limit}}, **fields)


def empty(name: str, size: str | None = "1Mi", medium: str = "") -> dict[str, Any]:
    return {"name": name, "emptyDir": {"medium": medium, "sizeLimit": size}}


SIZED = pod(volumes=[empty("x"), empty("y", None)])
VOLUME = 'Usage of EmptyDir volume "x" exceeds the limit "1Mi". '
WHOLE = "Pod ephemeral local storage usage exceeds the total limit of containers {}. "


@pytest.mark.parametrize(
    ("of", "disk", "why"),
    [
        (SIZED, PodDisk({"x": MIB, "y": 5 * MIB}), None),
        (SIZED, PodDisk({"x": MIB + 1}), VOLUME),
        (SIZED, PodDisk(roots={"main": 5 * MIB}), None),
        (pod(volumes=[empty("x", "0")]), PodDisk({"x": 1}), None),
        (pod(volumes=[empty("x", medium="Memory")]), PodDisk({"x": 2 * MIB}), None),
        (pod(limited()), PodDisk(roots={"main": MIB - 1}, logs={"main": 1}), None),
        (pod(limited()), PodDisk(roots={"main": MIB}, logs={"main": 1}), WHOLE.format("1Mi")),
        (pod(limited(), volumes=[empty("x", None)]), PodDisk({"x": MIB + 1}), WHOLE.format("1Mi")),
        (pod(limited(), volumes=[empty("x")]), PodDisk({"x": MIB + 1}), VOLUME),
        (
            pod(limited(), limited("other", "3Mi")),
            PodDisk(roots={"main": MIB}, logs={"main": 1}),
            'Container main exceeded its local ephemeral storage limit "1Mi". ',
        ),
        (pod(limited(), container("other")), PodDisk(roots={"main": MIB, "other": 1}), WHOLE.format("1Mi")),
        (pod(initContainers=[limited("first")]), PodDisk(roots={"main": 2 * MIB}), WHOLE.format("1Mi")),
        (
            pod(limited(), initContainers=[limited("side", "2Mi", restartPolicy="Always")]),
            PodDisk(roots={"side": 2 * MIB + 1, "main": 2 * MIB}),
            WHOLE.format("3Mi"),
        ),
        (
            pod(limited(limit="1M"), limited("other", "1500k"), overhead={"ephemeral-storage": "1k"}),
            PodDisk(roots={"main": 3_000_000}),
            WHOLE.format("2501k"),
        ),
        (pod(limited(limit="0")), PodDisk(), None),
        (pod(limited(limit="0")), PodDisk(roots={"main": 1}), WHOLE.format("0")),
    ],
)
def test_what_is_over_its_limit_is_told_as_a_kubelet_does(of: Pod, disk: PodDisk, why: str | None) -> None:
    assert eviction.excess(of, disk) == why


@pytest.mark.parametrize(
    ("of", "can"),
    [
        (SIZED, True),
        (pod(limited()), True),
        (pod(initContainers=[limited("first")]), True),
        (pod(), False),
        (pod(volumes=[empty("x", None), empty("y", medium="Memory")]), False),
        (pod(limited(), leaving=True), False),
        (pod(limited(), status={"phase": "Failed"}), False),
        (pod(limited(), priority=1_999_999_999), True),
        (pod(limited(), priority=2_000_000_000), False),
    ],
)
def test_only_pods_that_can_be_evicted_are_looked_at(of: Pod, can: bool) -> None:
    assert eviction.is_limited(of) is can


EVICTED = pod(terminationGracePeriodSeconds=600)


def evicted(of: Pod = EVICTED) -> Pod:
    return msgspec.structs.replace(of, evicted=VOLUME)


def test_an_evicted_pod_has_failed_once_nothing_of_it_runs() -> None:
    told = pod_status(evicted(), view(facts(running())))
    assert (told["phase"], told["reason"]) == ("Running", None)
    told = pod_status(evicted(), view(facts(stopped("main", ended(137)))))
    assert (told["phase"], told["reason"], told["message"]) == ("Failed", "Evicted", VOLUME)
    assert "DisruptionTarget" not in [each["type"] for each in told["conditions"]]  # it is the Pod's own doing


def test_an_evicted_pod_gets_a_second_whatever_its_grace() -> None:
    assert row(evicted(), 100.0) is Row.FAILING
    assert [wish.grace_s for wish in ending.of_stopped(evicted(), facts(running()), failing(evicted(), 100.0))] == [1]


@pytest.mark.parametrize("of", [pod(leaving=True), pod(status={"phase": "Succeeded"})], ids=["leaves", "has ended"])
def test_a_pod_that_leaves_or_has_ended_is_not_to_fail(of: Pod) -> None:
    assert failing(evicted(of), 100.0) is None
    assert row(evicted(of), 100.0) is row(of, 100.0)
