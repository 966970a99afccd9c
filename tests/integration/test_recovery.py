"""vknix dies, hosts can't be reached, hosts go down: nothing runs twice, and nothing is forgotten."""

import time
from dataclasses import dataclass

import pytest

from tests.integration.build import (
    HOST,
    WHILE_NOT_TOLD,
    Json,
    Space,
    at_once,
    condition,
    container,
    has_ended,
    host_of,
    identity,
    is_ready,
    most_of_a_host,
    phase,
    pod,
    seconds,
    snapshots,
    status,
    tell,
    terminated,
    third_of_a_host,
    uid32,
    wait_as_before,
    with_data,
)
from tests.lab.hosts import Host
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

pytestmark = pytest.mark.lab

CUT_S = 60.0
SEEN_S = 20.0  # within which a host that does not answer is seen


def wait_facts(host: Host, of: Json, lines: int) -> None:
    """Until that many attempts have ended, as the host has written them down."""
    facts = f"/var/lib/vknix/{uid32(of)}/c/main/facts"
    wait_for(lambda: len(host.inside(f"cat {facts} || :").splitlines()) >= lines, "the end is on the host's disk", timeout_s=20)


def wait_active(host: Host, of: Json) -> None:
    unit = f"vk-{uid32(of)}-main.service"
    wait_for(lambda: host.inside(f"systemctl is-active {unit} || :").strip() == "active", f"{unit} runs", timeout_s=20)


def is_not_ready(of: Json) -> bool:
    return condition(of, "Ready").get("status") == "False"


@dataclass(frozen=True, slots=True)
class Death:
    """Before vknix was killed, and after it was started again: Pods, what hosts had, since when the node is ready."""

    before: dict[str, Json]
    after: dict[str, Json]
    told_at: float
    things: tuple[list[set[str]], list[set[str]]]
    node_since: tuple[str, str]


STAY = tuple(f"stays-{number}" for number in range(4))


@pytest.fixture(scope="module")
def death(shared: Space) -> Death:
    """kill -9 with Pods on both hosts, of which two end meanwhile; one is for its host to restart."""
    lab, image = shared.lab, shared.lab.image_busybox
    waits = f"{WHILE_NOT_TOLD}; rm /data/go;"
    shared.create(
        *(pod(name, container(image)) for name in STAY),
        with_data(pod("ends", container(image, f"{waits} exit 7"))),
        with_data(pod("restarts", container(image, f"{waits} exit 0"), restart="Always")),
    )
    before = shared.wait(is_ready)
    since_before = node_since(lab)
    lab.vknix.kill()
    told_at = time.time()
    for name in ("ends", "restarts"):
        tell(lab.host(host_of(before[name])), before[name])
        wait_facts(lab.host(host_of(before[name])), before[name], 1)
    wait_active(lab.host(host_of(before["restarts"])), before["restarts"])
    things_before = [things(host) for host in lab.hosts]
    lab.vknix.start()
    shared.wait(has_ended, "ends")
    shared.wait(lambda of: is_ready(of) and status(of)["restartCount"] == 1, "restarts")
    after = shared.wait(is_ready, *STAY)
    things_after = [things(host) for host in lab.hosts]
    shared.clear()
    return Death(before, after, told_at, (things_before, things_after), (since_before, node_since(lab)))


def node_since(lab: Lab) -> str:
    """When the node became ready."""
    path = "{.status.conditions[?(@.type=='Ready')].lastTransitionTime}"
    return lab.kubectl("get", "node", "vknix", f"--output=jsonpath={path}").stdout


def things(host: Host) -> set[str]:
    """Units, network namespaces and links; files may be written anew."""
    return {line for line in host.snapshot().splitlines() if line.startswith(("unit ", "netns ", "link "))}


def test_no_container_restarts_when_vknix_is_killed(death: Death) -> None:
    assert [identity(death.after[name]) for name in STAY] == [identity(death.before[name]) for name in STAY]


def test_restart_of_vknix_is_not_told_as_a_change(death: Death) -> None:
    """Not for a moment: a Pod or Node that is not ready would lose its traffic."""
    versions = [[of[name]["metadata"]["resourceVersion"] for name in STAY] for of in (death.before, death.after)]
    assert versions[0] == versions[1]
    assert death.node_since[0] == death.node_since[1]


def test_pods_of_both_hosts_went_through_it(death: Death) -> None:
    assert {host_of(of) for of in death.before.values()} == {"host1", "host2"}


def test_nothing_is_created_twice(death: Death) -> None:
    before, after = death.things
    assert after == before


def test_end_without_vknix_is_told_with_its_code_and_times(death: Death) -> None:
    told = terminated(death.after["ends"])
    assert (phase(death.after["ends"]), told["exitCode"], told["reason"]) == ("Failed", 7, "Error")
    assert told["startedAt"] == identity(death.before["ends"])[2]
    assert abs(seconds(told["finishedAt"]) - death.told_at) <= 3


def test_restart_without_vknix_is_counted(death: Death) -> None:
    told = status(death.after["restarts"])
    assert told["restartCount"] == 1
    assert told["lastState"]["terminated"]["exitCode"] == 0
    assert told["containerID"] != status(death.before["restarts"])["containerID"]


@dataclass(frozen=True, slots=True)
class Cut:
    """Pods before, during and after their host could not be reached; `seen_s`: how long it took to be seen."""

    before: dict[str, Json]
    during: dict[str, Json]
    after: dict[str, Json]
    node: str
    seen_s: float
    left: str


@pytest.fixture(scope="module")
def cut(shared: Space) -> Cut:
    """host1 is cut for a minute; one Pod there is deleted meanwhile."""
    lab, image = shared.lab, shared.lab.image_busybox
    host = lab.host("host1")
    shared.create(*(pod(f"cut-{number}", container(image, resources=most_of_a_host())) for number in range(2)))
    shared.wait(is_ready, "cut-0", "cut-1")
    leaves = [f"leaves-{number}" for number in range(6)]  # so many that some are there, however the hosts are laden
    shared.create(*(pod(name, container(image)) for name in leaves))
    before = shared.wait(is_ready, "cut-0", "cut-1", *leaves)
    there = [name for name, of in before.items() if host_of(of) == host.name and name.startswith(("cut", "leaves"))]
    host.cut()
    began = time.monotonic()
    try:
        shared.wait(is_not_ready, *there, timeout_s=SEEN_S + 10)
        seen_s = time.monotonic() - began
        leaving = next(name for name in there if name.startswith("leaves"))
        shared.kubectl("delete", "pod", leaving, "--wait=false")
        wait_for(lambda: time.monotonic() - began >= CUT_S, "a minute is over", timeout_s=CUT_S + 5, every_s=1)
        during = shared.pods()
        node = lab.kubectl("get", "node", "vknix", "--output=jsonpath={.status.conditions[?(@.type=='Ready')].message}").stdout
    finally:
        host.heal()
    shared.wait_gone(leaving, timeout_s=60)
    after = shared.wait(is_ready, "cut-0", "cut-1", timeout_s=60)
    left = host.snapshot()
    shared.clear()
    return Cut(before, during, after, node, seen_s, left)


def cut_pod(cut: Cut) -> str:
    return next(name for name in ("cut-0", "cut-1") if host_of(cut.before[name]) == "host1")


def test_lost_host_is_seen_soon(cut: Cut) -> None:
    assert cut.seen_s <= SEEN_S


def test_pod_of_a_lost_host_is_not_ready_and_keeps_its_phase(cut: Cut) -> None:
    of = cut.during[cut_pod(cut)]
    ready = condition(of, "Ready")
    assert (phase(of), ready["status"], ready["reason"]) == ("Running", "False", "HostUnreachable")
    assert "host1" in ready["message"]


def test_node_names_the_host_that_is_away(cut: Cut) -> None:
    assert "1 of 2 hosts away: host1" in cut.node


def test_pod_of_the_other_host_stays_ready(cut: Cut) -> None:
    other = next(name for name in ("cut-0", "cut-1") if host_of(cut.before[name]) == "host2")
    assert is_ready(cut.during[other])


def test_nothing_restarts_when_the_host_is_back(cut: Cut) -> None:
    name = cut_pod(cut)
    assert identity(cut.after[name]) == identity(cut.before[name])


def test_pod_deleted_during_a_cut_is_kept_until_its_host_is_back(cut: Cut) -> None:
    leaving = next(name for name in cut.before if name.startswith("leaves") and host_of(cut.before[name]) == "host1")
    assert leaving in cut.during
    assert uid32(cut.before[leaving]) not in cut.left


def test_restart_of_sshd_is_not_noticed(lab: Lab, space: Space) -> None:
    names = [f"calm-{number}" for number in range(2)]
    space.create(*(pod(name, container(lab.image_busybox, resources=most_of_a_host())) for name in names))
    before = space.wait(is_ready, *names)
    at_once(*(host.restart_sshd for host in lab.hosts))
    assert [space.exec(name, "echo", "here") for name in names] == ["here\n", "here\n"]
    after = space.pods()
    assert all(is_ready(of) for of in after.values())
    assert {name: identity(after[name]) for name in names} == {name: identity(before[name]) for name in names}


def unplug(host: Host) -> None:
    """A power cut, and power again."""
    host.remove()
    host.start()
    host.wait()


@dataclass(frozen=True, slots=True)
class Downs:
    """Pods by host, of policies Always and Never, after both hosts went down; what one Pod's ping of the other said."""

    always: dict[str, Json]
    never: dict[str, Json]
    ping: str


@pytest.fixture(scope="module")
def downs(shared: Space) -> Downs:
    """host1 is rebooted, host2 loses its power."""
    lab, image = shared.lab, shared.lab.image_busybox
    for policy, resources in (("Always", most_of_a_host()), ("Never", third_of_a_host())):
        names = [f"{policy.lower()}-{number}" for number in range(2)]
        shared.create(*(pod(name, container(image, resources=resources), restart=policy) for name in names))
        shared.wait(is_ready, *names)
    at_once(lab.host("host1").reboot, lambda: unplug(lab.host("host2")))
    shared.wait(lambda of: is_ready(of) and status(of)["restartCount"] > 0, "always-0", "always-1", timeout_s=60)
    after = shared.wait(has_ended, "never-0", "never-1", timeout_s=60)
    ping = shared.exec("always-0", "ping", "-c", "1", "-W", "5", after["always-1"]["status"]["podIP"])
    shared.clear()
    always, never = ({host_of(of): of for name, of in after.items() if name.startswith(kind)} for kind in ("always", "never"))
    return Downs(always, never, ping)


DOWN = pytest.mark.parametrize("host", ["host1", "host2"], ids=["reboot", "power cut"])


@DOWN
def test_always_comes_back_with_its_host_and_is_counted_once(downs: Downs, host: str) -> None:
    of = downs.always[host]
    assert (is_ready(of), status(of)["restartCount"]) == (True, 1)
    assert status(of)["lastState"]["terminated"]["exitCode"] == 137


@DOWN
def test_never_does_not_come_back_with_its_host(downs: Downs, host: str) -> None:
    of = downs.never[host]
    assert (phase(of), status(of)["restartCount"], terminated(of)["exitCode"]) == ("Failed", 0, 137)


def test_power_cut_is_an_honest_end(downs: Downs) -> None:
    told = terminated(downs.never["host2"])
    assert told["reason"] == "ContainerStatusUnknown"
    assert "the host went down" in told["message"]


def test_network_of_pods_comes_back_with_the_hosts(downs: Downs) -> None:
    assert "1 packets received" in downs.ping


def test_pod_deleted_by_force_without_vknix_is_cleaned_up(lab: Lab, space: Space) -> None:
    before = snapshots(lab)
    space.create(*(pod(f"forced-{number}", container(lab.image_busybox), grace_s=300) for number in range(2)))
    space.wait(is_ready)
    lab.vknix.kill()
    space.kubectl("delete", "pods", "--all", "--grace-period=0", "--force")
    lab.vknix.start()
    wait_as_before(lab, before)


def test_pod_is_never_started_on_a_second_host(lab: Lab, space: Space) -> None:
    """vknix starts a Pod and is killed at once; its host is cut; the next vknix can't know what became of the Pod."""
    space.create(pod("one", container(lab.image_busybox)))
    wait_for(lambda: bool(host_of(space.pod("one"))), "the Pod is bound to a host", timeout_s=10, every_s=0.02)
    lab.vknix.kill()
    of = space.pod("one")
    bound, other = lab.host(host_of(of)), next(host for host in lab.hosts if host.name != host_of(of))
    bound.cut()
    try:
        lab.vknix.start()
        space.create(*(pod(f"new-{number}", container(lab.image_busybox)) for number in range(3)))
        new = space.wait(is_ready, "new-0", "new-1", "new-2")
        assert {host_of(new[name]) for name in ("new-0", "new-1", "new-2")} == {other.name}
        assert uid32(of) not in other.snapshot()
        assert space.pod("one")["metadata"]["annotations"][HOST] == bound.name
    finally:
        bound.heal()
    healed = space.wait(is_ready, "one", timeout_s=60)["one"]
    assert (host_of(healed), status(healed)["restartCount"]) == (bound.name, 0)
    assert uid32(of) not in other.snapshot()
