"""vknix.nspawn.registration: what a host says of itself, and what it lacks."""

import subprocess

import pytest

from tests.unit.build import parses
from vknix.core.facts import HostName
from vknix.nspawn import registration

HOST = HostName("a")


def test_the_script_is_one() -> None:
    parses(registration.REGISTER)


def registered() -> dict[str, str]:
    done = subprocess.run(["dash"], input=registration.REGISTER, capture_output=True, text=True, check=False)
    return registration.parse(done.stdout)


def test_this_machine_registers() -> None:
    told_of = registered()
    facts = registration.host_facts(HOST, "192.0.2.1", told_of, 62)
    assert facts.cpu_milli >= 1000
    assert facts.memory_bytes > 1 << 20
    assert facts.storage_bytes > 0
    assert facts.boot_id
    assert facts.arch in ("amd64", "arm64")


GOOD = {
    **dict.fromkeys(
        ("tool:systemd-nspawn", "tool:nsenter", "tool:unshare", "tool:ip", "tool:tar", "tool:find", "tool:nix-store"), "/x"
    ),
    "user": "0",
    "nft": "/nft",
    "cgroup2": "/sys/fs/cgroup",
    "overlay": "1",
    "redirect": "Y",
    "nix_dev": "1",
    "store_dev": "1",
    "controllers": "cpu memory pids",
    "kernel": "6.12.10",
    "users": "95000",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"user": "1000"}, "set user: root"),
        ({"tool:nix-store": ""}, "add Nix to"),
        ({"nft": ""}, "networking.nftables.enable"),
        ({"cgroup2": ""}, "cgroup v2"),
        ({"redirect": "N"}, "redirect_always_follow"),
        ({"store_dev": "2"}, "/nix/store is a file system of its own"),
    ],
)
def test_a_problem_comes_with_its_remedy(change: dict[str, str], said: str | None) -> None:
    problems = list(registration.problems({**GOOD, **change}))
    assert len(problems) == (said is not None)
    assert said is None or said in problems[0]


def test_limits_that_cant_be_enforced_are_warned_of() -> None:
    assert list(registration.warnings(GOOD)) == []
    assert len(list(registration.warnings({**GOOD, "controllers": "pids"}))) == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"kernel": "6.3.0-rc1"}, ""),
        ({"kernel": "odd"}, ""),
        ({"kernel": "6.2.16"}, "Linux 6.3"),
        ({"kernel": "5.15"}, "Linux 6.3"),
        ({"users": "0"}, "user.max_user_namespaces is 0"),
        ({"users": ""}, "user.max_user_namespaces is 0"),
    ],
)
def test_a_host_without_users_for_pods_says_so(change: dict[str, str], why: str) -> None:
    said = list(registration.warnings({**GOOD, **change}))
    assert [why in each and "hostUsers: false" in each for each in said] == [True] * bool(why)
    assert registration.host_facts(HOST, "192.0.2.1", {**registered(), **GOOD, **change}, 62).own_users is not bool(why)


def test_registration_keeps_values_of_many_words_and_the_files() -> None:
    resolv_conf = "nameserver 1.1.1.1\nsearch a b\n"
    told_of = registration.parse(f"os NixOS 26.05 (Yarara)\nsystemd \nhosts\n::1 box\n\nresolv_conf\n{resolv_conf}")
    assert told_of == {"os": "NixOS 26.05 (Yarara)", "systemd": "", "hosts": "::1 box\n", "resolv_conf": resolv_conf}
