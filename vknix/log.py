"""Logging, set up once: plain lines for a person at a terminal, JSON lines for a machine. Pod and host from the context."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

import msgspec

LEVELS = ("debug", "info", "warning", "error")

# Libraries that tell at INFO what vknix itself tells better, or tells on purpose not at all.
_QUIET = ("asyncssh", "aiohttp.access", "asyncio")

_pod: ContextVar[str] = ContextVar("pod", default="")
_host: ContextVar[str] = ContextVar("host", default="")


@contextmanager
def about(*, pod: str = "", host: str = "") -> Iterator[None]:
    """Each line that is logged inside, also by tasks that are started inside, names this Pod or host."""
    tokens = [(variable, variable.set(value)) for variable, value in ((_pod, pod), (_host, host)) if value]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)


def setup(level: str = "info", stream: TextIO | None = None) -> None:
    """Logs to `stream` (stderr), in JSON where that is no terminal. Again replaces what an earlier call has set up."""
    stream = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Plain() if stream.isatty() else _Json())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)


class _Line(msgspec.Struct, omit_defaults=True):
    time: str
    level: str
    logger: str
    message: str
    pod: str = ""
    host: str = ""
    trace: str = ""


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = _Line(
            time=datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            level=record.levelname.lower(),
            logger=record.name,
            message=record.getMessage(),
            pod=_pod.get(),
            host=_host.get(),
            trace=self.formatException(record.exc_info) if record.exc_info else "",
        )
        return msgspec.json.encode(line).decode()


class _Plain(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s%(about)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        named = [f"{name}={value}" for name, value in (("pod", _pod.get()), ("host", _host.get())) if value]
        record.about = f"  [{' '.join(named)}]" if named else ""
        return super().format(record)
