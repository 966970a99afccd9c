"""SPDY/3.1: recorded bytes of moby/spdystream, split everywhere; round trips; limits."""

import struct
import zlib
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vknix.kubelet import spdy, spdy_headers
from vknix.kubelet.spdy_headers import DICTIONARY, Compressor, Decompressor, HeaderError

# client-go's own: error, stdin, stdout and stderr opened, b"hello\n" and the end of stdin, a ping.
RECORDED = bytes.fromhex(
    "80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff800300010000"
    "001700000003000000000000c22e555c92929907000000ffff800300010000001900000005000000000000c22ac5565c92925f5a020000"
    "00ffff800300010000001500000007000000000000c229975a5404000000ffff000000030000000668656c6c6f0a000000030100000080"
    "0300060000000400000001"
)


def merged(events: Iterable[spdy.Event]) -> list[spdy.Event]:
    """Pieces of one stream that follow each other, as one: where a frame was cut means nothing."""
    result: list[spdy.Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, spdy.Data) and isinstance(last, spdy.Data) and event.stream == last.stream:
            result[-1] = spdy.Data(event.stream, last.payload + event.payload)
        else:
            result.append(event)
    return result


def pair() -> tuple[spdy.Connection, spdy.Connection]:
    return spdy.Connection(client=True), spdy.Connection()


def opened(server: spdy.Connection, client: spdy.Connection, kind: str = "stdin") -> int:
    stream, data = client.open((("streamtype", (kind,)),))
    server.receive(data)
    return stream


def test_the_dictionary_is_the_standards() -> None:
    assert len(DICTIONARY) == 1423
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2
    assert Compressor().block(()).startswith(bytes.fromhex("78f9e3c6a7c2"))


def kind(name: str) -> spdy_headers.Headers:
    return (("streamtype", (name,)),)


EVENTS = [
    spdy.Opened(1, kind("error")),
    spdy.Opened(3, kind("stdin")),
    spdy.Opened(5, kind("stdout")),
    spdy.Opened(7, kind("stderr")),
    spdy.Data(3, b"hello\n"),
    spdy.Fin(3),
    spdy.Ping(1),
]


def test_recorded_bytes_are_understood() -> None:
    assert spdy.Connection().receive(RECORDED) == EVENTS


@pytest.mark.parametrize("cut", range(1, len(RECORDED)))
def test_recorded_bytes_may_be_cut_anywhere(cut: int) -> None:
    server = spdy.Connection()
    assert merged([*server.receive(RECORDED[:cut]), *server.receive(RECORDED[cut:])]) == EVENTS


def test_recorded_bytes_may_come_one_by_one() -> None:
    server = spdy.Connection()
    assert merged(event for byte in RECORDED for event in server.receive(bytes((byte,)))) == EVENTS


def test_a_reply_has_no_headers() -> None:
    client, server = pair()
    stream = opened(server, client)
    assert client.receive(server.reply(stream)) == [spdy.Replied(stream)]


names = st.from_regex(r"[a-z-]{1,20}", fullmatch=True)
values = st.lists(st.text(st.characters(min_codepoint=1, codec="utf-8"), max_size=30), min_size=1, max_size=3).map(tuple)
headers = st.lists(st.tuples(names, values), max_size=5).map(tuple)


@given(st.lists(headers, min_size=1, max_size=5))
def test_headers_come_back(blocks: list[spdy_headers.Headers]) -> None:
    compressor, decompressor = Compressor(), Decompressor()
    for block in blocks:
        assert decompressor.headers(compressor.block(block)) == block


@given(st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_data_comes_back_however_it_is_cut(pieces: list[bytes], cuts: list[int]) -> None:
    client, server = pair()
    stream, wire = client.open(())
    wire += b"".join(client.data(stream, piece) for piece in pieces) + client.fin(stream)
    events: list[spdy.Event] = []
    position = index = 0
    while position < len(wire):
        step = cuts[index % len(cuts)]
        events += server.receive(wire[position : position + step])
        position, index = position + step, index + 1
    assert merged(events) == [
        spdy.Opened(stream, ()),
        *([spdy.Data(stream, b"".join(pieces))] if any(pieces) else []),
        spdy.Fin(stream),
    ]


@given(st.binary(max_size=300))
def test_nonsense_is_never_an_exception(data: bytes) -> None:
    server = spdy.Connection()
    server.receive(data)
    server.receive(data)


@given(st.binary(max_size=100))
def test_a_control_frame_of_nonsense_is_never_an_exception(payload: bytes) -> None:
    for kind in range(12):
        spdy.Connection().receive(struct.pack("!II", 0x80030000 | kind, len(payload)) + payload)


BROKEN: list[Any] = [
    pytest.param("8002000100000000", "version 2", id="version"),
    pytest.param("8003000600000004" + "00000000", "ping", id="ping-0"),
    pytest.param("800300060000000500000001" + "00", "5 bytes", id="ping-length"),
    pytest.param("80030007" + "00000004" + "00000000", "4 bytes", id="goaway-length"),
    pytest.param("80030001" + "00000002" + "0000", "2 bytes", id="syn-stream-length"),
    pytest.param("80030001" + "00010001", "65537 bytes", id="control-frame-too-long"),
    pytest.param("80030001" + "0000000c" + "00000001" + "00000000" + "0000" + "ffff", "decompress", id="not-zlib"),
]


@pytest.mark.parametrize(("frame", "why"), BROKEN)
def test_a_broken_frame_ends_the_reading(frame: str, why: str) -> None:
    server = spdy.Connection()
    (event,) = server.receive(bytes.fromhex(frame))
    assert isinstance(event, spdy.Broken)
    assert why in event.why
    assert server.receive(spdy.Connection(client=True).ping(1)) == []


def test_a_zip_bomb_does_nothing() -> None:
    compressor = zlib.compressobj(9, zdict=DICTIONARY)
    block = compressor.compress(bytes(32 * 1024 * 1024)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(block) < spdy.MAX_CONTROL
    with pytest.raises(HeaderError, match="longer than 65536 bytes"):
        Decompressor().headers(block)


def test_a_block_may_not_have_too_many_headers() -> None:
    block = Compressor().block(tuple((f"name-{number}", ("",)) for number in range(spdy_headers.MAX_HEADERS + 1)))
    with pytest.raises(HeaderError, match="101 headers"):
        Decompressor().headers(block)


def test_streams_are_bounded_and_blocks_stay_in_step() -> None:
    client, server = spdy.Connection(client=True), spdy.Connection(max_streams=2)
    events = [event for number in range(4) for event in server.receive(client.open((("n", (str(number),)),))[1])]
    assert events[2:] == [spdy.Rejected(5, spdy.Status.REFUSED_STREAM), spdy.Rejected(7, spdy.Status.REFUSED_STREAM)]
    client.receive(server.reset(1, spdy.Status.CANCEL))
    assert server.receive(client.open((("n", ("4",)),))[1]) == [spdy.Opened(9, (("n", ("4",)),))]


@pytest.mark.parametrize("number", [pytest.param(2, id="even"), pytest.param(1, id="again"), pytest.param(0, id="zero")])
def test_a_stream_with_a_wrong_number_is_rejected(number: int) -> None:
    client, server = pair()
    opened(server, client)
    _, frame = client.open(())
    wrong = frame[:8] + struct.pack("!I", number) + frame[12:]
    assert server.receive(wrong) == [spdy.Rejected(number, spdy.Status.PROTOCOL_ERROR)]


def test_a_ping_of_theirs_is_told_and_one_of_ours_is_a_pong() -> None:
    client, server = pair()
    assert server.receive(client.ping(1)) == [spdy.Ping(1)]
    assert client.receive(server.ping(1)) == [spdy.Pong(1)]


def test_a_stream_ends_when_both_sides_have() -> None:
    client, server = pair()
    stream = opened(server, client)
    assert server.receive(client.fin(stream)) == [spdy.Fin(stream)]
    assert server.streams == (stream,)
    assert server.data(stream, b"x") != b""
    assert server.fin(stream) != b""
    assert not server.streams
    assert server.data(stream, b"x") == server.fin(stream) == b""


def test_a_reset_stream_takes_and_gives_nothing() -> None:
    client, server = pair()
    stream = opened(server, client)
    late = client.data(stream, b"late")
    assert server.receive(client.reset(stream, spdy.Status.CANCEL)) == [spdy.Reset(stream, spdy.Status.CANCEL)]
    assert server.receive(late) == []
    assert server.data(stream, b"x") == b""


def test_settings_windows_and_unknown_frames_are_ignored() -> None:
    frames = b"".join(struct.pack("!II", 0x80030000 | kind, 8) + bytes(8) for kind in (4, 9, 5, 77))
    assert spdy.Connection().receive(frames) == []


def test_goaway_names_the_last_stream() -> None:
    client, server = pair()
    opened(server, client)
    farewell = server.goaway(spdy.Farewell.OK)
    assert farewell == bytes.fromhex("8003000700000008" + "0000000100000000")
    assert client.receive(farewell) == [spdy.GoAway(0)]
