"""One HTTP session to one API server: requests in, bytes or typed errors out. Knows no Kubernetes type but Status."""

import asyncio
import logging
import random
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from yarl import URL

from vknix import __version__
from vknix.errors import Conflict, Expired, Forbidden, NotFound, Unreachable, VknixError
from vknix.kube.auth import Credentials
from vknix.telemetry import Telemetry

log = logging.getLogger(__name__)

CALL_S = 10.0
CONNECT_S = 10.0
TRIES = 4
LONGEST_WAIT_S = 5.0  # between two tries of one call; a caller that wants more tries again itself
LINE_BYTES = 2**21  # half the longest line that a watch may send: a Pod has at most 1.5 MiB

JSON = "application/json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"


class ApiError(VknixError):
    """The API server understood a request and refused it for what it says: Invalid, BadRequest, MethodNotAllowed, ..."""

    def __init__(self, status: int, reason: str, message: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(f"{message} (HTTP {status})")
        self.status = status
        self.reason = reason
        self.message = message
        self.fields = fields  # which are invalid: `spec.taints[0].key`


class _Cause(msgspec.Struct, frozen=True):
    field: str | None = None


class _Details(msgspec.Struct, frozen=True):
    causes: tuple[_Cause, ...] | None = None


class Status(msgspec.Struct):
    """metav1.Status: the body of each refusal, and the object of a watch's ERROR event."""

    message: str | None = None
    reason: str | None = None
    code: int | None = None
    details: _Details | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        causes = self.details.causes if self.details is not None else None
        return tuple(cause.field for cause in causes or () if cause.field)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    retry_after_s: float | None


class Client:
    """Use as `async with Client(credentials) as client`. Safe for many tasks at once."""

    def __init__(self, credentials: Credentials, telemetry: Telemetry | None = None) -> None:
        self._credentials = credentials
        self._telemetry = telemetry if telemetry is not None else Telemetry()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._credentials.ssl, socket_factory=_socket)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": f"vknix/{__version__}", "Accept": JSON},
            timeout=aiohttp.ClientTimeout(connect=CONNECT_S),
            read_bufsize=LINE_BYTES,
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._session is not None
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        timeout_s: float = CALL_S,
    ) -> bytes:
        """One call, all its tries included in `timeout_s`. `path` is quoted already.

        Tried again after 429 whatever the method, since nothing was done then; after 5xx and lost connections for all methods
        but POST, whose outcome is unknown: that is Unreachable, and the caller looks before it repeats.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._tries(method, path, query or {}, body, content_type)
        except TimeoutError:
            raise Unreachable(f"{method} {path}: no answer from {self._credentials.server} in {timeout_s:g} s") from None

    async def _tries(self, method: str, path: str, query: Mapping[str, str], body: bytes | None, content_type: str) -> bytes:
        for left in range(TRIES - 1, -1, -1):
            try:
                answer = await self._once(method, path, query, body, content_type)
            except (aiohttp.ClientError, OSError) as error:
                if not left or method == "POST":
                    raise Unreachable(f"{method} {path}: {_why(error)}") from error
                await asyncio.sleep(_wait_s(TRIES - left, None))
                continue
            if answer.status < 300:
                return answer.body
            if not left or not self._may_repeat(method, answer.status, first=left == TRIES - 1):
                raise error_of(answer.status, answer.body, f"{method} {path}")
            log.debug("%s %s: HTTP %d, trying again", method, path, answer.status)
            await asyncio.sleep(_wait_s(TRIES - left, answer.retry_after_s))
        raise AssertionError("the last try returns or raises")

    def _may_repeat(self, method: str, status: int, *, first: bool) -> bool:
        if status == 401 and first:
            self._credentials.expire()
            return True
        return status == 429 or (status >= 500 and method != "POST")

    async def _once(self, method: str, path: str, query: Mapping[str, str], body: bytes | None, content_type: str) -> _Answer:
        headers = await self._credentials.headers()
        if body is not None:
            headers["Content-Type"] = content_type
        code = "<error>"
        try:
            with self._telemetry.api.timing(method):
                async with self._open(method, path, query, headers, data=body) as response:
                    answer = _Answer(response.status, await response.read(), _retry_after_s(response))
            code = str(answer.status)
            return answer
        finally:
            self._telemetry.api_calls.add(method, code)

    @asynccontextmanager
    async def stream(self, path: str, *, query: Mapping[str, str], idle_s: float) -> AsyncIterator[aiohttp.StreamReader]:
        """A GET whose answer is read as it comes; one try. Reading raises aiohttp's errors, also when nothing came for `idle_s`."""
        timeout = aiohttp.ClientTimeout(connect=CONNECT_S, sock_read=idle_s)
        headers = await self._credentials.headers()
        async with self._open("GET", path, query, headers, timeout=timeout) as response:
            if response.status >= 300:
                if response.status == 401:
                    self._credentials.expire()
                raise error_of(response.status, await response.read(), f"GET {path}")
            yield response.content

    def _open(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], **more: Any
    ) -> aiohttp.client._RequestContextManager:
        assert self._session is not None, "use `async with Client(...)`"
        url = URL(self._credentials.server + path, encoded=True).with_query(query)
        return self._session.request(
            method,
            url,
            headers=headers,
            proxy=self._credentials.proxy,
            server_hostname=self._credentials.server_name,
            allow_redirects=False,  # a token goes to the API server and nowhere else; 3xx is an ApiError
            **more,
        )


def error_of(status: int, body: bytes, what: str) -> VknixError:
    """The class of error for an HTTP status. A body that is not a Status (a proxy's HTML page) is left out."""
    try:
        told = msgspec.json.decode(body, type=Status)
    except msgspec.DecodeError:
        told = Status()
    message = f"{what}: {told.message or f'HTTP {status}'}"
    match status:
        case 401 | 403:
            return Forbidden(message)
        case 404:
            return NotFound(message)
        case 409:
            return Conflict(message)
        case 410:
            return Expired(message)
        case _ if status == 429 or status >= 500:
            return Unreachable(message)
        case _:
            return ApiError(status, told.reason or "", message, told.fields)


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _wait_s(attempt: int, retry_after_s: float | None) -> float:
    """Before try `attempt` + 1: what the server asked for, else 0.1, 0.2, 0.4 s, with jitter so that nodes do not march in step."""
    wait_s = retry_after_s if retry_after_s is not None else 0.05 * 2.0**attempt
    return min(wait_s, LONGEST_WAIT_S) * random.uniform(1.0, 1.25)  # noqa: S311 - not a secret


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket whose half-open connection ends after some 45 s, also while nothing is sent on it."""
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 45_000)
    return made
