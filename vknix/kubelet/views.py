"""The routes that are read: lists of Pods, numbers, configuration, the hosts' journals; and those that are refused."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web

from vknix.core.facts import HostName
from vknix.errors import Unsupported
from vknix.exposition import CONTENT_TYPE
from vknix.kubelet.node_logs import serve_node_logs
from vknix.kubelet.target import Backend, Lookup, Rejection


class Summary(Protocol):
    def __call__(self, *, only_cpu_and_memory: bool) -> Awaitable[bytes]: ...


@dataclass(frozen=True, slots=True)
class Views:
    """What the node tells of itself; each is asked when its route is. Bytes are JSON; `metrics` are texts by their paths.

    `stalled` says why the sync loop is not well, or "" where it is. `hosts`: those that have a journal.
    """

    pods: Callable[[], bytes]
    running_pods: Callable[[], bytes]
    configz: Callable[[], bytes]
    summary: Summary
    metrics: Mapping[str, Callable[[], Awaitable[str]]]
    stalled: Callable[[], str]
    hosts: Callable[[], Sequence[HostName]]


METRICS: Final = ("/metrics", "/metrics/cadvisor", "/metrics/probes", "/metrics/resource", "/metrics/slis")
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("", "0", "f", "F", "false", "FALSE", "False"))


class Reading:
    """`add_to` the application; the guard is the application's."""

    def __init__(self, views: Views, lookup: Lookup, backend: Backend) -> None:
        self._views = views
        self._lookup = lookup
        self._backend = backend

    def add_to(self, app: web.Application) -> None:
        add = app.router.add_route
        for path in ("/healthz", "/healthz/ping", "/healthz/log", "/healthz/syncloop"):
            add("GET", path, self._healthz)
        add("GET", "/pods", self._pods)
        for path in ("/runningpods", "/runningpods/"):
            add("GET", path, self._running_pods)
        add("GET", "/stats/summary", self._summary)
        add("POST", "/stats/summary", self._summary)
        for path in METRICS:
            add("GET", path, self._metrics)
        add("GET", "/configz", self._configz)
        add("GET", "/logs{rest:(/.*)?}", self._logs)
        add("POST", "/checkpoint/{namespace}/{pod}/{container}", self._checkpoint)
        add("*", "/debug/pprof{rest:(/.*)?}", _disabled("profiling endpoint is disabled."))
        add("*", "/debug/flags{rest:(/.*)?}", _disabled("flags endpoint is disabled."))

    async def _healthz(self, request: web.Request) -> web.StreamResponse:
        problem = self._views.stalled() if request.path in ("/healthz", "/healthz/syncloop") else ""
        if problem:
            raise Rejection(500, f"[+]ping ok\n[+]log ok\n[-]syncloop failed: {problem}\nhealthz check failed\n")
        verbose = "verbose" in request.query
        return web.Response(text="[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n" if verbose else "ok")

    async def _pods(self, _request: web.Request) -> web.StreamResponse:
        return _json(self._views.pods())

    async def _running_pods(self, _request: web.Request) -> web.StreamResponse:
        return _json(self._views.running_pods())

    async def _configz(self, _request: web.Request) -> web.StreamResponse:
        return _json(self._views.configz())

    async def _summary(self, request: web.Request) -> web.StreamResponse:
        asked = request.query.get("only_cpu_and_memory", "")
        if asked not in _TRUE | _FALSE:
            raise Rejection(400, "parse only_cpu_and_memory failed: it must be true or false")
        return _json(await self._views.summary(only_cpu_and_memory=asked in _TRUE))

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        text = await self._views.metrics[request.path]()
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        return await serve_node_logs(request, self._views.hosts(), self._backend)

    async def _checkpoint(self, request: web.Request) -> web.StreamResponse:
        target = self._lookup(request.match_info["namespace"], request.match_info["pod"])
        if target is None:
            raise Rejection(404, "pod does not exist")
        container = request.match_info["container"]
        if not target.has(container):
            raise Rejection(404, f"container {container} does not exist")
        name = f"{target.pod.namespace}/{target.pod.name}/{container}"
        raise Unsupported(f"checkpointing of {name} failed (systemd-nspawn can't write down a running container)")


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _disabled(text: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(_request: web.Request) -> web.StreamResponse:
        raise Rejection(405, f"{text}\n")

    return refuse
