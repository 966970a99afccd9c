"""SPDY/3 header blocks: names and values <-> compressed bytes. Pure.

Each direction of a connection is one zlib stream across all its blocks, so blocks are coded in the order of the wire, also those
of streams that are refused. (https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/, section 2.6.10)
"""

import struct
import zlib
from typing import Final

Headers = tuple[tuple[str, tuple[str, ...]], ...]

MAX_BLOCK: Final = 64 * 1024  # bytes of one block, decompressed
MAX_HEADERS: Final = 100

_LENGTH = struct.Struct("!I")

_WORDS = (
    *(
        "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow"
        " authorization cache-control connection content-base content-encoding content-language content-length"
        " content-location content-md5 content-range content-type date etag expect expires from host if-match"
        " if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma"
        " proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade"
        " user-agent vary via warning www-authenticate method get status"
    ).split(),
    "200 OK",
    *"version HTTP/1.1 url public set-cookie keep-alive origin".split(),
)

_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,public"
    "privatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _prefixed(text: str) -> bytes:
    data = text.encode()
    return _LENGTH.pack(len(data)) + data


DICTIONARY: Final = b"".join(map(_prefixed, _WORDS)) + _TAIL.encode()


class HeaderError(ValueError):
    """A block that breaks the format or a limit. What follows on this connection can't be read any more."""


class Compressor:
    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zlib.Z_BEST_COMPRESSION, zdict=DICTIONARY)

    def block(self, headers: Headers) -> bytes:
        pairs = (_prefixed(name.lower()) + _prefixed("\0".join(values)) for name, values in headers)
        plain = _LENGTH.pack(len(headers)) + b"".join(pairs)
        return self._zlib.compress(plain) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class Decompressor:
    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def headers(self, block: bytes) -> Headers:
        """Raises HeaderError; memory stays below MAX_BLOCK whatever `block` claims."""
        try:
            plain = self._zlib.decompress(block, MAX_BLOCK)
        except zlib.error as error:
            raise HeaderError(f"a header block does not decompress: {error}") from error
        if self._zlib.unconsumed_tail or len(plain) == MAX_BLOCK:
            raise HeaderError(f"a header block is longer than {MAX_BLOCK} bytes")
        return _parse(plain)


def _parse(plain: bytes) -> Headers:
    count, rest = _number(plain)
    if count > MAX_HEADERS:
        raise HeaderError(f"a header block has {count} headers, more than {MAX_HEADERS}")
    headers = []
    for _ in range(count):
        name, rest = _text(rest)
        value, rest = _text(rest)
        headers.append((name.lower(), tuple(value.split("\0"))))
    if rest:
        raise HeaderError(f"a header block has {len(rest)} bytes too many")
    return tuple(headers)


def _number(data: bytes) -> tuple[int, bytes]:
    if len(data) < _LENGTH.size:
        raise HeaderError("a header block is cut short")
    return _LENGTH.unpack_from(data)[0], data[_LENGTH.size :]


def _text(data: bytes) -> tuple[str, bytes]:
    length, rest = _number(data)
    if length > len(rest):
        raise HeaderError("a header block is cut short")
    try:
        return rest[:length].decode(), rest[length:]
    except UnicodeDecodeError as error:
        raise HeaderError("a header is not UTF-8") from error
