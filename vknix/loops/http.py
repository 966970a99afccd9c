"""One GET through a Connection, plain or TLS. The certificate is not verified, as a kubelet's probes don't."""

import ssl
from dataclasses import dataclass

import h11

from vknix.errors import Refused
from vknix.provider import Connection

_BLOCK = 1 << 14
_BODY = 10 << 10  # what a probe shows of an answer


_PLAIN = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")  # what OpenSSL calls an answer in plain HTTP


class NoTls(Refused):
    """The other side answered a TLS greeting with something else."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    location: str
    body: bytes


async def get(connection: Connection, authority: str, target: str, headers: list[tuple[str, str]], *, tls: bool) -> Answer:
    """Refused where the other side speaks no HTTP."""
    wire: Connection = await Tls.over(connection) if tls else connection
    client = h11.Connection(h11.CLIENT)
    sent = [("Host", authority), ("Accept", "*/*"), ("Connection", "close")]
    given = {name.lower() for name, _ in headers}
    every = [
        (name.encode(), value.encode()) for name, value in (*headers, *(pair for pair in sent if pair[0].lower() not in given))
    ]
    try:
        await wire.write(client.send(h11.Request(method="GET", target=target, headers=every)) or b"")
        await wire.write(client.send(h11.EndOfMessage()) or b"")
        return await _answer(wire, client)
    except h11.ProtocolError as error:
        raise Refused("", f"malformed HTTP: {error}") from error


async def _answer(wire: Connection, client: h11.Connection) -> Answer:
    status, location, body = 0, "", b""
    while len(body) < _BODY:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await wire.read(_BLOCK))
        elif isinstance(event, h11.Response):
            status = event.status_code
            location = next((value.decode("latin-1") for name, value in event.headers if name == b"location"), "")
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            break
    if not status:
        raise Refused("", "EOF")
    return Answer(status, location, body[:_BODY])


class Tls:
    """TLS within a Connection, which is no socket."""

    def __init__(self, inner: Connection) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._inner = inner
        self._from, self._to = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._from, self._to)

    @classmethod
    async def over(cls, inner: Connection) -> "Tls":
        self = cls(inner)
        while True:
            try:
                self._tls.do_handshake()
                await self._flush()
                return self
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                kind = NoTls if error.reason in _PLAIN else Refused
                raise kind("", f"tls: {error.reason}") from error

    async def _flush(self) -> None:
        if data := self._to.read():
            await self._inner.write(data)

    async def _fill(self) -> None:
        data = await self._inner.read(_BLOCK)
        if data:
            self._from.write(data)
        else:
            self._from.write_eof()

    async def read(self, limit: int) -> bytes:
        while True:
            try:
                return self._tls.read(limit)
            except ssl.SSLWantReadError:
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                raise Refused("", f"tls: {error.reason}") from error

    async def write(self, data: bytes) -> None:
        if data:
            self._tls.write(data)
            await self._flush()
