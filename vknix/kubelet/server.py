"""The API that this node serves to the API server: routes, TLS, and the one place where errors become status codes."""

import asyncio
import asyncio.sslproto
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from vknix.errors import ConfigError, Conflict, Forbidden, Mistake, NotFound, Refused, Unreachable, Unsupported, VknixError
from vknix.kubelet.auth import Guard
from vknix.kubelet.forward import serve_forward
from vknix.kubelet.logs import check_stream, log_query, serve_logs
from vknix.kubelet.plain_run import serve_run
from vknix.kubelet.target import Backend, Lookup, Rejection, Target
from vknix.kubelet.upgrade import Options, options, serve_attach, serve_exec
from vknix.kubelet.views import Reading, Views

_STATUS: Final = (
    (Refused, 400),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (Unsupported, 501),
    (Unreachable, 503),
)
_MAX_HEADERS: Final = 1024 * 1024  # of a line: a command is in the URL
_KEEP_ALIVE_S: Final = 90.0
_SHUTDOWN_S: Final = 1.0  # followers and sessions never end by themselves
_TLS_BUFFER: Final = 64 * 1024

_http_log = logging.getLogger("vknix.kubelet.http")  # aiohttp's, of requests that failed
_http_log.addFilter(lambda record: not _is_clients_fault(record))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Settings:
    """`port` 0 means any. `tls` stays in use: a new certificate is loaded into it."""

    address: str
    port: int
    tls: ssl.SSLContext


class KubeletServer:
    """Answers until it is cancelled. No route is without the guard."""

    def __init__(self, settings: Settings, *, guard: Guard, lookup: Lookup, backend: Backend, views: Views) -> None:
        self._settings = settings
        self._guard = guard
        self._lookup = lookup
        self._backend = backend
        self._views = views

    async def serve(self) -> None:
        """Runs until it is cancelled. Raises ConfigError where it can't listen."""
        async with self.listening():
            await asyncio.Event().wait()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Serves inside the block; the port."""
        # The default of 256 KiB for each connection is four times a log follower's other memory. https://github.com/python/cpython/issues/109534
        asyncio.sslproto.SSLProtocol.max_size = _TLS_BUFFER
        runner = web.AppRunner(
            self.app(),
            handler_cancellation=True,
            access_log=None,
            logger=_http_log,
            shutdown_timeout=_SHUTDOWN_S,
            keepalive_timeout=_KEEP_ALIVE_S,
            max_line_size=_MAX_HEADERS,
        )
        await runner.setup()
        try:
            await self._listen(runner)
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        address, port = self._settings.address, self._settings.port
        try:
            await web.TCPSite(runner, address, port, ssl_context=self._settings.tls).start()
        except OSError as error:
            text = f"can't listen on {address} port {port}: {error}; choose another, or stop what listens there"
            raise ConfigError((Mistake("", text),)) from error

    def app(self) -> web.Application:
        app = web.Application(middlewares=[_answer_errors, self._admit])
        add = app.router.add_route
        Reading(self._views, self._lookup, self._backend).add_to(app)
        add("GET", "/containerLogs/{namespace}/{pod}/{container}", self._container_logs)
        add("GET", "/containerLogs{rest:.*}", _incomplete_logs)
        for verb, serve in (("exec", self._exec), ("attach", self._attach)):
            for path in (f"/{verb}/{{namespace}}/{{pod}}/{{container}}", f"/{verb}/{{namespace}}/{{pod}}/{{uid}}/{{container}}"):
                add("GET", path, serve)
                add("POST", path, serve)
        for path in ("/portForward/{namespace}/{pod}", "/portForward/{namespace}/{pod}/{uid}"):
            add("GET", path, self._port_forward)
            add("POST", path, self._port_forward)
        for path in ("/run/{namespace}/{pod}/{container}", "/run/{namespace}/{pod}/{uid}/{container}"):
            add("POST", path, self._run)
        return app

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        certificate = request.get_extra_info("peercert")
        authorization = request.headers.get("Authorization", "")
        await self._guard.admit(certificate, authorization, method=request.method, path=request.path)
        return await handler(request)

    async def _container_logs(self, request: web.Request) -> web.StreamResponse:
        query = log_query(request.query, time.time())
        container, name = request.match_info["container"], request.match_info["pod"]
        target = self._target(request, f'pod "{name}" does not exist')
        if not target.has(container):
            raise Rejection(404, f'container "{container}" not found in pod "{name}"')
        check_stream(request.query)
        return await serve_logs(request, target, container, query, self._backend)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        wants, target, container = self._stream(request)
        return await serve_exec(request, target, container, wants, self._backend)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        wants, target, container = self._stream(request)
        return await serve_attach(request, target, container, wants, self._backend)

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        target = self._target(request, "pod does not exist")
        if request.match_info.get("uid", target.pod.uid) != target.pod.uid:
            raise Rejection(404, "pod not found")
        return await serve_forward(request, target, self._backend)

    async def _run(self, request: web.Request) -> web.StreamResponse:
        target, container = self._named(request)
        return await serve_run(request, target, container, self._backend)

    def _stream(self, request: web.Request) -> tuple[Options, Target, str]:
        return options(request.query), *self._named(request)

    def _named(self, request: web.Request) -> tuple[Target, str]:
        target = self._target(request, "pod does not exist")
        container = request.match_info["container"]
        if request.match_info.get("uid", target.pod.uid) != target.pod.uid:
            raise Rejection(500, f'container not found ("{container}")')
        return target, container

    def _target(self, request: web.Request, unknown: str) -> Target:
        target = self._lookup(request.match_info["namespace"], request.match_info["pod"])
        if target is None:
            raise Rejection(404, unknown)
        return target


def _is_clients_fault(record: logging.LogRecord) -> bool:
    """It was answered with a 400; strangers could fill the log with it."""
    return record.exc_info is not None and isinstance(record.exc_info[1], HttpProcessingError)


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Rejection as error:
        return web.Response(status=error.status, text=error.text, headers=error.headers)
    except VknixError as error:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        return web.Response(status=status, text=str(error))


async def _incomplete_logs(request: web.Request) -> web.StreamResponse:
    namespace, pod, container, *more = [*request.match_info["rest"].removeprefix("/").split("/"), "", ""]
    if any(more):
        raise web.HTTPNotFound
    missing = "podID" if not pod else "container name" if not container else "podNamespace" if not namespace else ""
    raise Rejection(400, f'{{"message": "Missing {missing}."}}')
