"""vknix.nspawn.network: slices and addresses that never meet, and texts for ip and nft."""

import shutil
import subprocess
from ipaddress import AddressValueError, IPv4Network
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import UID32, parses
from vknix.core.facts import HostName
from vknix.nspawn import network, paths
from vknix.nspawn.network import Peer, slices

CIDR = ("10.1.0.0/24",)
A, B, C, D, E = (HostName(name) for name in "abcde")
hosts = st.lists(st.sampled_from([A, B, C, D]), unique=True, min_size=1)


def free(*names: HostName) -> dict[HostName, str | None]:
    return dict.fromkeys(names)


@given(st.permutations([A, B, C, D]), st.integers(1, 4))
def test_the_order_of_hosts_does_not_matter(order: list[HostName], count: int) -> None:
    names = sorted(order)[:count]
    assert slices(CIDR, free(*(name for name in order if name in names)), {}) == slices(CIDR, free(*names), {})


@given(st.permutations([A, B, C, D]), st.integers(1, 3))
def test_what_was_told_is_kept_when_hosts_are_added(order: list[HostName], count: int) -> None:
    first = {name: str(of) for name, of in slices(CIDR, free(*order[:count]), {}).items()}
    later = slices(CIDR, free(*order), first)
    assert {name: str(later[name]) for name in first} == first


@given(hosts, hosts, st.sampled_from([("10.1.0.0/24",), ("10.1.0.0/25", "10.2.0.0/25"), ("fd00::/64", "10.1.0.0/16")]))
def test_slices_never_overlap(before: list[HostName], after: list[HostName], cidrs: tuple[str, ...]) -> None:
    told = {name: str(of) for name, of in slices(cidrs, free(*before), {}).items()}
    try:
        made = slices(cidrs, free(*after), told)
    except ValueError:
        assert len({*before, *after}) > 4
        return
    gone = [IPv4Network(cidr) for name, cidr in told.items() if name not in after]
    assert not any(one.overlaps(other) for one, other in combinations([*made.values(), *gone], 2))
    assert all(any(of.subnet_of(IPv4Network(cidr)) for cidr in cidrs if ":" not in cidr) for of in made.values())


def test_a_quarter_each() -> None:
    assert [str(of) for of in slices(CIDR, free(A, B), {}).values()] == ["10.1.0.0/26", "10.1.0.64/26"]


def test_more_hosts_get_smaller_pieces() -> None:
    assert {str(of) for of in slices(CIDR, free(A, B, C, D, E), {}).values()} == {f"10.1.0.{n}/27" for n in (0, 32, 64, 96, 128)}


def test_a_configured_slice_is_taken_out_of_what_is_free() -> None:
    assert slices(CIDR, {A: None, B: "10.1.0.0/26"}, {}) == {A: IPv4Network("10.1.0.64/26"), B: IPv4Network("10.1.0.0/26")}


def test_a_host_that_is_gone_keeps_its_slice() -> None:
    assert slices(CIDR, free(B), {A: "10.1.0.0/26"}) == {B: IPv4Network("10.1.0.64/26")}


@pytest.mark.parametrize(
    ("of", "told", "said"),
    [
        (free(A, B, C, D, E), {name: f"10.1.0.{index * 64}/26" for index, name in enumerate([A, B, C, D])}, "set nodes"),
        ({A: "10.1.0.0/26", B: "10.1.0.32/27"}, {}, "hosts a .* and b .*overlap"),
        ({A: "10.1.0.0/25", B: None}, {B: "10.1.0.64/26"}, "hosts a .* and b .*overlap"),
    ],
    ids=["too small", "configured twice", "configured over what was told"],
)
def test_what_does_not_fit_says_what_to_do(of: dict[HostName, str | None], told: dict[HostName, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        slices(CIDR, of, told)


@given(st.sets(st.integers(0, 15)), st.one_of(st.none(), st.integers(0, 300)))
def test_a_free_address_is_free_and_in_its_slice(taken: set[int], after: int | None) -> None:
    of = IPv4Network("10.1.0.16/28")
    used = {str(of[index]) for index in taken}
    last = None if after is None else f"10.1.{after // 256}.{after % 256}"
    made = network.free_address(of, used, last)
    usable = {str(address) for address in of} - {"10.1.0.16", "10.1.0.17"}
    assert made in usable - used if usable - used else made is None


def test_the_next_address_is_the_one_after_the_last() -> None:
    of = IPv4Network("10.1.0.0/29")
    given_out = [None, *(f"10.1.0.{n}" for n in range(2, 8))]
    assert [network.free_address(of, (), last) for last in given_out] == [*(f"10.1.0.{n}" for n in range(2, 8)), "10.1.0.2"]


def test_names_fit_the_kernel_and_no_dhcp_client_takes_them() -> None:
    assert network.veth(UID32) == "vnet11111111222"
    assert len(network.veth(UID32)) == 15


def test_scripts_are_scripts() -> None:
    own, peer = IPv4Network("10.1.0.0/26"), Peer(B, "192.0.2.2", IPv4Network("10.1.0.64/26"))
    for script in (network.make(UID32, "10.1.0.2"), network.remove(UID32), network.base(own, (peer,), ("10.96.0.0/12",), "/nft")):
        parses(script)


def test_a_pods_network() -> None:
    made = network.make(UID32, "10.1.0.2")
    assert "peer name eth0 address 0a:58:0a:01:00:02" in made
    assert f"route add 10.1.0.2/32 dev {network.veth(UID32)} proto 118" in made
    assert "route add default via 169.254.1.1 dev eth0 onlink" in made


@pytest.mark.parametrize("address", ["", "10.1.0.2\nX\nreboot", "fd00::2", "10.1.0.2/24"])
def test_what_is_no_address_makes_no_script(address: str) -> None:
    with pytest.raises(AddressValueError):
        network.make(UID32, address)


def test_pods_show_their_own_address_inside_only() -> None:
    peer = Peer(B, "192.0.2.2", IPv4Network("10.1.0.64/26"))
    made = network.base(IPv4Network("10.1.0.0/26"), (peer,), ("10.96.0.0/12",), "/nft")
    assert "route replace 10.1.0.64/26 via 192.0.2.2 proto 118" in made
    assert "elements = { 10.1.0.0/26, 10.1.0.64/26, 10.96.0.0/12 }" in made
    assert 'ip saddr 10.1.0.0/26 ip daddr != @inside oifname != "vnet*" masquerade' in made


@pytest.mark.skipif(shutil.which("unshare") is None or shutil.which("nft") is None, reason="needs unshare and nft")
def test_the_kernel_takes_the_base_twice(tmp_path: Path) -> None:
    base = network.base(IPv4Network("10.1.0.0/26"), (), ("10.96.0.0/12",), "nft").replace(paths.RUN, str(tmp_path))
    script = f"set -e\nip link set lo up\n{base}{base}nft list table inet vknix\nip route show proto 118\n"
    done = subprocess.run(["unshare", "-rn", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr or "Read-only" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert "masquerade" in done.stdout
    assert "blackhole 10.1.0.0/26" in done.stdout
