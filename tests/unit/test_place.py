"""vknix.nspawn.place: a host within the pool, or the kubelet's word for why not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import host
from vknix.core.facts import HostFacts, HostName, HostState
from vknix.core.resources import Amounts
from vknix.errors import Refused, Unreachable
from vknix.nspawn.place import Used, choose, used

A, B = HostName("a"), HostName("b")
NONE: frozenset[HostName] = frozenset()


def test_used_adds_up() -> None:
    assert used([Amounts(1, 2, 3), Amounts(None, 5, None)]) == Used(2, 1, 7, 3)


@pytest.mark.parametrize(
    ("asked", "taken", "at_hand", "name"),
    [
        (Amounts(), {}, NONE, "a"),
        (Amounts(), {}, frozenset({B}), "b"),
        (Amounts(), {A: Used(5)}, frozenset({A}), "b"),
        (Amounts(), {A: Used(1, cpu_milli=2000)}, NONE, "b"),
        (Amounts(3000), {B: Used(1, cpu_milli=2000)}, frozenset({B}), "a"),
        (Amounts(), {A: Used(memory_bytes=1 << 20)}, frozenset({A}), "a"),
    ],
    ids=["by name", "closures at hand", "fewer Pods", "less cpu", "only one has room", "noise does not count"],
)
def test_the_host_with_the_most_room(asked: Amounts, taken: dict[HostName, Used], at_hand: frozenset[HostName], name: str) -> None:
    assert choose(asked, [host("b"), host("a")], taken, at_hand) == name


@pytest.mark.parametrize(
    ("asked", "taken", "reason"),
    [
        (Amounts(4001), Used(), "OutOfcpu"),
        (Amounts(1), Used(cpu_milli=4000), "OutOfcpu"),
        (Amounts(0, 9 << 30), Used(), "OutOfmemory"),
        (Amounts(None, None, 101 << 30), Used(), "OutOfephemeral-storage"),
        (Amounts(), Used(pods=62), "OutOfpods"),
    ],
)
def test_no_room_is_the_kubelets_reason(asked: Amounts, taken: Used, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        choose(asked, [host("a")], {A: taken}, NONE)
    assert refused.value.reason == reason


def test_huge_pages_are_no_memory_for_others() -> None:
    kept = host("a", huge={"2Mi": 2 << 30})
    assert choose(Amounts(0, 6 << 30, huge=(("2Mi", 2 << 30),)), [kept], {}, NONE) == "a"
    for asked, lacks in ((Amounts(0, 7 << 30), "memory"), (Amounts(huge=(("2Mi", 3 << 30),)), "hugepages-2Mi")):
        with pytest.raises(Refused) as refused:
            choose(asked, [kept], {}, NONE)
        assert refused.value.reason == f"OutOf{lacks}"


def test_what_asks_for_nothing_fits_a_host_that_is_full() -> None:
    assert choose(Amounts(), [host("a")], {A: Used(1, 9000, 9 << 40)}, NONE) == "a"


@pytest.mark.parametrize("hosts", [[], [host("a", HostState.LOST), host("b", HostState.UNKNOWN)]])
def test_no_host_that_answers_is_to_be_waited_for(hosts: list[HostFacts]) -> None:
    with pytest.raises(Unreachable):
        choose(Amounts(), hosts, {}, NONE)


@given(
    st.lists(st.tuples(st.integers(0, 4000), st.sampled_from([HostState.LISTED, HostState.LOST])), min_size=1, max_size=4),
    st.integers(0, 4000),
)
def test_the_chosen_host_answers_and_has_room(pool: list[tuple[int, HostState]], asked: int) -> None:
    hosts = [host(str(index), state) for index, (_, state) in enumerate(pool)]
    taken = {HostName(str(index)): Used(1, busy) for index, (busy, _) in enumerate(pool)}
    fitting = {str(index) for index, (busy, state) in enumerate(pool) if state is HostState.LISTED and busy + asked <= 4000}
    try:
        assert choose(Amounts(asked), hosts, taken, NONE) in fitting
    except (Refused, Unreachable):
        assert not fitting
