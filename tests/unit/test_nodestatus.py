"""vknix.core.nodestatus: the Node as a kubelet would have it."""

import json
from typing import Any

import pytest

from tests.unit.build import golden, host
from vknix.core import nodestatus
from vknix.core.facts import HostFacts, HostState
from vknix.core.nodestatus import NodeSettings, Taint, differs, new_node, node_status

SETTINGS = NodeSettings(
    "pool",
    "192.0.2.10",
    10250,
    {"zone": "a"},
    (Taint("vknix.io/pool", "NoSchedule"), Taint("k", "NoExecute", "v")),
    ("B", "A", "B"),
    "0.1.0",
)
FACTS: dict[str, Any] = {
    "boot_id": "b-1",
    "machine_id": "m-1",
    "system_uuid": "s-1",
    "kernel": "6.12.1",
    "os_image": "NixOS 26.05",
    "systemd": "259",
    "nix": "2.34.0",
    "arch": "amd64",
}
LOST = host("b", HostState.LOST, message="connection refused")


def status(*hosts: HostFacts, told: dict[str, Any] | None = None, now: float = 100.0, networked: bool = True) -> dict[str, Any]:
    return node_status(SETTINGS, hosts, told or {}, now, networked=networked)


def test_golden_node() -> None:
    node = new_node(SETTINGS, [host(**FACTS)], 100.0)
    node["status"] = status(host(**FACTS))
    golden("node.json", json.dumps(node, indent=2) + "\n")


@pytest.mark.parametrize(
    ("hosts", "networked", "ready", "said"),
    [
        ((host(),), True, "True", "kubelet is posting ready status"),
        ((host(), LOST), True, "True", "1 of 2 hosts away: b: connection refused"),
        ((LOST,), True, "False", "no host answers: b: connection refused"),
        ((host("c", HostState.UNKNOWN),), True, "False", "no host answers: c: not reached yet"),
        ((), True, "False", "no host is configured"),
        ((host(),), False, "False", "the Node has no podCIDR yet"),
    ],
    ids=["all", "one away", "none", "not reached", "none configured", "no network"],
)
def test_ready_says_why(hosts: tuple[HostFacts, ...], networked: bool, ready: str, said: str) -> None:
    condition = status(*hosts, networked=networked)["conditions"][-1]
    assert (condition["type"], condition["status"]) == ("Ready", ready)
    assert condition["reason"] == ("KubeletReady" if ready == "True" else "KubeletNotReady")
    assert said in condition["message"]


def test_capacity_counts_all_hosts_and_allocatable_those_that_answer() -> None:
    made = status(host(), LOST)
    assert (made["capacity"]["cpu"], made["allocatable"]["cpu"]) == ("8000m", "4000m")
    assert (made["capacity"]["pods"], made["allocatable"]["pods"]) == ("124", "62")
    assert made["allocatable"]["memory"] == f"{8 << 20}Ki"


def test_huge_pages_are_no_memory_for_others() -> None:
    made = status(host(huge={"2Mi": 1 << 30, "1Gi": 0}))
    assert [made[kind]["memory"] for kind in ("capacity", "allocatable")] == [f"{8 << 20}Ki", f"{7 << 20}Ki"]
    assert [made[kind]["hugepages-2Mi"] for kind in ("capacity", "allocatable")] == [str(1 << 30)] * 2
    assert made["capacity"]["hugepages-1Gi"] == "0"


def test_a_pool_says_what_all_hosts_have_in_common() -> None:
    info = status(host(**FACTS), host("b", **{**FACTS, "boot_id": "b-2", "kernel": "6.18"}))["nodeInfo"]
    assert (info["bootID"], info["machineID"], info["kernelVersion"]) == ("pool", "pool", "6.12.1, 6.18")
    assert (info["osImage"], info["architecture"]) == ("NixOS 26.05", "amd64")


def test_the_kubelet_version_is_a_version_and_the_runtime_is_the_one_of_container_ids() -> None:
    info = status(host(**FACTS))["nodeInfo"]
    assert info["kubeletVersion"] == f"{nodestatus.KUBELET_VERSION}-vknix-0.1.0"
    assert info["containerRuntimeVersion"] == "systemd-nspawn://259"


def test_users_of_its_own_are_offered_where_each_host_has_them() -> None:
    def offered(*hosts: HostFacts) -> bool:
        (default,) = (each["features"] for each in status(*hosts)["runtimeHandlers"] if not each["name"])
        return bool(default["userNamespaces"])

    assert offered(host("a"), host("b"))
    assert not offered(host("a"), host("b", own_users=False))
    assert offered(host("a"), host("b", state=HostState.LOST, own_users=False))


def test_a_reboot_of_a_single_host_shows() -> None:
    assert differs(status(host(**FACTS)), status(host(**{**FACTS, "boot_id": "b-2"})))


def test_transition_times_move_only_with_the_status() -> None:
    first = status(host(), now=100.0)
    again = status(host(), told=first, now=200.0)
    assert [each["lastTransitionTime"] for each in again["conditions"]] == ["1970-01-01T00:01:40Z"] * 4
    assert {each["lastHeartbeatTime"] for each in again["conditions"]} == {"1970-01-01T00:03:20Z"}
    lost = status(LOST, told=again, now=300.0)
    assert lost["conditions"][-1]["lastTransitionTime"] == "1970-01-01T00:05:00Z"


def test_a_heartbeat_is_no_difference() -> None:
    first = status(host())
    as_answered = {**first, "conditions": first["conditions"][::-1], "images": []}
    assert not differs(as_answered, status(host(), told=first, now=200.0))


@pytest.mark.parametrize(
    ("name", "text"), [("cpu", "4"), ("memory", "8Gi"), ("memory", "8388608Ki"), ("ephemeral-storage", "100Gi"), ("pods", "62")]
)
def test_the_api_servers_own_writing_of_an_amount_is_no_difference(name: str, text: str) -> None:
    first = status(host())
    assert not differs({**first, "capacity": {**first["capacity"], name: text}}, first)


@pytest.mark.parametrize("change", [{"pods": 61}, {"cpu_milli": 2000}, {"kernel": "7"}, {"state": HostState.LOST}])
def test_what_else_changes_is_a_difference(change: dict[str, Any]) -> None:
    assert differs(status(host()), status(host(**change)))


def test_labels() -> None:
    mixed = nodestatus.labels(SETTINGS, [host(arch="amd64"), host("b", arch="arm64")])
    assert "kubernetes.io/arch" not in mixed
    assert mixed["zone"] == "a"
    assert nodestatus.labels(SETTINGS, [host(arch="arm64"), LOST])["kubernetes.io/arch"] == "arm64"
