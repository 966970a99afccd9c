"""Init containers and sidecars: their order up and down, once each, and what is told of them."""

from dataclasses import dataclass

import pytest

from tests.integration.build import (
    SLEEP,
    WHILE_NOT_TOLD,
    Json,
    Space,
    condition,
    container,
    has_ended,
    held,
    host_of,
    is_ready,
    most_of_a_host,
    phase,
    pod,
    runs,
    seconds,
    sidecar,
    status,
    tell,
    terminated,
    waiting,
    with_data,
)
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

THIRD_TIME = "echo try >> /data/tries; [ $(wc -l < /data/tries) = 3 ]"
POLITE = "trap 'sleep 1.5; exit 0' TERM; while :; do sleep 0.1; done"
CRASHES = {"tries-on-failure": "OnFailure", "tries-always": "Always"}


def note(name: str, then: str = "") -> str:
    return f"echo {name} >> /data/order; {then}"


def in_order(image: str, name: str, second: str = "", restart: str = "Never") -> Json:
    """A Pod whose two init containers and main container write down when it is their turn."""
    inits = [container(image, note("one"), name="one"), container(image, note("two", second), name="two")]
    return with_data(pod(name, container(image, note("main", SLEEP)), initContainers=inits, restart=restart))


@pytest.fixture(scope="module")
def settled(shared: Space) -> dict[str, Json]:
    """Each Pod once it has shown what it is to show."""
    image = shared.lab.image_busybox
    fails, slow = container(image, "exit 3", name="fails"), container(image, WHILE_NOT_TOLD, name="slow")
    beside = sidecar(image, f"echo beside; {SLEEP}")
    late = sidecar(image, f"sleep 2; {note('side', SLEEP)}", startupProbe={**exec_probe("-s /data/order"), "failureThreshold": 30})
    asks = container(image, "", name="asks", resources=most_of_a_host())
    shared.create(
        in_order(image, "ordered"),
        with_data(pod("slow", container(image), initContainers=[slow, container(image, "", name="next")])),
        pod("fails", container(image), initContainers=[fails, container(image, "", name="next")]),
        *(
            with_data(pod(name, container(image), initContainers=[container(image, THIRD_TIME, name="tries")], restart=policy))
            for name, policy in CRASHES.items()
        ),
        pod("beside", container(image), initContainers=[beside]),
        with_data(pod("late", container(image, note("main", SLEEP)), initContainers=[late])),
        pod("job", container(image, "exit 0"), initContainers=[sidecar(image, POLITE)], grace_s=10),
        pod("job-fails", container(image, "exit 3"), initContainers=[sidecar(image, POLITE)], grace_s=10),
        *(pod(f"asks-{number}", container(image), initContainers=[asks]) for number in range(2)),
    )
    crashing = shared.wait(lambda of: waiting(of, "tries") == "CrashLoopBackOff", *CRASHES)  # for ten seconds
    shared.wait(is_ready, "ordered", "beside", "late", "asks-0", "asks-1", timeout_s=60)
    shared.wait(has_ended, "fails", "job", "job-fails")
    return {**shared.wait(lambda of: runs(of, "slow"), "slow"), **{name: crashing[name] for name in CRASHES}}


def exec_probe(test: str) -> Json:
    return {"exec": {"command": ["sh", "-c", f"[ {test} ]"]}, "periodSeconds": 1, "timeoutSeconds": 5}


@pytest.mark.usefixtures("settled")
def test_init_containers_run_in_their_order_and_once_each(shared: Space) -> None:
    assert shared.exec("ordered", "cat", "/data/order").split() == ["one", "two", "main"]


def test_init_container_that_is_done_is_told_as_completed(settled: dict[str, Json]) -> None:
    of = settled["ordered"]
    assert [(terminated(of, name)["reason"], status(of, name)["ready"]) for name in ("one", "two")] == [("Completed", True)] * 2
    assert condition(of, "Initialized")["status"] == "True"


def test_containers_wait_for_the_init_container_before_them(settled: dict[str, Json], shared: Space) -> None:
    of = settled["slow"]
    assert (phase(of), waiting(of, "next"), waiting(of)) == ("Pending", "PodInitializing", "PodInitializing")
    lacking = condition(of, "Initialized")
    assert (lacking["reason"], lacking["message"]) == (
        "ContainersNotInitialized",
        "containers with incomplete status: [slow next]",
    )
    assert shared.shown("slow") == "Init:0/2"


def test_containers_go_on_when_the_init_container_is_done(settled: dict[str, Json], shared: Space) -> None:
    tell(shared.lab.host(host_of(settled["slow"])), settled["slow"])
    assert is_ready(shared.wait(is_ready, "slow")["slow"])


def test_failed_init_container_of_never_fails_the_pod(settled: dict[str, Json], shared: Space) -> None:
    of = settled["fails"]
    assert (phase(of), terminated(of, "fails")["exitCode"], waiting(of)) == ("Failed", 3, "PodInitializing")
    assert shared.shown("fails") == "Init:Error"


@pytest.mark.parametrize("name", CRASHES)
def test_failing_init_container_is_tried_again_until_it_succeeds(settled: dict[str, Json], shared: Space, name: str) -> None:
    assert phase(settled[name]) == "Pending"
    of = shared.wait(is_ready, name, timeout_s=60)[name]
    assert (status(of, "tries")["restartCount"], status(of)["restartCount"]) == (2, 0)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("name", CRASHES)
def test_crash_loop_of_an_init_container_is_an_event(shared: Space, name: str) -> None:
    assert "Back-off restarting failed container tries" in shared.wait_event(name, "BackOff")


def test_sidecar_starts_before_the_main_container_and_runs_on(settled: dict[str, Json]) -> None:
    of = settled["beside"]
    assert runs(of, "side")
    assert (status(of, "side")["ready"], status(of, "side")["started"]) == (True, True)
    started = [seconds(status(of, name)["state"]["running"]["startedAt"]) for name in ("side", "main")]
    assert started == sorted(started)


@pytest.mark.usefixtures("settled")
def test_sidecar_has_a_log(shared: Space) -> None:
    assert shared.logs("beside", "--container=side") == "beside\n"


@pytest.mark.usefixtures("settled")
def test_startup_probe_of_a_sidecar_holds_back_what_comes_after(shared: Space) -> None:
    assert shared.exec("late", "cat", "/data/order").split() == ["side", "main"]


@pytest.mark.parametrize(("name", "expected"), [("job", "Succeeded"), ("job-fails", "Failed")])
def test_pod_ends_with_its_main_container_and_not_with_its_sidecar(settled: dict[str, Json], name: str, expected: str) -> None:
    of = settled[name]
    assert (phase(of), terminated(of, "side")["exitCode"]) == (expected, 0)
    assert seconds(terminated(of)["finishedAt"]) <= seconds(terminated(of, "side")["finishedAt"])


def test_requests_of_init_containers_count_for_the_place(settled: dict[str, Json]) -> None:
    assert {host_of(settled[f"asks-{number}"]) for number in range(2)} == {"host1", "host2"}


def test_sidecars_end_in_reverse_order(lab: Lab, space: Space) -> None:
    image = lab.image_busybox
    sides = [sidecar(image, POLITE, name=name) for name in ("first", "second")]
    space.create(held(pod("leaves", container(image, POLITE), initContainers=sides, grace_s=30)))
    space.wait(is_ready, "leaves")
    space.kubectl("delete", "pod", "leaves", "--wait=false")
    names = ("main", "second", "first")
    of = space.wait(lambda of: all(terminated(of, name) for name in names), "leaves")["leaves"]
    space.let_go("leaves")
    ends = [seconds(terminated(of, name)["finishedAt"]) for name in names]
    assert ends[0] < ends[1] < ends[2], ends
    assert [terminated(of, name)["exitCode"] for name in names] == [0, 0, 0]


def test_pod_can_be_deleted_while_it_initialises(lab: Lab, space: Space) -> None:
    inits = [container(lab.image_busybox, name=name) for name in ("one", "two")]
    space.create(held(pod("early", container(lab.image_busybox), initContainers=inits)))
    space.wait(lambda of: runs(of, "one"), "early")
    space.kubectl("delete", "pod", "early", "--wait=false")
    of = space.wait(lambda of: bool(terminated(of, "one")), "early")["early"]
    space.let_go("early")
    space.wait_gone("early")
    assert (terminated(of, "one")["exitCode"], terminated(of, "two")) == (137, {})


def test_sidecar_that_ends_is_restarted_alone(lab: Lab, space: Space) -> None:
    once = "[ -e /data/once ] && exec sleep 3600; touch /data/once; sleep 1; exit 3"
    space.create(with_data(pod("again", container(lab.image_busybox), initContainers=[sidecar(lab.image_busybox, once)])))
    of = space.wait(lambda of: is_ready(of) and status(of, "side")["restartCount"] == 1, "again")["again"]
    assert status(of)["restartCount"] == 0


@dataclass(frozen=True, slots=True)
class Passed:
    """Pods after something has befallen their vknix or host: what they wrote down, and their last status."""

    order: list[str]
    of: Json


@pytest.fixture(scope="module")
def killed(shared: Space) -> Passed:
    """vknix is killed while the second of two init containers runs, which ends meanwhile."""
    lab = shared.lab
    shared.create(in_order(lab.image_busybox, "killed", WHILE_NOT_TOLD))
    of = shared.wait(lambda of: runs(of, "two"), "killed")["killed"]
    lab.vknix.kill()
    tell(lab.host(host_of(of)), of)
    lab.vknix.start()
    of = shared.wait(is_ready, "killed")["killed"]
    return Passed(shared.exec("killed", "cat", "/data/order").split(), of)


def test_init_containers_do_not_run_again_when_vknix_is_killed(killed: Passed) -> None:
    assert killed.order == ["one", "two", "main"]
    assert [status(killed.of, name)["restartCount"] for name in ("one", "two", "main")] == [0, 0, 0]


@pytest.fixture(scope="module")
def rebooted(shared: Space) -> Passed:
    shared.create(in_order(shared.lab.image_busybox, "rebooted", restart="Always"))
    before = shared.wait(is_ready, "rebooted")["rebooted"]
    shared.lab.host(host_of(before)).reboot()
    of = shared.wait(lambda of: is_ready(of) and status(of)["restartCount"] > 0, "rebooted", timeout_s=60)["rebooted"]
    return Passed(shared.exec("rebooted", "cat", "/data/order").split(), of)


def test_init_containers_run_again_when_their_host_was_rebooted(rebooted: Passed) -> None:
    assert rebooted.order == ["one", "two", "main"] * 2
