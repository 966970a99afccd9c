"""A query for the hosts' journals (NodeLogQuery) -> JournalQuery -> text. Rules and texts: kubelet_server_journal.go."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final

from aiohttp import web

from vknix.core.facts import HostName
from vknix.errors import NotFound, Refused, VknixError
from vknix.kubelet.target import Backend, Rejection
from vknix.provider import JournalQuery

log = logging.getLogger(__name__)

_SERVICES, _SERVICE_LENGTH, _LINES = 4, 256, 100_000
_UNSAFE = re.compile(r"[^a-zA-Z\-_.:0-9@]")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_OPTIONS: Final = ("query", "sinceTime", "untilTime", "tailLines", "boot", "pattern")
JOURNAL: Final = "journal"


Query = Mapping[str, Sequence[str]]  # of a URL; names may be repeated


def journal_query(query: Query, *, must_name: bool) -> JournalQuery:
    """Rejection 400 for what can't be read, 406 for what can't be had. `must_name`: at least one unit."""
    names = [name for name in query.get("query", ()) if name.strip()]
    wrong: list[str] = []
    since, until = _time(query, "sinceTime", wrong), _time(query, "untilTime", wrong)
    boot, lines = _integer(query, "boot", wrong), _integer(query, "tailLines", wrong)
    if query.get("query", ()) and not names:
        wrong.append(_invalid("query", list(query["query"]), "may not be empty"))
    _refuse(400, wrong)
    pattern = _first(query, "pattern")
    _refuse(406, list(_impossible(names, since, until, boot, lines, pattern, must_name=must_name)))
    return JournalQuery(tuple(names), since, until, lines, pattern, boot if boot is not None else 0)


def _impossible(
    names: Sequence[str],
    since: float | None,
    until: float | None,
    boot: int | None,
    lines: int | None,
    pattern: str,
    *,
    must_name: bool,
) -> Iterator[str]:
    files = [name for name in names if re.search(r"[/\\]", name)]
    for name in names:
        if name in files:
            yield _invalid("query", [name], "this node serves the journals of its hosts, and no files: name a unit")
        elif len(name) > _SERVICE_LENGTH:
            yield _invalid("query", name, f"length must be less than {_SERVICE_LENGTH}")
        elif _UNSAFE.search(name):
            yield _invalid("query", name, "input contains unsupported characters")
    if len(names) > _SERVICES:
        yield f"query: Too many: {len(names)}: must have at most {_SERVICES} items"
    if must_name and not names:
        yield "query: Required value: cannot be empty with options"
    if since is not None and until is not None and since > until:
        yield _invalid("untilTime", until, "must be after `sinceTime`")
    if boot is not None and boot > 0:
        yield _invalid("boot", boot, "must be less than 1")
    if lines is not None and not 0 <= lines <= _LINES:
        yield _invalid("tailLines", lines, f"must be between 0 and {_LINES}, inclusive")
    if "\0" in pattern or "\n" in pattern:
        yield _invalid("pattern", pattern, "must be one line")


def _invalid(name: str, value: object, why: str) -> str:
    told = '"' + value.replace('"', '\\"') + '"' if isinstance(value, str) else str(value)
    return f"{name}: Invalid value: {told[:_SERVICE_LENGTH]}: {why}"


def _refuse(status: int, wrong: list[str]) -> None:
    if wrong:
        raise Rejection(status, wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")


def _first(query: Query, name: str) -> str:
    return next(iter(query.get(name, ())), "")


def _time(query: Query, name: str, wrong: list[str]) -> float | None:
    text = _first(query, name)
    if not text:
        return None
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError(text)
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        wrong.append(_invalid(name, text, "invalid time format"))
        return None


def _integer(query: Query, name: str, wrong: list[str]) -> int | None:
    text = _first(query, name)
    if not text:
        return None
    if not _INTEGER.fullmatch(text):
        wrong.append(_invalid(name, text, "invalid syntax"))
        return None
    return int(text)


async def serve_node_logs(request: web.Request, hosts: Sequence[HostName], backend: Backend) -> web.StreamResponse:
    """/logs/?query=UNIT asks all hosts, one after the other; /logs/HOST/journal one, also for all units. Else: what there is."""
    host, _, rest = request.match_info["rest"].strip("/").partition("/")
    query = {name: request.query.getall(name) for name in request.query if name in _OPTIONS}
    if not host and not query:
        return _listing(f"{name}/" for name in hosts)
    if not host:
        return await _serve(request, hosts, journal_query(query, must_name=True), backend)
    if host not in hosts or rest not in ("", JOURNAL):
        raise Rejection(404, "404 page not found\n")
    if rest:
        return await _serve(request, [HostName(host)], journal_query(query, must_name=False), backend)
    if query:
        raise Rejection(406, "path not allowed in query mode\n")
    return _listing([JOURNAL])


def _listing(names: Iterator[str] | list[str]) -> web.Response:
    lines = "".join(f'<a href="{name}">{name}</a>\n' for name in names)
    return web.Response(text=f"<pre>\n{lines}</pre>\n", content_type="text/html")


async def _serve(request: web.Request, hosts: Sequence[HostName], query: JournalQuery, backend: Backend) -> web.StreamResponse:
    """What goes wrong before anything was sent is a status; after it, a line, as a kubelet's. A line names its host."""
    response = web.StreamResponse(headers={"Content-Type": "text/plain;charset=UTF-8"})
    response.enable_chunked_encoding()
    failed: list[VknixError] = []
    for host in hosts:
        try:
            async with aclosing(backend.host_logs(host, query)) as pieces:
                async for piece in pieces:
                    await _send(request, response, piece)
        except VknixError as error:
            log.warning("the journal of host %s: %s", host, error)
            failed.append(error)
    if failed and not response.prepared and (len(failed) == len(hosts) or isinstance(failed[0], Refused | NotFound)):
        raise failed[0]
    for each in failed:
        await _send(request, response, f"\n{each}\n".encode())
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response


async def _send(request: web.Request, response: web.StreamResponse, piece: bytes) -> None:
    if piece and not response.prepared:
        await response.prepare(request)
    if piece:
        await response.write(piece)
