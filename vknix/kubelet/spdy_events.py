"""What a SPDY connection tells of what has arrived, and the codes that both sides use."""

from dataclasses import dataclass
from enum import IntEnum

from vknix.kubelet.spdy_headers import Headers


class Status(IntEnum):
    """Of RST_STREAM."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5
    INTERNAL_ERROR = 6


class Farewell(IntEnum):
    """Of GOAWAY."""

    OK = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer wants a stream: answer with `reply` or `reset` before anything else is sent on it."""

    stream: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class Rejected:
    """The peer wants a stream that can't be: send `reset(stream, status)`."""

    stream: int
    status: Status


@dataclass(frozen=True, slots=True)
class Replied:
    stream: int


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a stream; frame boundaries mean nothing."""

    stream: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Fin:
    """The peer sends no more on this stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Reset:
    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer's: send `ping(id)`."""

    id: int


@dataclass(frozen=True, slots=True)
class Pong:
    id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    status: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The peer does not speak SPDY/3.1. Nothing that follows is read: send `goaway(PROTOCOL_ERROR)` and close."""

    why: str


Event = Opened | Rejected | Replied | Data | Fin | Reset | Ping | Pong | GoAway | Broken
