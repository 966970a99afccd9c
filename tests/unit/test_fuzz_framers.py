"""Odd bytes into both framers: never an exception, never more memory than a connection may have, and cuts that mean nothing.

`scripts/bench fuzz` tries far more of the same.
"""

import contextlib
import struct
import tracemalloc
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_spdy import RECORDED, merged
from vknix.kubelet import spdy, spdy_headers
from vknix.kubelet.channels import PROTOCOLS, Channel, ChannelError, Closed, Input, Sizes, decode
from vknix.kubelet.forwarding import asked_ports, port_of
from vknix.kubelet.spdy_headers import DICTIONARY, Compressor
from vknix.kubelet.target import Rejection
from vknix.provider import Size

MAX_STREAMS = 8
LIMIT = 1 << 20  # bytes of memory beyond what was sent


def frame(kind: int, flags: int, payload: bytes, length: int | None = None) -> bytes:
    word = len(payload) if length is None else length
    return struct.pack("!II", 0x80030000 | kind, (flags & 0xFF) << 24 | word & 0xFFFFFF) + payload


def data(stream: int, flags: int, payload: bytes) -> bytes:
    return struct.pack("!II", stream & 0x7FFFFFFF, (flags & 0xFF) << 24 | len(payload)) + payload


streams = st.integers(0, 24)
flags = st.sampled_from((0, 1, 2, 3, 255))
kinds = st.sampled_from((b"error", b"stdin", b"stdout", b"resize", b"\xff", b"data", b"x" * 3000))


class Peer:
    """Writes header blocks that go on from each other, as one zlib stream must."""

    def __init__(self) -> None:
        self.compressor = zlib.compressobj(9, zdict=DICTIONARY)

    def block(self, plain: bytes) -> bytes:
        return self.compressor.compress(plain) + self.compressor.flush(zlib.Z_SYNC_FLUSH)

    def syn_stream(self, stream: int, flags: int, name: bytes, value: bytes) -> bytes:
        plain = struct.pack("!II", 1, len(name)) + name + struct.pack("!I", len(value)) + value
        return frame(1, flags, struct.pack("!IIH", stream, 0, 0) + self.block(plain))


Step = tuple[str, int, int, bytes]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("syn"), streams, flags, kinds),
        st.tuples(st.just("data"), streams, flags, st.binary(max_size=300)),
        st.tuples(st.just("control"), st.integers(0, 12), flags, st.binary(max_size=24)),
        st.tuples(st.just("known"), st.sampled_from((2, 3, 6, 7, 8)), flags, st.binary(min_size=4, max_size=8)),
        st.tuples(st.just("raw"), st.just(0), st.just(0), st.binary(max_size=40)),
    ),
    max_size=20,
)


def wire(of: Iterable[Step]) -> bytes:
    peer, made = Peer(), b""
    for what, number, flag, payload in of:
        match what:
            case "syn":
                made += peer.syn_stream(number, flag, b"streamtype", payload)
            case "data":
                made += data(number, flag, payload)
            case "raw":
                made += payload
            case _:
                made += frame(number, flag, payload)
    return made


@given(steps, st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_spdy_survives_any_frames_however_they_are_cut(of: list[Step], cuts: list[int]) -> None:
    sent = wire(of)
    whole = spdy.Connection(max_streams=MAX_STREAMS)
    expected = merged(whole.receive(sent))
    pieces, events, at, turn = spdy.Connection(max_streams=MAX_STREAMS), list[spdy.Event](), 0, 0
    while at < len(sent):
        step = cuts[turn % len(cuts)]
        events += pieces.receive(sent[at : at + step])
        at, turn = at + step, turn + 1
        assert len(pieces._rest) <= spdy.MAX_CONTROL + 8
        assert len(pieces.streams) <= MAX_STREAMS
    assert merged(events) == expected
    assert pieces.streams == whole.streams
    broken = [event for event in events if isinstance(event, spdy.Broken)]
    assert len(broken) <= 1
    assert not broken or (events[-1] == broken[0] and broken[0].why)
    payloads = sum(len(event.payload) for event in events if isinstance(event, spdy.Data))
    assert payloads <= len(sent)


@given(st.lists(st.tuples(st.integers(0, len(RECORDED) - 1), st.integers(0, 255)), max_size=8))
def test_spdy_survives_recorded_bytes_with_errors(changes: list[tuple[int, int]]) -> None:
    sent = bytearray(RECORDED)
    for place, value in changes:
        sent[place] = value
    server = spdy.Connection(max_streams=MAX_STREAMS)
    server.receive(bytes(sent))
    for event in server.streams:  # what would be answered can be made
        assert server.data(event, b"x") in (b"", struct.pack("!II", event, 1) + b"x")
        assert server.reset(event, spdy.Status.CANCEL)
    assert server.streams == ()


def peak(work: Iterable[bytes], into: spdy.Connection) -> int:
    """Bytes that were in use at most while these arrived."""
    tracemalloc.start()
    try:
        for piece in work:
            into.receive(piece)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [1 << 20, 16 << 20])
def test_a_header_block_that_swells_costs_no_memory(size: int) -> None:
    peer = Peer()
    bomb = frame(1, 0, struct.pack("!IIH", 1, 0, 0) + peer.block(bytes(size)))
    server = spdy.Connection()
    assert peak([bomb], server) < LIMIT
    assert server.streams == ()
    assert server.receive(RECORDED) == []


def test_headers_that_claim_more_than_they_are_cost_no_memory() -> None:
    for plain in (struct.pack("!I", 0xFFFFFFFF), struct.pack("!II", 1, 0xFFFFFFFF), struct.pack("!I", spdy_headers.MAX_HEADERS)):
        server = spdy.Connection()
        assert peak([frame(1, 0, struct.pack("!IIH", 1, 0, 0) + Peer().block(plain))], server) < LIMIT
        assert server.streams == ()


def test_many_streams_cost_no_more_than_the_limit() -> None:
    """Each is opened; those beyond the limit are refused, and nothing is kept of them."""
    peer, server = Peer(), spdy.Connection(max_streams=MAX_STREAMS)
    many = [peer.syn_stream(number, 0, b"streamtype", b"x" * 2000) for number in range(1, 20001, 2)]
    assert peak(many, server) < LIMIT
    assert len(server.streams) == MAX_STREAMS


def test_a_data_frame_that_never_ends_is_kept_by_nobody() -> None:
    server = spdy.Connection()
    server.receive(RECORDED[:49])
    assert server.streams == (1,)
    server.receive(struct.pack("!II", 1, 0xFFFFFF))
    assert peak((bytes(16 * 1024) for _ in range(1000)), server) < LIMIT
    assert len(server._rest) == 0


def test_control_frames_that_are_too_long_are_not_waited_for() -> None:
    (event,) = spdy.Connection().receive(frame(1, 0, b"", length=spdy.MAX_CONTROL + 1))
    assert isinstance(event, spdy.Broken)


messages = st.one_of(
    st.binary(max_size=60),
    st.tuples(st.integers(0, 255), st.binary(max_size=60)).map(lambda pair: bytes((pair[0],)) + pair[1]),
    st.text(max_size=40).map(lambda text: b"0" + text.encode("utf-8", "surrogatepass")),
)


@given(st.sampled_from(list(PROTOCOLS.values())), st.lists(messages, max_size=12))
def test_channels_survive_any_messages(protocol: object, of: list[bytes]) -> None:
    for message in of:
        try:
            event = decode(protocol, message)  # type: ignore[arg-type] # of one list
        except ChannelError:
            continue
        match event:
            case Input(channel, payload):
                assert channel in (Channel.STDIN, Channel.RESIZE)
                assert 0 < len(payload) < len(message)
            case Closed(channel):
                assert channel <= Channel.RESIZE
            case _:
                assert event is None


sizes = st.one_of(
    st.binary(max_size=40),
    st.sampled_from((b"{", b"}", b'{"Width":', b'"Height":24}', b"1e999", b"[" * 3000, b'{"a":' * 2000, b"NaN", b"9" * 5000)),
)


@pytest.mark.parametrize("text", [b"[" * 4000, b'{"a":' * 3000, b"9" * 100_000])
def test_a_size_that_nests_without_end_is_no_size(text: bytes) -> None:
    assert list(Sizes().feed(text + b'}{"Width":80,"Height":24}')) == [Size(80, 24)]


@given(st.lists(sizes, max_size=30))
def test_sizes_of_a_terminal_survive_any_text(pieces: list[bytes]) -> None:
    made = Sizes()
    for piece in pieces:
        for size in made.feed(piece):
            assert 0 < size.width < 1 << 16
            assert 0 < size.height < 1 << 16
        assert len(made._rest) <= Sizes._MAX


@given(st.lists(st.one_of(st.text(max_size=12), st.integers().map(str)), max_size=5))
def test_ports_are_ports_or_a_refusal(values: list[str]) -> None:
    refused: Exception | None = None
    try:
        assert all(0 < port < 1 << 16 for port in asked_ports(values))
    except Rejection as error:
        refused = error
        assert error.status == 400  # noqa: PT017 - it may also pass
    assert refused is None or len(str(refused)) < 100
    for value in values:
        with contextlib.suppress(ValueError):
            assert 0 < port_of(value) < 1 << 16


def test_the_strategies_make_what_they_should() -> None:
    """A valid connection is among them: without one, nothing behind the first check would be tried."""
    sent = wire([("syn", 1, 0, b"stdin"), ("data", 1, 1, b"hello")])
    assert spdy.Connection().receive(sent) == [
        spdy.Opened(1, (("streamtype", ("stdin",)),)),
        spdy.Data(1, b"hello"),
        spdy.Fin(1),
    ]
    assert Compressor().block(())
