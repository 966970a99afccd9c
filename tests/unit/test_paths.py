"""vknix.nspawn.paths: names that lead back to what they name."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import ROOT, UID, UID32
from vknix.core.facts import Uid
from vknix.nspawn import paths

uids = st.uuids().map(lambda uid: Uid(str(uid)))
labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


@given(uids, labels)
def test_a_units_name_leads_back(uid: Uid, container: str) -> None:
    of = paths.uid32(uid)
    assert paths.uid(of) == uid
    unit = paths.unit(of, container)
    assert paths.container_of(unit) == (of, container)
    assert len(unit) <= 255
    assert len(paths.machine(of, container)) <= 64


@pytest.mark.parametrize(
    "unit",
    [
        f"vk-{UID32}.slice",
        f"vk-{UID32}.service",
        f"vk-{UID32}-.service",
        f"vk-fetch-{'a' * 32}.service",
        "vk-tool.service",
        "sshd.service",
        f"vk-{UID32}-a.socket",
        "",
    ],
)
def test_other_units_are_no_containers(unit: str) -> None:
    assert paths.container_of(unit) is None


def test_no_dash_nests_the_slice() -> None:
    assert paths.pod_slice(paths.uid32(Uid(UID))).count("-") == 1


@given(labels, labels)
def test_machines_of_two_containers_differ(one: str, other: str) -> None:
    assert (paths.machine(UID32, one) == paths.machine(UID32, other)) is (one == other)


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/", "/"),
        ("", "/"),
        ("a", "/a"),
        ("/a//b/./c/", "/a/b/c"),
        ("/a/../b", "/b"),
        ("/../../etc", "/etc"),
        ("/..a", "/..a"),
        ("..", "/"),
    ],
)
def test_a_path_stays_in_its_root(path: str, inside: str) -> None:
    assert paths.inside(path) == inside


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b\n", "..."]), max_size=8).map("/".join))
def test_inside_is_where_a_chroot_would_end(path: str) -> None:
    assert paths.inside(path) == posixpath.normpath("/" + path.lstrip("/"))


def test_a_farm_is_named_by_its_root() -> None:
    assert paths.farm(ROOT) == f"/var/lib/vknix/farms/{'a' * 32}-hello-1.0"
