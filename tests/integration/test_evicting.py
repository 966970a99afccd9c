"""Pods that have more on their host's disk than they may."""

import pytest

from tests.integration.build import Json, Space, container, has_ended, host_of, is_ready, phase, pod, status, terminated, uid32

pytestmark = pytest.mark.lab

LIMITED: Json = {"resources": {"limits": {"ephemeral-storage": "1Mi"}}}
WRITE = "dd if=/dev/zero of={} bs=64k count=32; exec sleep 3600"
WHY = {
    "volume": 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". ',
    "root": 'Container main exceeded its local ephemeral storage limit "1Mi". ',
    "log": 'Container main exceeded its local ephemeral storage limit "1Mi". ',
    "whole": "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
}


@pytest.fixture(scope="module")
def evicted(shared: Space) -> dict[str, Json]:
    """One for each way to have too much, beside one that has not."""
    image = shared.lab.image_busybox
    mount: Json = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    sized: Json = {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]}
    plain: Json = {"volumes": [{"name": "v", "emptyDir": {}}]}
    roomy = container(image, name="other", resources={"limits": {"ephemeral-storage": "1Gi"}})
    print_much = "yes | head -c 2000000; exec sleep 3600"
    shared.create(
        pod("volume", container(image, WRITE.format("/v/big"), **mount), grace_s=600, **sized),
        pod("root", container(image, WRITE.format("/big"), **LIMITED), roomy, restart="Always"),
        pod("log", container(image, print_much, **LIMITED), roomy),
        pod("whole", container(image, WRITE.format("/v/big"), **mount, **LIMITED), **plain),
        pod("kept", container(image, WRITE.format("/v/big").replace("=32", "=8"), **mount, **LIMITED), **sized),
    )
    return shared.wait(lambda of: has_ended(of) or of["metadata"]["name"] == "kept", *WHY, timeout_s=90)


@pytest.mark.parametrize("name", WHY)
def test_it_is_evicted_as_by_a_kubelet(evicted: dict[str, Json], shared: Space, name: str) -> None:
    of = evicted[name]["status"]
    assert (of["phase"], of["reason"], of["message"]) == ("Failed", "Evicted", WHY[name])
    assert shared.wait_event(name, "Evicted") == WHY[name]
    assert terminated(evicted[name])["exitCode"] == 137  # sleep as the first process heeds no SIGTERM, and its grace is over


def test_its_host_runs_nothing_of_it_any_more(evicted: dict[str, Json], shared: Space) -> None:
    host = next(host for host in shared.lab.hosts if host.name == host_of(evicted["root"]))
    assert uid32(evicted["root"]) not in host.run("systemctl list-units --all --plain --no-legend 'vk-*.service'")


def test_what_is_within_its_limit_runs_on(evicted: dict[str, Json], shared: Space) -> None:
    of = shared.pod("kept")
    assert (phase(of), status(of)["restartCount"], is_ready(of)) == ("Running", 0, True)
