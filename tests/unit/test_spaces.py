from typing import Any

import pytest

from tests.unit.build import pod
from vknix.nspawn import spaces
from vknix.nspawn.spaces import Spaces

UID32 = "0" * 32


@pytest.mark.parametrize(
    ("members", "fields", "expected"),
    [
        pytest.param(1, {}, Spaces(), id="alone"),
        pytest.param(2, {}, Spaces(ipc=True), id="two share IPC"),
        pytest.param(2, {"hostIPC": True}, Spaces(host_ipc=True), id="the host's IPC"),
        pytest.param(1, {"shareProcessNamespace": True}, Spaces(processes=True), id="processes"),
        pytest.param(1, {"hostPID": True}, Spaces(host_processes=True), id="the host's processes"),
        pytest.param(1, {"hostUsers": True}, Spaces(), id="the host's users"),
        pytest.param(1, {"hostUsers": False}, Spaces(ipc=True, users=65536), id="users of its own"),
    ],
)
def test_what_containers_share(members: int, fields: dict[str, Any], expected: Spaces) -> None:
    assert spaces.spaces(pod(**fields), members, 65536) == expected


def test_ranges_of_users_do_not_meet() -> None:
    taken: set[int] = set()
    for _ in range(100):
        start = spaces.free_users(taken)
        assert start is not None
        assert start % 65536 == 0
        assert start not in taken
        taken.add(start)


def test_values_are_quoted() -> None:
    hostile = Spaces(ipc=True, sysctls=(("kernel.sem", "1'; touch /x"), ("net.a", "$(x)")))
    assert "touch /x" not in spaces.make(UID32, hostile, "vktool").replace("'\"'\"'", "").split("printf")[0]
    assert spaces.set_network(UID32, hostile).count("nsenter") == 1


def test_nothing_is_made_for_a_plain_pod() -> None:
    assert spaces.make(UID32, Spaces(), "vktool") == ""
    assert spaces.make_users(UID32, Spaces(), "vktool") == ""
