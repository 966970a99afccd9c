"""vknix.core.files: volumes as the kubelet's atomic writer would fill them."""

import posixpath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import around, container, pod
from vknix.core import files
from vknix.core.fetched import Fetched, ObjectKey, Token, TokenKey
from vknix.errors import Refused

FETCHED = Fetched(
    {
        ObjectKey("ConfigMap", "c"): {"a": b"1", ".env": b"2"},
        ObjectKey("Secret", "s"): {"a": b"3", "key": b"\x00\xff"},
    },
    {TokenKey("", 3607): Token("T", 0, 3607), TokenKey("vault", 3600): Token("V", 0, 3600)},
)


def volume(**source: Any) -> dict[str, tuple[int, bytes]]:
    """path -> (mode, data) of one volume."""
    of = pod(volumes=[{"name": "v", **source}])
    return {file.path: (file.mode, file.data) for file in files.volumes(of, FETCHED, around())["v"]}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param({"configMap": {"name": "c"}}, {"a": (0o644, b"1"), ".env": (0o644, b"2")}, id="all keys"),
        pytest.param({"configMap": {"name": "c", "items": [{"key": "a", "path": "x/y"}]}}, {"x/y": (0o644, b"1")}, id="items"),
        pytest.param(
            {"configMap": {"name": "c", "items": [{"key": "a", "path": "./x//y/"}]}}, {"x/y": (0o644, b"1")}, id="detours"
        ),
        pytest.param(
            {"secret": {"secretName": "s", "defaultMode": 0o400}}, {"a": (0o400, b"3"), "key": (0o400, b"\0\xff")}, id="mode"
        ),
        pytest.param(
            {"secret": {"secretName": "s", "defaultMode": 0, "items": [{"key": "a", "path": "a"}]}}, {"a": (0, b"3")}, id="mode 0"
        ),
        pytest.param(
            {"configMap": {"name": "c", "items": [{"key": "a", "path": "a", "mode": 0}]}}, {"a": (0, b"1")}, id="item mode 0"
        ),
        pytest.param({"configMap": {"name": "none", "optional": True}}, {}, id="optional object"),
        pytest.param(
            {"configMap": {"name": "c", "optional": True, "items": [{"key": "none", "path": "x"}]}}, {}, id="optional key"
        ),
        pytest.param(
            {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"n": (0o644, b"web")},
            id="downward",
        ),
        pytest.param(
            {
                "projected": {
                    "defaultMode": 0o440,
                    "sources": [
                        {"configMap": {"name": "c"}},
                        {"secret": {"name": "s"}},
                        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                        {"serviceAccountToken": {"path": "vault/token", "audience": "vault"}},
                    ],
                }
            },
            {
                "a": (0o440, b"3"),
                ".env": (0o440, b"2"),
                "key": (0o440, b"\0\xff"),
                "token": (0o440, b"T"),
                "vault/token": (0o440, b"V"),
            },
            id="projected, later wins",
        ),
    ],
)
def test_volume(source: dict[str, Any], expected: dict[str, tuple[int, bytes]]) -> None:
    assert volume(**source) == expected


def test_an_empty_dir_has_no_files() -> None:
    assert files.volumes(pod(volumes=[{"name": "e", "emptyDir": {}}]), FETCHED, around()) == {}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"configMap": {"name": "none"}}, 'MountVolume.SetUp failed for volume "v": configmap "none" not found'),
        ({"secret": {"secretName": "none"}}, 'secret "none" not found'),
        ({"configMap": {"name": "c", "items": [{"key": "k", "path": "x"}]}}, "references non-existent config key: k"),
    ],
)
def test_what_is_missing_fails_the_mount(source: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        volume(**source)
    assert refused.value.reason == "FailedMount"


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "/",
        "./.",
        "/a",
        "..",
        "../a",
        "a/../b",
        "a/..",
        "..a",
        "..data",
        "./..data/x",
        "a\0b",
        "a/" * 2049,
        "x" * 256,
        "é" * 128,
    ],
)
def test_paths_that_leave_the_volume_are_refused(path: str) -> None:
    with pytest.raises(Refused) as refused:
        files._inside(path, "f")
    assert refused.value.reason == "FailedMount"


@given(st.lists(st.sampled_from(["..", ".", "", "a", "..a", "a..", " ", "\n", "é", "..data"]), max_size=6).map("/".join))
def test_a_path_is_refused_or_inside(path: str) -> None:
    try:
        made = files._inside(path, "f")
    except Refused:
        return
    assert posixpath.normpath(posixpath.join("/v", made)) == f"/v/{made}"
    assert not made.startswith("..")


@pytest.mark.parametrize(
    ("issued", "expires", "at"),
    [(0.0, 3600.0, 2880.0), (100.0, 100.0 + 48 * 3600, 100.0 + 24 * 3600)],
    ids=["80 percent", "at most a day"],
)
def test_tokens_are_renewed_in_time(issued: float, expires: float, at: float) -> None:
    of = pod(volumes=[{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}])
    assert files.refresh_at(of, Fetched({}, {TokenKey("", 3600): Token("", issued, expires)})) == at


def test_no_token_needs_no_refresh() -> None:
    assert files.refresh_at(pod(container()), FETCHED) is None
