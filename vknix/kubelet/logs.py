"""A query for logs -> LogOptions -> a chunked answer. Texts and statuses are the kubelet's: the API server passes them on."""

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from aiohttp import web

from vknix.core.facts import ContainerFacts, ImageState, State
from vknix.errors import VknixError
from vknix.kubelet.target import Backend, Rejection, Target
from vknix.provider import LogOptions

log = logging.getLogger(__name__)

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class LogQuery:
    previous: bool
    follow: bool
    timestamps: bool
    tail_lines: int | None
    limit_bytes: int | None
    since: float | None  # seconds since the epoch


def log_query(query: Mapping[str, str], now: float) -> LogQuery:
    """Raises Rejection. Unknown parameters are ignored, as a kubelet does."""
    tail = query.get("tail") or query.get("tailLines")  # `tail` is the old name
    tail_lines = _integer(None if query.get("tail") == "all" else tail)
    limit_bytes = _integer(query.get("limitBytes"))
    seconds = _integer(query.get("sinceSeconds"))
    time = _time(query.get("sinceTime"))
    if (
        (tail_lines is not None and tail_lines < 0)
        or (limit_bytes is not None and limit_bytes < 1)
        or (seconds is not None and (seconds < 1 or time is not None))
    ):
        raise Rejection(422, '{"message": "Invalid request."}')
    return LogQuery(
        previous=_flag(query.get("previous")),
        follow=_flag(query.get("follow")),
        timestamps=_flag(query.get("timestamps")),
        tail_lines=tail_lines,
        limit_bytes=limit_bytes,
        since=now - seconds if seconds is not None else time,
    )


def check_stream(query: Mapping[str, str]) -> None:
    """Raises Rejection for one stream alone, as a kubelet without the feature gate does: a log here holds both."""
    stream = query.get("stream", "All")
    if stream != "All":
        text = f'unable to return the given log stream: "{stream}". Please enable PodLogsQuerySplitStreams feature gate in kubelet'
        raise Rejection(400, text)


def _flag(text: str | None) -> bool:
    return text is not None and text != "0" and text.lower() != "false"


def _integer(text: str | None) -> int | None:
    if text is None:
        return None
    if not _INTEGER.fullmatch(text):
        raise Rejection(400, '{"message": "Unable to decode query."}')
    return int(text)


def _time(text: str | None) -> float | None:
    if text in (None, "", "null"):
        return None
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError(text)
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise Rejection(400, '{"message": "Unable to decode query."}') from error


def attempt(target: Target, container: str, *, previous: bool) -> int:
    """Whose log is meant: the last one that has run, or the one before it. Raises Rejection where there is none."""
    facts = target.container(container)
    if facts is None:
        if previous:
            raise _no_previous(target, container)
        raise _waiting(target, container)
    last = _last_begun(facts)
    if previous:
        last = last if _is_waiting(facts) else facts.attempt - 1
        if last is None or last < 0:
            raise _no_previous(target, container)
    if last is None:
        raise _waiting(target, container)
    return last


def _is_waiting(facts: ContainerFacts) -> bool:
    """As its status says: the next attempt has not begun, so the last one that did counts as the previous one."""
    return facts.state is State.PREPARING or (facts.state is State.STOPPED and facts.host_restarts)


def _last_begun(facts: ContainerFacts) -> int | None:
    if facts.state is not State.PREPARING:
        return facts.attempt
    return facts.last_exit.attempt if facts.last_exit is not None else None


def _no_previous(target: Target, container: str) -> Rejection:
    return Rejection(400, f'previous terminated container "{container}" in pod "{target.pod.name}" not found')


def _waiting(target: Target, container: str) -> Rejection:
    failed = [
        image for image in (target.facts.images.values() if target.facts is not None else ()) if image.state is ImageState.FAILED
    ]
    if any(image.retry_at is not None for image in failed):
        reason = "trying and failing to pull image"
    elif failed:
        reason = "image can't be pulled"
    else:
        reason = "PodInitializing" if target.pod.spec.init_containers else "ContainerCreating"
    return Rejection(400, f'container "{container}" in pod "{target.pod.name}" is waiting to start: {reason}')


async def serve_logs(request: web.Request, target: Target, container: str, query: LogQuery, backend: Backend) -> web.StreamResponse:
    which = attempt(target, container, previous=query.previous)
    if target.facts is None:  # what has an attempt has facts
        raise _waiting(target, container)
    options = LogOptions(which, query.follow, query.timestamps, query.tail_lines, query.limit_bytes, query.since)
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    async with _closing(backend.logs(target.pod.uid, target.facts.host, container, options)) as pieces:
        # A follower may hear nothing for hours and needs its headers now; for others, a host that fails is still an HTTP status.
        first = b"" if query.follow else await anext(pieces, b"")
        await response.prepare(request)
        await _send(request, response, first, pieces)
    return response


async def _send(request: web.Request, response: web.StreamResponse, first: bytes, pieces: AsyncIterator[bytes]) -> None:
    """A log that breaks off must not look complete: the connection is aborted then."""
    try:
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
    except VknixError as error:
        log.warning("a log that was being sent broke off: %s", error)
        if request.transport is not None:
            request.transport.abort()


@asynccontextmanager
async def _closing(pieces: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    try:
        yield pieces
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
