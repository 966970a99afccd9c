"""Remote-command channels: every version, the outcome's document, sizes of the terminal."""

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vknix.kubelet import channels
from vknix.kubelet.channels import PROTOCOLS, Channel, ChannelError, Closed, Exited, Failed, Input, Outcome, Sizes, document
from vknix.provider import Size

V5 = PROTOCOLS["v5.channel.k8s.io"]
V4 = PROTOCOLS["v4.channel.k8s.io"]
V4_BASE64 = PROTOCOLS["v4.base64.channel.k8s.io"]

CHOICES: list[Any] = [
    pytest.param((), "", id="none-offered"),
    pytest.param(("v4.channel.k8s.io", "v5.channel.k8s.io"), "v5.channel.k8s.io", id="v5-wherever-it-stands"),
    pytest.param(("v9", "v4.channel.k8s.io", "channel.k8s.io"), "v4.channel.k8s.io", id="first-known"),
    pytest.param(("base64.channel.k8s.io",), "base64.channel.k8s.io", id="base64"),
]


@pytest.mark.parametrize(("offered", "name"), CHOICES)
def test_the_version_is_chosen(offered: tuple[str, ...], name: str) -> None:
    assert channels.choose(offered) == PROTOCOLS[name]


def test_no_common_version_is_none() -> None:
    assert channels.choose(("v9.channel.k8s.io",)) is None


MESSAGES: list[Any] = [
    pytest.param(V4, b"\x00data", Input(Channel.STDIN, b"data"), id="stdin"),
    pytest.param(V4, b"\x04{}", Input(Channel.RESIZE, b"{}"), id="resize"),
    pytest.param(V4, b"", None, id="no-channel"),
    pytest.param(V4, b"\x00", None, id="empty"),
    pytest.param(V4, b"\x01data", None, id="channel-that-is-ours"),
    pytest.param(V4, b"\x09data", None, id="unknown-channel"),
    pytest.param(V4, b"\xff\x00", None, id="v4-knows-no-close"),
    pytest.param(V5, b"\xff\x00", Closed(Channel.STDIN), id="close-stdin"),
    pytest.param(V4_BASE64, b"0aGk=", Input(Channel.STDIN, b"hi"), id="base64"),
    pytest.param(V4_BASE64, b"1aGk=", None, id="base64-channel-that-is-ours"),
]


@pytest.mark.parametrize(("protocol", "message", "event"), MESSAGES)
def test_a_message_is_understood(protocol: channels.Protocol, message: bytes, event: object) -> None:
    assert channels.decode(protocol, message) == event


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        pytest.param(V5, b"\xff", id="close-nothing"),
        pytest.param(V5, b"\xff\x00\x01", id="close-two"),
        pytest.param(V5, b"\xff\x09", id="close-unknown"),
        pytest.param(V4_BASE64, b"0*", id="not-base64"),
    ],
)
def test_a_bad_message_ends_the_connection(protocol: channels.Protocol, message: bytes) -> None:
    with pytest.raises(ChannelError):
        channels.decode(protocol, message)


@given(st.sampled_from(list(PROTOCOLS.values())), st.sampled_from([Channel.STDIN, Channel.RESIZE]), st.binary(min_size=1))
def test_what_is_encoded_decodes(protocol: channels.Protocol, channel: Channel, payload: bytes) -> None:
    assert channels.decode(protocol, channels.encode(protocol, channel, payload)) == Input(channel, payload)


@given(st.sampled_from(list(PROTOCOLS.values())), st.binary())
def test_nonsense_is_an_event_or_a_channel_error(protocol: channels.Protocol, message: bytes) -> None:
    with contextlib.suppress(ChannelError):
        channels.decode(protocol, message)


def test_base64_is_ascii() -> None:
    assert channels.encode(V4_BASE64, Channel.STDOUT, b"hi") == b"1" + base64.b64encode(b"hi")


OUTCOMES: list[Any] = [
    pytest.param(Exited(0), {"metadata": {}, "status": "Success"}, b"", id="exit-0"),
    pytest.param(
        Exited(7),
        {
            "metadata": {},
            "status": "Failure",
            "message": "command terminated with non-zero exit code: exit status 7",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
        },
        b"command terminated with non-zero exit code: exit status 7",
        id="exit-7",
    ),
    pytest.param(
        Failed("no such file"),
        {
            "metadata": {},
            "status": "Failure",
            "message": "Internal error occurred: error executing command in container: no such file",
            "reason": "InternalError",
            "details": {"causes": [{"message": "Internal error occurred: error executing command in container: no such file"}]},
            "code": 500,
        },
        b"Internal error occurred: error executing command in container: no such file",
        id="failed",
    ),
]


@pytest.mark.parametrize(("outcome", "status", "text"), OUTCOMES)
def test_the_outcome_is_one_document(outcome: Outcome, status: dict[str, Any], text: bytes) -> None:
    assert json.loads(document(outcome, as_json=True)) == status
    assert document(outcome, as_json=False) == text


SIZES: list[Any] = [
    pytest.param((b'{"Width":80,"Height":24}\n',), [Size(80, 24)], id="one"),
    pytest.param((b'{"Width":80,"Heigh', b't":24}'), [Size(80, 24)], id="in-pieces"),
    pytest.param((b'{"Width":80,"Height":24}\n{"Width":90,"Height":30}\n',), [Size(80, 24), Size(90, 30)], id="two-at-once"),
    pytest.param((b'{"Width":0,"Height":24}',), [], id="zero"),
    pytest.param((b'{"Width":80}', b'{"Width":true,"Height":2}', b'{"Width":70000,"Height":2}'), [], id="no-size"),
    pytest.param((b'nonsense}{"Width":80,"Height":24}',), [Size(80, 24)], id="after-nonsense"),
    pytest.param((b"x" * 5000, b'{"Width":80,"Height":24}'), [Size(80, 24)], id="endless-nonsense-is-dropped"),
]


@pytest.mark.parametrize(("pieces", "expected"), SIZES)
def test_sizes_come_in_any_pieces(pieces: tuple[bytes, ...], expected: list[Size]) -> None:
    sizes = Sizes()
    assert [size for piece in pieces for size in sizes.feed(piece)] == expected


@given(st.binary(max_size=200))
def test_nonsense_is_no_size(data: bytes) -> None:
    list(Sizes().feed(data))
