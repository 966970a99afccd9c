"""Restarts: by policy, counted, and on the kubelet's ladder of 0, 10, 20 s and so on."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.integration.build import (
    Json,
    Space,
    at_once,
    container,
    has_ended,
    phase,
    pod,
    seconds,
    status,
    terminated,
    waiting,
    with_data,
)

pytestmark = pytest.mark.lab

NOTE = "date +%s >> /data/starts"
LATE_S = 4  # by which a restart may come later than the ladder says, on a busy machine
EARLY_S = 1  # systemd climbs from 10 s to 300 s by equal factors: 19.7 s stand for 20


def noting(image: str, name: str, end: str, restart: str) -> Json:
    """A Pod that writes down each start, and another container that can be asked for them."""
    return with_data(pod(name, container(image, f"{NOTE}; {end}"), container(image, name="reader"), restart=restart))


@pytest.fixture(scope="module")
def settled(shared: Space) -> dict[str, Json]:
    """Each Pod once it has shown what it is to show; 30 s, for all of them together."""
    image = shared.lab.image_busybox
    third_time = "[ $(wc -l < /data/starts) = 3 ]"
    shared.create(
        noting(image, "always-zero", "exit 0", "Always"),
        noting(image, "always-three", "exit 3", "Always"),
        with_data(pod("third-time", container(image, f"{NOTE}; {third_time}"), restart="OnFailure")),
        with_data(pod("never", container(image, f"{NOTE}; exit 3"))),
    )
    at_once(
        lambda: shared.wait(has_restarted(3), "always-zero", "always-three", timeout_s=60),
        lambda: shared.wait(has_ended, "third-time", "never", timeout_s=60),
    )
    return shared.wait(lambda of: has_ended(of) or waiting(of) == "CrashLoopBackOff")


def has_restarted(times: int) -> Callable[[Json], bool]:
    return lambda of: status(of).get("restartCount", 0) >= times


@pytest.mark.parametrize("name", ["always-zero", "always-three"])
def test_restarts_come_after_0_10_and_20_seconds(settled: dict[str, Json], shared: Space, name: str) -> None:
    starts = [int(line) for line in shared.kubectl("exec", name, "--container=reader", "--", "cat", "/data/starts").split()]
    gaps = [after - before for before, after in pairwise(starts)]
    assert len(gaps) == 3
    assert all(wanted - EARLY_S <= gap <= wanted + LATE_S for gap, wanted in zip(gaps, (0, 10, 20), strict=True)), gaps


@pytest.mark.parametrize(("name", "code"), [("always-zero", 0), ("always-three", 3)])
def test_back_off_is_told(settled: dict[str, Json], shared: Space, name: str, code: int) -> None:
    told = status(settled[name])
    assert phase(settled[name]) == "Running"
    assert told["state"]["waiting"]["message"].startswith("back-off 40s restarting failed container=main")
    assert told["lastState"]["terminated"]["exitCode"] == code
    assert told["ready"] is False
    assert "Back-off restarting failed container" in shared.wait_event(name, "BackOff")


def test_container_beside_one_that_restarts_is_left_alone(settled: dict[str, Json]) -> None:
    assert status(settled["always-zero"], "reader")["restartCount"] == 0


def test_on_failure_restarts_until_success(settled: dict[str, Json]) -> None:
    of = settled["third-time"]
    assert (phase(of), status(of)["restartCount"], terminated(of)["exitCode"]) == ("Succeeded", 2, 0)


def test_never_runs_once(settled: dict[str, Json]) -> None:
    of = settled["never"]
    assert (phase(of), status(of)["restartCount"], terminated(of)["exitCode"]) == ("Failed", 0, 3)


def test_each_attempt_has_an_identity_of_its_own(settled: dict[str, Json]) -> None:
    told = status(settled["third-time"])
    assert told["containerID"] != told["lastState"]["terminated"]["containerID"]
    assert seconds(told["lastState"]["terminated"]["finishedAt"]) <= seconds(terminated(settled["third-time"])["startedAt"])
