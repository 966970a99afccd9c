"""Deletion: the grace period, what is told of the end, and that nothing stays."""

import time

import pytest

from tests.integration.build import (
    Json,
    Space,
    container,
    held,
    host_of,
    is_ready,
    phase,
    pod,
    seconds,
    terminated,
    uid32,
)
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

pytestmark = pytest.mark.lab

DEAF = "trap '' TERM; while :; do sleep 0.1; done"
POLITE = "trap 'exit 5' TERM; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def deleted(shared: Space) -> dict[str, Json]:
    """Pods that were deleted in one moment, each with its last status."""
    image = shared.lab.image_busybox
    shared.create(
        held(pod("deaf", container(image, DEAF), grace_s=3)),
        held(pod("polite", container(image, POLITE), grace_s=30)),
        held(pod("polite-always", container(image, POLITE), grace_s=30, restart="Always")),
    )
    names = tuple(shared.wait(is_ready))
    shared.kubectl("delete", "pods", "--all", "--wait=false")
    ended = shared.wait(lambda of: bool(terminated(of)), *names)
    for name in names:
        shared.let_go(name)
    shared.wait_gone(*names)
    return ended


def test_program_that_ends_on_term_tells_its_own_code(deleted: dict[str, Json]) -> None:
    told = terminated(deleted["polite"])
    assert (phase(deleted["polite"]), told["exitCode"], told["reason"]) == ("Failed", 5, "Error")
    assert "startedAt" in told


def test_leaving_container_is_not_restarted(deleted: dict[str, Json]) -> None:
    assert terminated(deleted["polite-always"])["exitCode"] == 5


def test_program_that_is_deaf_is_killed_when_its_grace_is_over(deleted: dict[str, Json]) -> None:
    of = deleted["deaf"]
    told = terminated(of)
    assert (phase(of), told["exitCode"], told["signal"], told["reason"]) == ("Failed", 137, 9, "Error")
    assert seconds(told["startedAt"]) < seconds(told["finishedAt"])
    # deletionTimestamp has the grace in it.
    assert -1 <= seconds(told["finishedAt"]) - seconds(of["metadata"]["deletionTimestamp"]) <= 2


def test_second_deletion_shortens_the_grace(space: Space) -> None:
    space.create(pod("hurried", container(space.lab.image_busybox, DEAF), grace_s=300))
    space.wait(is_ready, "hurried")
    space.kubectl("delete", "pod", "hurried", "--wait=false")
    assert "hurried" in space.pods()
    began = time.monotonic()
    space.kubectl("delete", "pod", "hurried", "--grace-period=1", "--wait=false")
    space.wait_gone("hurried", timeout_s=15)
    assert time.monotonic() - began < 10


def test_pod_deleted_by_force_leaves_nothing_on_its_host(lab: Lab, space: Space) -> None:
    space.create(pod("forced", container(lab.image_busybox, DEAF), grace_s=300))
    of = space.wait(is_ready, "forced")["forced"]
    space.kubectl("delete", "pod", "forced", "--grace-period=0", "--force")
    host = lab.host(host_of(of))
    wait_for(lambda: uid32(of) not in host.snapshot(), f"{host.name} has nothing of the Pod", timeout_s=20)


def test_name_is_free_for_the_next_pod(space: Space) -> None:
    """Same-named Pods never meet: the second runs with files of its own."""
    image = space.lab.image_busybox
    seen = []
    for word in ("first", "second"):
        space.create(pod("again", container(image, f"echo {word} >> /left; {POLITE}")))
        seen.append(space.wait(is_ready, "again")["again"])
        assert space.exec("again", "cat", "/left") == f"{word}\n"
        space.kubectl("delete", "pod", "again", "--timeout=20s")
    assert len({of["metadata"]["uid"] for of in seen}) == 2
    assert len({of["status"]["podIP"] for of in seen}) == 2


HOLD = """set -e
cd /run/systemd/system
mkdir -p vk-.service.d
cat > lab-hold.service <<X
[Service]
Type=oneshot
ExecSearchPath=/run/current-system/sw/bin:/usr/bin
ExecStart=sleep 1000
X
cat > vk-.service.d/hold.conf <<X
[Unit]
Wants=lab-hold.service
After=lab-hold.service
X
systemctl daemon-reload
"""
FREE = """cd /run/systemd/system
rm -rf vk-.service.d lab-hold.service
systemctl daemon-reload
systemctl kill -s KILL lab-hold.service || :
"""


def test_container_that_is_stopped_before_it_begins_is_gone(space: Space, lab: Lab) -> None:
    """Its unit has been made, and waits for its turn on a host that is busy: there is nothing that would tell of its end."""
    for host in lab.hosts:
        host.run(HOLD)
    try:
        space.create(pod("early", container(lab.image_busybox)))
        unit = f"vk-{uid32(space.pod('early'))}-main.service"
        wait_for(lambda: any(unit in host.run("systemctl list-jobs --full") for host in lab.hosts), "the unit waits", timeout_s=30)
        space.kubectl("delete", "pod", "early", "--grace-period=1", "--wait=false")
        space.wait_gone("early", timeout_s=30)
    finally:
        for host in lab.hosts:
            host.run(FREE)
