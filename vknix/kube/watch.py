"""One collection in; everything in it, then each change, for ever, out. Survives what API servers and proxies do to watches."""

import logging
import random
import re
import time
from asyncio import sleep
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

import aiohttp
import msgspec
from aiohttp.http import HttpProcessingError

from vknix.errors import Expired, Unreachable, VknixError
from vknix.kube.client import Client, Status, error_of

log = logging.getLogger(__name__)

T = TypeVar("T")

LIST_S = 60.0


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """All that there is: what the consumer knew and these items lack is deleted."""

    items: tuple[T, ...]


@dataclass(frozen=True, slots=True)
class Changed(Generic[T]):
    item: T


@dataclass(frozen=True, slots=True)
class Gone(Generic[T]):
    """Deleted; `item` is its last state."""

    item: T


@dataclass(frozen=True, slots=True)
class Lost:
    """The API server does not answer as it should. Nothing is known to have changed; it is asked again."""

    error: VknixError


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to ask. After a failure: from `first_s`, doubled up to `cap_s`; a watch that held for `good_s` starts anew.

    API servers send a bookmark each minute: a watch that is silent for `idle_s` is opened again where it was.
    """

    first_s: float = 0.8
    cap_s: float = 30.0
    good_s: float = 10.0
    idle_s: float = 120.0
    page: int = 500

    def wait_s(self, failures: int) -> float:
        return min(self.first_s * 2.0 ** min(failures, 16), self.cap_s) * random.uniform(0.75, 1.25)  # noqa: S311 - not a secret


class _Envelope(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


class _ListMeta(msgspec.Struct):
    resourceVersion: str = ""  # noqa: N815 - the API's word
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None  # Go writes an empty list as null


class _Versioned(msgspec.Struct):
    metadata: _ListMeta


# As every API server writes an event. Cutting it out so costs a tenth of decoding the envelope; `decode` checks what is inside.
_EVENT = re.compile(rb'\{"type":"([A-Z]+)","object":(\{.*\})\}\n', re.DOTALL).fullmatch

_envelope = msgspec.json.Decoder(_Envelope).decode
_page = msgspec.json.Decoder(_Page).decode
_versioned = msgspec.json.Decoder(_Versioned).decode
_status = msgspec.json.Decoder(Status).decode


async def follow(
    client: Client, path: str, *, query: Mapping[str, str], decode: Callable[[bytes], T], pace: Pace = Pace()
) -> AsyncGenerator[Listed[T] | Changed[T] | Gone[T] | Lost]:
    """Lists `path`, then watches it, for ever. Close it with `aclosing`.

    `decode` gets the bytes of one object and may keep them. Where it raises msgspec.DecodeError the collection is listed again.
    """
    position = _Position()
    failures = 0
    while True:
        opened = time.monotonic()
        try:
            if not position.known:
                items, version = await _list(client, path, query, decode, pace.page)
                position.at(version)
                yield Listed(items)
            async with aclosing(_watch(client, path, query, decode, position, pace.idle_s)) as events:
                async for event in events:
                    yield event
        except Expired as error:
            log.info("watch of %s is too old, listing again: %s", path, error)
            position.forget()
        except VknixError as error:
            log.warning("watch of %s broke off: %s", path, error)
            yield Lost(error)
        # A server that ends each watch at once, in whatever way, must not be asked again at once.
        if time.monotonic() - opened >= pace.good_s:
            failures = 0
        else:
            await sleep(pace.wait_s(failures))
            failures += 1


class _Position:
    """Where to go on. Only the last object is kept: its version is read when a watch is opened again, not at each event."""

    def __init__(self) -> None:
        self._version = ""
        self._last: bytes | None = None

    @property
    def known(self) -> bool:
        return bool(self._version) or self._last is not None

    def at(self, version: str) -> None:
        self._version, self._last = version, None

    def after(self, last: bytes) -> None:
        self._last = last

    def forget(self) -> None:
        self.at("")

    def version(self) -> str:
        if self._last is not None:
            self.at(_versioned(self._last).metadata.resourceVersion)
        return self._version


async def _list(
    client: Client, path: str, query: Mapping[str, str], decode: Callable[[bytes], T], page_size: int
) -> tuple[tuple[T, ...], str]:
    """Reads all pages. No resourceVersion is named, so that the answer is as new as the question, never a stale cache's."""
    items: list[T] = []
    page_query = {**query, "limit": str(page_size)}
    while True:
        try:
            page = _page(await client.request("GET", path, query=page_query, timeout_s=LIST_S))
            items += [decode(bytes(item)) for item in page.items or ()]
        except msgspec.DecodeError as error:
            raise Unreachable(f"list of {path}: {error}") from error
        if not page.metadata.continue_:
            return tuple(items), page.metadata.resourceVersion
        page_query["continue"] = page.metadata.continue_


async def _watch(
    client: Client, path: str, query: Mapping[str, str], decode: Callable[[bytes], T], position: _Position, idle_s: float
) -> AsyncGenerator[Changed[T] | Gone[T]]:
    """One watch, until the server ends it. Raises Expired where only a new list helps, Unreachable where waiting may."""
    try:
        async with client.stream(path, query=_watch_query(query, position.version()), idle_s=idle_s) as lines:
            while line := await lines.readline():
                kind, raw = _cut(line)
                match kind:
                    case b"ADDED" | b"MODIFIED":
                        item: Changed[T] | Gone[T] = Changed(decode(raw))
                    case b"DELETED":
                        item = Gone(decode(raw))
                    case b"BOOKMARK":
                        position.after(raw)
                        continue
                    case _:
                        raise _refusal(raw, path)
                position.after(raw)
                yield item
    except (msgspec.DecodeError, HttpProcessingError) as error:  # the latter for a line above 4 MiB
        position.forget()
        raise Unreachable(f"watch of {path}: not an event: {error}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unreachable(f"watch of {path}: {str(error) or type(error).__name__}") from error


def _watch_query(query: Mapping[str, str], version: str) -> Mapping[str, str]:
    return {
        **query,
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": version,
        "timeoutSeconds": str(random.randint(300, 600)),  # noqa: S311 - spreads the nodes, not a secret
    }


def _cut(line: bytes) -> tuple[bytes, bytes]:
    """The type and the object of one event."""
    if event := _EVENT(line):
        return event[1], event[2]
    envelope = _envelope(line)
    return envelope.type.encode(), bytes(envelope.object)


def _refusal(raw: bytes, path: str) -> VknixError:
    """An ERROR event: 410 for a version that the server has forgotten; whatever else it is, only a list is sure to go on."""
    status = _status(raw)
    error = error_of(status.code or 410, raw, f"watch of {path}")
    return error if isinstance(error, Expired) else Expired(str(error))
