"""vknix.core.env_files: values that a container has left in a file, as a kubelet reads them."""

import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import container, inputs, pod
from vknix.core import env_files
from vknix.core.fetched import Fetched, FileKey
from vknix.core.pod import members

KEY = FileKey("v", "dir/file")
VOLUMES = [{"name": "v", "emptyDir": {}}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A='val'", "val"),
        ("   A='val'\n", "val"),
        ("\t\n  # A='no'\n\n#\nB='b'\nA='val' # why", "val"),
        ("A='val'#x", "val"),
        ("A='  a=b $B ${C} \\n \"q\" # x  '\n", '  a=b $B ${C} \\n "q" # x  '),
        ("A='one\ntwo\n\n  three'\nB=", "one\ntwo\n\n  three"),
        ("A='one'\nA='two'", "one"),
        ("A='one\r\ntwo'\r\n", "one\ntwo"),
        ("A= 'x'\nB=", ""),
        ("A=''\nA='x'", ""),
        ("B= 'x'\nA='val'", "val"),
        ("B='b'\nAA='a'", ""),
        ("", ""),
        ("\n", ""),
        ("B='x\nA=y'\nA='val'", "val"),
        ("A='é'", "é"),
        ("A.b-c='odd'\nA='val'", "val"),
        ("A='val'\nthis is no line", "val"),
    ],
)
def test_value_of_a_key(text: str, value: str) -> None:
    assert env_files.parse(text.encode(), "A") == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("A", "at line 1: missing '='"),
        ("\n\n  export\nA='x'", "at line 3: missing '='"),
        ("='x'", "at line 1: empty variable name"),
        (" \t='x'", "at line 1: empty variable name"),
        ("A ='x'", "at line 1: whitespace before '=' is not allowed"),
        ("B='b'\nA\t='x'", "at line 2: whitespace before '=' is not allowed"),
        ("A=", "at line 1: value must be enclosed in single quotes"),
        ("A=x", "at line 1: value must be enclosed in single quotes"),
        ("B=\"x\"\nA='a'", "at line 1: value must be enclosed in single quotes"),
        ("A='x' y", "at line 1: unexpected content after closing quote"),
        ("A='x\n\n' 'y'", "at line 3: unexpected content after closing quote"),
        ("B='b'\nA='x\ny\n", "starting at line 2: unclosed single quote"),
        ("A='" + "x" * 65536 + "'", "line 1 is too long"),
    ],
)
def test_what_is_no_env_file_is_told_by_its_line_and_without_its_text(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why) + "$"):
        env_files.parse(text.encode(), "A")


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_.-]*", fullmatch=True), st.text().filter(lambda of: not set(of) & set("'\r"))))
def test_each_value_is_found_as_it_was_written(of: dict[str, str]) -> None:
    text = "".join(f"{name}='{value}'\n" for name, value in of.items()).encode(errors="replace")
    for name, value in of.items():
        assert env_files.parse(text, name) == value.encode(errors="replace").decode()


@given(st.binary(max_size=200))
def test_whatever_a_file_holds_is_read_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(env_files.parse(data, "A"), str)


def reading(name: str = "main", *, optional: bool = False, **fields: Any) -> dict[str, Any]:
    ref = {"volumeName": "v", "path": "dir/file", "key": "A", "optional": optional}
    env = [{"name": "A", "valueFrom": {"fileKeyRef": ref}}, {"name": "B", "value": "<$(A)>"}]
    return container(name, env=env, **fields)


@pytest.mark.parametrize(
    ("optional", "data", "env"),
    [
        (False, b"A='a'", (("A", "a"), ("B", "<a>"))),
        (True, b"A='a'", (("A", "a"), ("B", "<a>"))),
        (True, b"C='c'", (("B", "<$(A)>"),)),
        (True, b"", (("B", "<$(A)>"),)),
    ],
)
def test_variable_is_made_of_it(optional: bool, data: bytes, env: tuple[tuple[str, str], ...]) -> None:
    made = inputs(pod(reading(optional=optional), volumes=VOLUMES), Fetched(files={KEY: data}))
    assert made.containers["main"].env == env


@pytest.mark.parametrize(
    ("optional", "data", "why"),
    [
        (False, b"C='c'", 'environment variable key "A" not found in file "dir/file"'),
        (False, b"A=''", 'environment variable key "A" not found in file "dir/file"'),
        (False, None, "couldn't parse env file: there is no such file"),
        (True, None, "couldn't parse env file: there is no such file"),
        (True, b"A=secret", "couldn't parse env file: invalid environment variable format at line 1"),
    ],
)
def test_container_is_held_as_by_a_kubelet(optional: bool, data: bytes | None, why: str) -> None:
    made = inputs(pod(reading(optional=optional), container("other"), volumes=VOLUMES), Fetched(files={KEY: data}))
    refused = made.held["main"]
    assert (refused.reason, refused.field) == ("CreateContainerConfigError", "spec.containers[0].env[0].valueFrom.fileKeyRef")
    assert refused.why.startswith(why)
    assert "secret" not in str(refused)
    assert set(made.containers) == {"other"}


def test_container_whose_file_was_not_looked_for_waits_unsaid() -> None:
    made = inputs(pod(reading(), container("other"), initContainers=[reading("first")], volumes=VOLUMES))
    assert (set(made.containers), made.held) == ({"other"}, {})


def test_only_vknix_starts_it_again_since_its_host_does_not_read() -> None:
    of = pod(reading(), container("other"), volumes=VOLUMES)
    assert [member.host_policy for member in members(of)] == ["Never", "Always"]
    assert env_files.keys(of, {"main"}) == {KEY}
    assert env_files.keys(of, {"other"}) == frozenset()
