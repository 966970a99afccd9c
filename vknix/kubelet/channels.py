"""Remote-command channels: messages of a WebSocket <-> channels, and the documents that both carriers share. Pure.

Which version is spoken is a `Protocol`; how a command ended is an `Outcome`, and `document` puts it on the error channel; sizes of
the terminal come as JSON, in pieces or several at once.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from vknix.provider import Size


class Channel(IntEnum):
    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4
    CLOSE = 255  # its payload is the channel that the client has closed


@dataclass(frozen=True, slots=True)
class Protocol:
    """One version of the messages. `name` is empty where the client named none."""

    name: str
    base64: bool = False  # text messages: a digit, then base64
    json: bool = False  # the outcome is a Status document, also on success
    close_signal: bool = False


PROTOCOLS: Final = {
    protocol.name: protocol
    for protocol in (
        Protocol("v5.channel.k8s.io", json=True, close_signal=True),
        Protocol("v4.channel.k8s.io", json=True),
        Protocol("v4.base64.channel.k8s.io", base64=True, json=True),
        Protocol("channel.k8s.io"),
        Protocol("base64.channel.k8s.io", base64=True),
        Protocol(""),
    )
}


def choose(offered: Iterable[str]) -> Protocol | None:
    """What a client is answered: v5 wherever it is offered, else the client's first that we know; None where there is none."""
    names = tuple(offered) or ("",)
    if "v5.channel.k8s.io" in names:
        return PROTOCOLS["v5.channel.k8s.io"]
    return next((PROTOCOLS[name] for name in names if name in PROTOCOLS), None)


@dataclass(frozen=True, slots=True)
class Input:
    channel: Channel
    payload: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The client has closed its side of a channel."""

    channel: Channel


class ChannelError(ValueError):
    """A message that ends the connection."""


def decode(protocol: Protocol, message: bytes) -> Input | Closed | None:
    """None for what is to be ignored: empty messages and unknown channels. Raises ChannelError."""
    if not message:
        return None
    number = message[0] - ord("0") if protocol.base64 else message[0]
    payload = message[1:]
    if number == Channel.CLOSE and protocol.close_signal:
        return _closed(payload)
    if number not in (Channel.STDIN, Channel.RESIZE):
        return None
    if protocol.base64:
        payload = _unbase64(payload)
    return Input(Channel(number), payload) if payload else None


def _closed(payload: bytes) -> Closed:
    if len(payload) != 1 or payload[0] > Channel.RESIZE:
        raise ChannelError("a close signal names one channel")
    return Closed(Channel(payload[0]))


def _unbase64(payload: bytes) -> bytes:
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise ChannelError(f"a message is not base64: {error}") from error


def encode(protocol: Protocol, channel: Channel, payload: bytes) -> bytes:
    """A whole message: binary, or ASCII that is to be sent as text."""
    if protocol.base64:
        return bytes((ord("0") + channel,)) + base64.b64encode(payload)
    return b"".join((_PREFIX[channel], payload))


_PREFIX = {channel: bytes((channel,)) for channel in Channel}


@dataclass(frozen=True, slots=True)
class Exited:
    """The command ran and ended; 128 + n after signal n."""

    code: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The command could not be run, or nobody knows how it ended."""

    message: str


Outcome = Exited | Failed


def document(outcome: Outcome, *, as_json: bool) -> bytes:
    """What goes on the error channel: a Status from v4 on; before, a text on failure only, and nothing means success."""
    match outcome:
        case Exited(0):
            return _json({"metadata": {}, "status": "Success"}) if as_json else b""
        case Exited(code):
            message = f"command terminated with non-zero exit code: exit status {code}"
            causes = [{"reason": "ExitCode", "message": str(code)}]
            status: dict[str, object] = {"reason": "NonZeroExitCode", "details": {"causes": causes}}
        case Failed(text):
            message = f"Internal error occurred: error executing command in container: {text}"
            status = {"reason": "InternalError", "details": {"causes": [{"message": message}]}, "code": 500}
    return _json({"metadata": {}, "status": "Failure", "message": message, **status}) if as_json else message.encode()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Sizes:
    """Terminal sizes out of a stream of JSON objects, which may come in pieces or several at once. Nonsense is skipped."""

    _MAX = 4096

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Size]:
        *objects, rest = (self._rest + data).split(b"}")
        self._rest = rest if len(rest) <= self._MAX else b""
        for piece in objects:
            size = _size(piece + b"}") if len(piece) <= self._MAX else None
            if size is not None:
                yield size


def _size(text: bytes) -> Size | None:
    try:
        value = json.loads(text)
        width, height = value["Width"], value["Height"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Size(width, height) if _is_length(width) and _is_length(height) else None


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 16
