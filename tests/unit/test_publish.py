"""vknix.nspawn.publish: ports of a host that lead to Pods, in a kernel's own tables."""

import re
import shutil
import subprocess
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.unit.build import UID32, container, parses, plan, pod
from vknix.core.host_ports import ANY, Port
from vknix.nspawn import network, paths, publish

OTHER = "f" * 32
WEB = Port("TCP", ANY, 8080, 80)
DNS = Port("UDP", "192.0.2.1", 53, 5353)
PORT = {"containerPort": 80, "hostPort": 8080}


def test_ports_are_those_of_containers_that_stay() -> None:
    init = container("init", ports=[{"containerPort": 1, "hostPort": 1}])
    side = container("side", ports=[{"containerPort": 2, "hostPort": 2}], restartPolicy="Always")
    own = container(ports=[PORT, {"containerPort": 81}, {**PORT, "protocol": "UDP", "hostIP": "192.0.2.1"}])
    of = pod(own, initContainers=[init, side])
    assert plan(of).ports == (Port("TCP", ANY, 2, 2), Port("TCP", ANY, 8080, 80), Port("UDP", "192.0.2.1", 8080, 80))
    assert plan(pod(own, hostNetwork=True)).ports == ()


def test_pod_without_such_ports_needs_nothing_done() -> None:
    assert publish.make(UID32, "vnet0", "10.1.0.2", (), "nft") == ""


def test_scripts_are_scripts() -> None:
    for script in (
        publish.make(UID32, "vnet0", "10.1.0.2", (WEB, DNS), "/nft"),
        publish.restore("/nft"),
        publish.unmake(UID32, "/nft"),
    ):
        parses(script)


def in_kernel(root: Path, *steps: str) -> list[set[str]]:
    """Runs the steps on a host that has its base: which elements there are after each."""
    base = network.base(IPv4Network("10.1.0.0/26"), (), (), "nft")
    begin = f"set -e\nip link set lo up\nip link add vnet0 type veth peer name far0\n{base}"
    shown = "nft -s list table inet vknix | tr -d '\\n\\t'; echo\n"
    script = begin + "".join(f"{step}\n{shown}" for step in (*steps, base, f"nft flush ruleset\n{base}"))
    for uid32 in (UID32, OTHER):
        (root / uid32).mkdir()
    script = script.replace(paths.RUN, str(root))
    done = subprocess.run(["unshare", "-rn", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr or "Read-only" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    states = [
        {" ".join(each.split()) for of in re.findall("elements = {([^}]*)}", line) for each in of.split(",")} - {"10.1.0.0/26"}
        for line in done.stdout.splitlines()
    ]
    assert states[-3] == states[-2] == states[-1], "a new base, or one after a flush, leaves all ports"
    return states[:-2]


WEB_THERE = "tcp . 8080 : 10.1.0.2 . 80"
OWN = "10.1.0.2 . 10.1.0.2"


@pytest.mark.skipif(shutil.which("unshare") is None or shutil.which("nft") is None, reason="needs unshare and nft")
def test_ports_come_and_go_with_their_pod(tmp_path: Path) -> None:
    made = publish.make(UID32, "vnet0", "10.1.0.2", (WEB, DNS), "nft")
    there = {WEB_THERE, "192.0.2.1 . udp . 53 : 10.1.0.2 . 5353", OWN}
    gone = publish.unmake(UID32, "nft")
    assert in_kernel(tmp_path, made, made, gone, gone, made) == [there, there, set(), set(), there]


@pytest.mark.skipif(shutil.which("unshare") is None or shutil.which("nft") is None, reason="needs unshare and nft")
def test_port_of_a_pod_that_has_ended_is_the_next_ones(tmp_path: Path) -> None:
    ended = publish.make(OTHER, "vnet0", "10.1.0.9", (WEB, DNS), "nft")
    made = publish.make(UID32, "vnet0", "10.1.0.2", (WEB,), "nft")
    left = {"192.0.2.1 . udp . 53 : 10.1.0.9 . 5353", "10.1.0.9 . 10.1.0.9"}
    states = in_kernel(tmp_path, ended, made, publish.unmake(OTHER, "nft"))
    assert states[1:] == [{WEB_THERE, OWN, *left}, {WEB_THERE, OWN}]
