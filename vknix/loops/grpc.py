"""One grpc.health.v1.Health/Check through a Connection, over HTTP/2 without TLS: a service's name -> what its server says of it."""

from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError

from vknix import __version__
from vknix.errors import Refused
from vknix.provider import Connection

_BLOCK = 1 << 14
_LIMIT = 1 << 16  # an answer is a few bytes
_STATUS = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_UNIMPLEMENTED = "12"


@dataclass(slots=True)
class _Answer:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    over: bool = False

    def take(self, event: Event) -> None:
        match event:
            case ResponseReceived(headers=headers) | TrailersReceived(headers=headers):
                self.headers |= {bytes(name): bytes(value) for name, value in headers or ()}
            case DataReceived(data=data):
                self.body += data or b""
            case StreamEnded() | StreamReset() | ConnectionTerminated():
                self.over = True
            case _:
                pass


async def check(connection: Connection, authority: str, service: str) -> str:
    """The status in the protocol's word, such as SERVING. Refused where the other side does not answer as it says."""
    client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    try:
        client.initiate_connection()
        stream = client.get_next_available_stream_id()
        client.send_headers(stream, _headers(authority))
        client.send_data(stream, _message(service), end_stream=True)
        return _status(await _answer(connection, client))
    except ProtocolError as error:
        raise Refused("", f"malformed HTTP/2: {error}") from error


def _headers(authority: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("user-agent", f"kube-probe/{__version__}"),
        ("te", "trailers"),
    ]


def _message(service: str) -> bytes:
    """HealthCheckRequest, field 1, with the length before it that gRPC wants."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _varint(number: int) -> bytes:
    digits = []
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*digits, number))


async def _answer(connection: Connection, client: H2Connection) -> _Answer:
    answer = _Answer()
    while not answer.over and len(answer.body) < _LIMIT:
        await connection.write(client.data_to_send())
        data = await connection.read(_BLOCK)
        if not data:
            break
        for event in client.receive_data(data):
            answer.take(event)
            if isinstance(event, DataReceived) and event.flow_controlled_length:
                client.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
    await connection.write(client.data_to_send())
    return answer


def _status(answer: _Answer) -> str:
    """HealthCheckResponse, field 1; a field with the value 0 (UNKNOWN) is left out."""
    code = answer.headers.get(b"grpc-status", b"").decode(errors="replace")
    if code == _UNIMPLEMENTED:
        raise Refused("", "this server does not implement the grpc health protocol (grpc.health.v1.Health)")
    if code != "0":
        said = answer.headers.get(b"grpc-message", b"").decode(errors="replace")
        raise Refused("", f"health rpc failed: status {code}: {said}" if code else "health rpc failed: EOF")
    message = answer.body[5:]
    number = message[1] if len(message) > 1 and message[0] == 0x08 else 0
    return _STATUS[number] if number < len(_STATUS) else str(number)
