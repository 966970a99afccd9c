"""The lab keeps its promises to the tests that stand on it."""

import pytest

from tests.lab.hosts import Host
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab


@pytest.fixture(params=["host1", "host2"])
def host(lab: Lab, request: pytest.FixtureRequest) -> Host:
    return lab.host(request.param)


def test_busybox_closure_has_sh_and_two_paths_or_more(lab: Lab, host: Host) -> None:
    path = lab.image_busybox.removeprefix("nix:0")
    paths = host.run(f"{path}/bin/sh -c 'echo ok' && nix-store -qR {path}").splitlines()
    assert paths[0] == "ok"
    assert len(paths[1:]) >= 2


def test_reboot_leaves_no_network_state_but_the_disk(lab: Lab, host: Host) -> None:
    lab.vknix.stop()  # it would make its own again
    key = host.public_key
    host.run(
        "ip link add vnettest type veth peer name vnetpeer && ip route add blackhole 203.0.113.0/24 proto 118 && touch /root/kept"
    )
    assert "link vnettest" in host.snapshot()
    host.reboot()
    assert not [line for line in host.snapshot().splitlines() if line.split()[0] in ("link", "route", "nft")]
    assert host.run("cat /root/kept && echo there") == "there\n"
    assert host.public_key == key


def test_cut_host_runs_on_and_is_reached_again_when_healed(host: Host) -> None:
    host.cut()
    try:
        assert host.run("echo reached", check=False) == ""
        assert host.inside("echo running") == "running\n"
    finally:
        host.heal()
    assert host.run("echo reached") == "reached\n"


def test_restart_of_sshd_keeps_the_host_up(host: Host) -> None:
    host.restart_sshd()
    assert host.run("systemctl is-system-running") == "running\n"


def test_apiserver_may_talk_to_kubelets_and_is_no_administrator(lab: Lab) -> None:
    may = ("auth", "can-i", "--as=kube-apiserver-kubelet-client")
    questions = (("create", "nodes", "--subresource=proxy"), ("list", "secrets"))
    answers = [lab.kubectl(*may, *question, check=False).stdout.strip() for question in questions]
    assert answers == ["yes", "no"]


def test_namespace_takes_pods(lab: Lab, namespace: str) -> None:
    run = ("run", "pod", f"--namespace={namespace}", f"--image={lab.image_busybox}", "--restart=Never", "--dry-run=server")
    assert lab.kubectl(*run, "--output=name").stdout == "pod/pod\n"
