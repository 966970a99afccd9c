"""What vknix does not do is said: in the Pod's status and in an Event, with the field and the remedy; never silently left out."""

import os
from typing import Any

import pytest

from tests.integration.build import Json, Space, container, has_ended, is_ready, phase, pod, waiting
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

# id: the field that is refused, the remedy, the Pod's spec, the container's fields
REFUSED: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "app-armor": (
        "spec.securityContext.appArmorProfile",
        "leave it out",
        {"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}},
        {},
    ),
    "csi": ("spec.volumes[0].csi", "an ordinary node", {"volumes": [{"name": "v", "csi": {"driver": "x.example"}}]}, {}),
    "host-port": (
        "spec.containers[0].ports[0].protocol",
        "hostNetwork",
        {},
        {"ports": [{"containerPort": 80, "hostPort": 8088, "protocol": "SCTP"}]},
    ),
}
LIMITS = {"limits": {"memory": "32Mi", "cpu": "100m"}}


@pytest.fixture(scope="module")
def refused(shared: Space) -> dict[str, Json]:
    """All of them at once, beside one that is good."""
    image = shared.lab.image_busybox
    shared.create(
        *(pod(name, container(image, **fields), **spec) for name, (_, _, spec, fields) in REFUSED.items()),
        pod("good", container(image, "exit 0")),
        pod("too-big", container(image, resources={"requests": {"cpu": f"{(os.cpu_count() or 1) * 1000 + 500}m"}})),
        pod("foreign", container("nginx:1.27")),
    )
    shared.wait(lambda of: waiting(of) == "InvalidImageName", "foreign")
    return shared.wait(has_ended, *REFUSED, "good", "too-big")


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_is_in_the_status(refused: dict[str, Json], name: str) -> None:
    field, remedy, _, _ = REFUSED[name]
    of = refused[name]["status"]
    assert (of["phase"], of["reason"]) == ("Failed", "PodFeatureUnsupported")
    assert field in of["message"]
    assert remedy in of["message"]


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_is_an_event(refused: dict[str, Json], shared: Space, name: str) -> None:
    field, remedy, _, _ = REFUSED[name]
    message = shared.wait_event(name, "PodFeatureUnsupported")
    assert field in message
    assert remedy in message


def test_other_pods_are_not_disturbed_by_refusals(refused: dict[str, Json]) -> None:
    assert phase(refused["good"]) == "Succeeded"


def test_refused_pod_has_nothing_on_a_host(refused: dict[str, Json]) -> None:
    assert "podIP" not in refused["csi"]["status"]


def test_pod_that_fits_the_node_and_no_host_is_told_as_a_kubelet_does(refused: dict[str, Json], shared: Space) -> None:
    of = refused["too-big"]["status"]
    assert (of["phase"], of["reason"]) == ("Failed", "OutOfcpu")
    assert "no host of the pool has room" in shared.wait_event("too-big", "OutOfcpu")


def test_image_that_is_no_store_path_waits_to_be_put_right(refused: dict[str, Json], shared: Space) -> None:
    assert "spec.containers[0].image: 'nginx:1.27' names no Nix store path" in shared.wait_event("foreign", "Failed")
    good = shared.lab.image_busybox
    shared.kubectl("set", "image", "pod/foreign", f"main={good}")
    assert is_ready(shared.wait(is_ready, "foreign")["foreign"])


def test_limit_that_a_host_can_not_enforce_is_told(space: Space) -> None:
    """The lab's hosts have no cgroup controllers for memory and CPU."""
    space.create(pod("limited", container(space.lab.image_busybox, resources=LIMITS)))
    space.wait(is_ready, "limited")
    message = space.wait_event("limited", "LimitsNotEnforced")
    assert "spec.containers[0].resources.limits.memory" in message
    assert "host" in message


def test_strict_limits_refuse_what_can_not_be_enforced(lab: Lab, space: Space) -> None:
    lab.vknix.stop()
    lab.vknix.start({"strictLimits": True})
    of = space.run(pod("limited", container(lab.image_busybox, resources=LIMITS)))
    assert phase(of) == "Failed"
    assert "spec.containers[0].resources.limits" in of["status"]["message"]
    assert "strictLimits: false" in of["status"]["message"]
