"""Records of a log, as vktool writes them -> the text that a reader asked for. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

_STAMP, _FLAG, _PREFIX = 30, 38, 40  # vktool.h


@dataclass(slots=True)
class Frame:
    """Whole records: `end` is where in the log they do, `inside`: they begin within a line. Rendered once for all who follow."""

    end: int
    inside: bool
    records: bytes
    _texts: dict[bool, bytes] = field(default_factory=dict)

    def text(self, *, stamps: bool, since: bytes = b"") -> bytes:
        """`since`: a stamp; older records are left out."""
        if self.records[:_STAMP] < since:
            return b"".join(_texts(self.records, self.inside, stamps, since))
        if stamps not in self._texts:
            self._texts[stamps] = b"".join(_texts(self.records, self.inside, stamps, b""))
        return self._texts[stamps]


def _texts(records: bytes, inside: bool, stamps: bool, since: bytes) -> Iterator[bytes]:
    for record in records.split(b"\n")[:-1]:
        if record[:_STAMP] < since:
            continue
        if stamps and not inside:
            yield record[: _STAMP + 1]
        inside = record[_FLAG : _FLAG + 1] == b"P"
        yield record[_PREFIX:]
        if not inside:
            yield b"\n"


def stamp(seconds: float) -> bytes:
    """As a record begins."""
    ns = int(seconds * 1e9)
    at = datetime.fromtimestamp(ns // 10**9, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z".encode()
