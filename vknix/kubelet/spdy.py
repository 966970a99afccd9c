"""SPDY/3.1 without I/O: bytes in, events out; methods give the bytes to send. As moby/spdystream speaks it, either side.

There are no windows: SETTINGS and WINDOW_UPDATE are read and ignored, and TCP alone holds a sender back. Data frames are handed on
as they arrive, whole or not, so that a long frame costs no memory.
"""

import struct
from enum import IntEnum, IntFlag
from typing import Final

from vknix.kubelet.spdy_events import (
    Broken,
    Data,
    Event,
    Farewell,
    Fin,
    GoAway,
    Opened,
    Ping,
    Pong,
    Rejected,
    Replied,
    Reset,
    Status,
)
from vknix.kubelet.spdy_headers import Compressor, Decompressor, HeaderError, Headers

__all__ = [
    "MAX_CONTROL",
    "MAX_STREAMS",
    "VERSION",
    "Broken",
    "Connection",
    "Data",
    "Event",
    "Farewell",
    "Fin",
    "GoAway",
    "Kind",
    "Opened",
    "Ping",
    "Pong",
    "Rejected",
    "Replied",
    "Reset",
    "Status",
]

VERSION: Final = 3
MAX_CONTROL: Final = 64 * 1024  # bytes of a control frame's payload; data frames may have 2**24 - 1
MAX_STREAMS: Final = 1024

_HEAD = struct.Struct("!II")
_SYN_STREAM = struct.Struct("!IIH")
_WORD = struct.Struct("!I")
_TWO_WORDS = struct.Struct("!II")
_CONTROL_BIT = 1 << 31
_ID = _CONTROL_BIT - 1
_LENGTH = (1 << 24) - 1
_FIN = 0x01
_UNIDIRECTIONAL = 0x02


class Kind(IntEnum):
    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class _ViolationError(Exception):
    pass


class _Half(IntFlag):
    """Which sides of a stream have ended."""

    NONE = 0
    THEIRS = 1
    OURS = 2
    BOTH = 3


class Connection:
    """One side of one connection; `client` opens odd streams and sends odd pings, a server even ones."""

    def __init__(self, *, client: bool = False, max_streams: int = MAX_STREAMS) -> None:
        self._ours = 1 if client else 0
        self._next = 1 if client else 2
        self._last = 0  # the highest stream that the peer has opened
        self._max_streams = max_streams
        self._ended: dict[int, _Half] = {}
        self._compressor = Compressor()
        self._decompressor = Decompressor()
        self._rest = bytearray()  # of a frame's head, or of a control frame
        self._need = _HEAD.size  # so many bytes of `_rest` before it can be read
        self._stream, self._left, self._fin = 0, 0, False  # the data frame that is being read
        self._broken = False

    @property
    def streams(self) -> tuple[int, ...]:
        """Those that have not ended on both sides."""
        return tuple(self._ended)

    # What arrives.

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._broken:
            return events
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return events
            data = bytes(self._rest)
            self._rest.clear()
        try:
            position = self._frames(data, events)
        except (_ViolationError, HeaderError) as error:
            self._broken = True
            events.append(Broken(str(error)))
        else:
            self._rest += data[position:]
        return events

    def _frames(self, data: bytes, events: list[Event]) -> int:
        """Reads what is complete; answers where the incomplete rest begins."""
        position, end = 0, len(data)
        while position < end:
            if self._left:
                position = self._data(data, position, events)
                continue
            start = position + _HEAD.size
            self._need = _HEAD.size
            if start > end:
                break
            word, tail = _HEAD.unpack_from(data, position)
            length = tail & _LENGTH
            if word & _CONTROL_BIT:
                self._check(word, length)
                self._need += length
                if start + length > end:
                    break
                self._control(word & 0xFFFF, tail >> 24, data[start : start + length], events)
                position = start + length
            else:
                self._stream, self._left, self._fin = word, length, bool(tail >> 24 & _FIN)
                position = start
                if not length:
                    self._finish(events)
        return position

    def _data(self, data: bytes, position: int, events: list[Event]) -> int:
        piece = data[position : position + self._left]
        self._left -= len(piece)
        half = self._ended.get(self._stream)
        if half is not None and not half & _Half.THEIRS:
            events.append(Data(self._stream, piece))
        if not self._left:
            self._finish(events)
        return position + len(piece)

    def _finish(self, events: list[Event]) -> None:
        """A data frame is complete. Data of a stream that is gone was still on its way, and is no error."""
        if self._fin and self._end(self._stream, _Half.THEIRS):
            events.append(Fin(self._stream))

    @staticmethod
    def _check(word: int, length: int) -> None:
        version = word >> 16 & 0x7FFF
        if version != VERSION:
            raise _ViolationError(f"a frame of SPDY version {version} instead of {VERSION}")
        if length > MAX_CONTROL:
            raise _ViolationError(f"a control frame of {length} bytes, more than {MAX_CONTROL}")

    def _control(self, kind: int, flags: int, payload: bytes, events: list[Event]) -> None:
        match kind:
            case Kind.SYN_STREAM:
                self._syn_stream(flags, payload, events)
            case Kind.SYN_REPLY | Kind.HEADERS:
                stream = self._id(payload, at_least=4)
                self._decompressor.headers(payload[4:])
                if kind == Kind.SYN_REPLY and stream in self._ended:
                    events.append(Replied(stream))
                if flags & _FIN and self._end(stream, _Half.THEIRS):
                    events.append(Fin(stream))
            case Kind.RST_STREAM:
                stream, status = self._id(payload, exactly=8), _WORD.unpack_from(payload, 4)[0]
                if self._ended.pop(stream, None) is not None:
                    events.append(Reset(stream, status))
            case Kind.PING:
                number = _word(payload, exactly=4)
                if number == 0:
                    raise _ViolationError("a ping without a number")
                events.append(Pong(number) if number & 1 == self._ours else Ping(number))
            case Kind.GOAWAY:
                self._id(payload, exactly=8)
                events.append(GoAway(_WORD.unpack_from(payload, 4)[0]))
            case _:
                pass  # SETTINGS, WINDOW_UPDATE, and what the standard tells to ignore

    def _syn_stream(self, flags: int, payload: bytes, events: list[Event]) -> None:
        stream = self._id(payload, at_least=_SYN_STREAM.size)
        headers = self._decompressor.headers(payload[_SYN_STREAM.size :])
        if stream & 1 == self._ours or stream <= self._last:
            events.append(Rejected(stream, Status.PROTOCOL_ERROR))
            return
        self._last = stream
        if len(self._ended) >= self._max_streams:
            events.append(Rejected(stream, Status.REFUSED_STREAM))
            return
        self._ended[stream] = _Half.OURS if flags & _UNIDIRECTIONAL else _Half.NONE
        events.append(Opened(stream, headers))
        if flags & _FIN:
            self._end(stream, _Half.THEIRS)
            events.append(Fin(stream))

    @staticmethod
    def _id(payload: bytes, *, at_least: int = 0, exactly: int = 0) -> int:
        return _word(payload, at_least=at_least, exactly=exactly) & _ID

    def _end(self, stream: int, side: _Half) -> bool:
        """Notes that one side has ended; False where it had before, or the stream is gone."""
        half = self._ended.get(stream)
        if half is None or half & side:
            return False
        if half | side == _Half.BOTH:
            del self._ended[stream]
        else:
            self._ended[stream] = half | side
        return True

    # What is to be sent. All of it in the order in which it was asked for: header blocks build on each other.

    def open(self, headers: Headers) -> tuple[int, bytes]:
        """A new stream of ours, and the bytes that ask for it."""
        stream = self._next
        self._next += 2
        self._ended[stream] = _Half.NONE
        return stream, _frame(Kind.SYN_STREAM, _SYN_STREAM.pack(stream, 0, 0) + self._compressor.block(headers))

    def reply(self, stream: int) -> bytes:
        return _frame(Kind.SYN_REPLY, _WORD.pack(stream) + self._compressor.block(()))

    def data(self, stream: int, payload: bytes) -> bytes:
        """One frame of at most 2**24 - 1 bytes. Empty where our side of the stream has ended, or the peer has reset it."""
        half = self._ended.get(stream)
        if half is None or half & _Half.OURS:
            return b""
        return b"".join((_HEAD.pack(stream, len(payload)), payload))

    def fin(self, stream: int) -> bytes:
        """Ends our side; empty where that is nothing new."""
        return _HEAD.pack(stream, _FIN << 24) if self._end(stream, _Half.OURS) else b""

    def reset(self, stream: int, status: Status) -> bytes:
        self._ended.pop(stream, None)
        return _frame(Kind.RST_STREAM, _TWO_WORDS.pack(stream, status))

    def ping(self, number: int) -> bytes:
        return _frame(Kind.PING, _WORD.pack(number))

    def goaway(self, status: Farewell) -> bytes:
        return _frame(Kind.GOAWAY, _TWO_WORDS.pack(self._last, status))


def _frame(kind: Kind, payload: bytes) -> bytes:
    return _HEAD.pack(_CONTROL_BIT | VERSION << 16 | kind, len(payload)) + payload


def _word(payload: bytes, *, at_least: int = 0, exactly: int = 0) -> int:
    if len(payload) < at_least or (exactly and len(payload) != exactly):
        raise _ViolationError(f"a control frame of {len(payload)} bytes, which is no length of its type")
    number: int = _WORD.unpack_from(payload)[0]
    return number
