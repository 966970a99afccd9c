"""Who may call what, and what each route answers."""

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.kubelet.routes import routes
from tests.kubelet.world import Kubelet
from vknix.errors import NotFound, Refused, Unreachable
from vknix.kubelet.auth import User
from vknix.provider import JournalQuery, LogOptions

ROUTES = routes()
every_route = pytest.mark.parametrize(("method", "route"), ROUTES, ids=[" ".join(each) for each in ROUTES])


@pytest.fixture
async def stranger(kubelet: Kubelet) -> Any:
    connector = aiohttp.TCPConnector(ssl=kubelet.anonymous, force_close=True)
    async with aiohttp.ClientSession(kubelet.url(""), connector=connector) as session:
        yield session


@every_route
async def test_no_route_without_a_user(kubelet: Kubelet, stranger: aiohttp.ClientSession, method: str, route: str) -> None:
    for headers in ({}, {"Authorization": "Bearer bad"}, {"Authorization": "Basic Z29vZDo="}):
        async with stranger.request(method, route, headers=headers) as answer:
            assert (answer.status, await answer.text()) == (401, "Unauthorized")
    assert kubelet.asked == []


@every_route
async def test_no_route_without_permission(kubelet: Kubelet, http: aiohttp.ClientSession, method: str, route: str) -> None:
    kubelet.allowed = frozenset()
    async with http.request(method, route) as answer:
        assert answer.status == 403
        assert (await answer.text()).startswith("Forbidden (user=apiserver, verb=")
    assert kubelet.provider.asked == []


SUBRESOURCES = {
    "healthz": {"healthz", "proxy"},
    "pods": {"pods", "proxy"},
    "runningpods": {"pods", "proxy"},
    "configz": {"configz", "proxy"},
    "stats": {"stats"},
    "metrics": {"metrics"},
    "logs": {"log"},
    "checkpoint": {"checkpoint"},
}


@every_route
async def test_each_route_needs_a_right_of_its_own(kubelet: Kubelet, http: aiohttp.ClientSession, method: str, route: str) -> None:
    """By the kubelet's table; what runs something needs `create`, whatever its method."""
    first = route.split("/")[1].partition("?")[0]
    verbs = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    verb = "create" if first in ("exec", "attach", "run", "portForward") else verbs[method]
    for subresource in ("healthz", "pods", "configz", "stats", "metrics", "log", "checkpoint", "proxy"):
        kubelet.allowed = frozenset({(verb, subresource)})
        async with http.request(method, route) as answer:
            may = subresource in SUBRESOURCES.get(first, {"proxy"})
            assert (answer.status == 403) != may, subresource


@pytest.mark.parametrize("headers", [{}, {"Authorization": ""}])
async def test_a_stranger_is_anonymous_where_the_configuration_says_so(
    kubelet: Kubelet, stranger: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    kubelet.guard.anonymous = True
    kubelet.allowed = frozenset({("get", "stats")})
    async with stranger.get("/stats/summary", headers=headers) as answer:
        assert answer.status == 200
    assert kubelet.asked[-1] == User("system:anonymous", ("system:unauthenticated",))
    async with stranger.get("/pods", headers=headers) as answer:
        assert answer.status == 403
    async with stranger.get("/stats/summary", headers={"Authorization": "Bearer bad"}) as answer:
        assert answer.status == 401


async def test_a_token_is_as_good_as_a_certificate(stranger: aiohttp.ClientSession) -> None:
    async with stranger.get("/healthz", headers={"Authorization": "Bearer good"}) as answer:
        assert (answer.status, await answer.text()) == (200, "ok")


ANSWERS: list[Any] = [
    pytest.param("GET", "/healthz?verbose", 200, "healthz check passed", id="healthz-verbose"),
    pytest.param("GET", "/pods", 200, '{"kind":"PodList","items":[]}', id="pods"),
    pytest.param("GET", "/attach/ns/p/c", 400, "you must specify at least 1 of stdin, stdout, stderr", id="attach-nothing"),
    pytest.param("GET", "/attach/ns/p/c?output=1", 400, "missing upgrade headers in request", id="attach-without-upgrade"),
    pytest.param("POST", "/exec/ns/p/c?output=1&command=a%00b", 400, "NUL character", id="exec-of-a-nul"),
    pytest.param("POST", "/run/ns/p/c?cmd=a%20%00", 400, "NUL character", id="run-of-a-nul"),
    pytest.param("POST", "/attach/ns/q/c?output=1", 404, "pod does not exist", id="attach-unknown-pod"),
    pytest.param("POST", "/attach/ns/p/d?output=1", 500, 'container not found ("d")', id="attach-unknown-container"),
    pytest.param("POST", "/attach/ns/p/0-0/c?output=1", 500, 'container not found ("c")', id="attach-other-uid"),
    pytest.param("POST", "/run/ns/p/c?cmd=echo%20one%20%20two", 200, "one  two\n", id="run"),
    pytest.param("POST", "/run/ns/p/c?cmd=both", 200, "to stdoutto stderr", id="run-both"),
    pytest.param("POST", "/run/ns/p/c?cmd=cat", 200, "", id="run-without-input"),
    pytest.param("POST", "/run/ns/p/c?cmd=exit+7", 500, "command 'exit 7' exited with 7: ", id="run-code"),
    pytest.param("POST", "/run/ns/p/c", 500, "executable file not found in $PATH", id="run-nothing"),
    pytest.param("POST", "/run/ns/p/c?cmd=pour+20000000", 500, "the command writes more than 16 MiB: use exec", id="run-much"),
    pytest.param("POST", "/run/ns/p/c?cmd=vanish", 503, "host red does not answer", id="run-lost"),
    pytest.param("POST", "/run/ns/q/c?cmd=cat", 404, "pod does not exist", id="run-unknown-pod"),
    pytest.param("POST", "/run/ns/p/0-0/c?cmd=cat", 500, 'container not found ("c")', id="run-other-uid"),
    pytest.param("POST", "/run/ns/p/stopped?cmd=cat", 500, 'container not found ("stopped")', id="run-stopped"),
    pytest.param("GET", "/run/ns/p/c?cmd=cat", 405, "", id="run-by-get"),
    pytest.param("GET", "/runningpods/", 200, '"runs"', id="running-pods"),
    pytest.param("GET", "/configz", 200, '{"kubeletconfig":{}}', id="configz"),
    pytest.param("GET", "/stats/summary", 200, '"brief": false', id="summary"),
    pytest.param("POST", "/stats/summary?only_cpu_and_memory=true", 200, '"brief": true', id="summary-brief"),
    pytest.param("GET", "/stats/summary?only_cpu_and_memory=perhaps", 400, "only_cpu_and_memory", id="summary-odd"),
    pytest.param("GET", "/metrics/resource", 200, "up 1\n", id="metrics"),
    pytest.param("GET", "/logs/", 200, '<a href="red/">red/</a>\n<a href="blue/">blue/</a>', id="hosts-with-logs"),
    pytest.param("GET", "/logs", 200, '<a href="red/">', id="hosts-with-logs-without-slash"),
    pytest.param("GET", "/logs/red/", 200, '<a href="journal">', id="a-host-s-logs"),
    pytest.param("GET", "/logs/green/", 404, "404 page not found", id="no-such-host"),
    pytest.param("GET", "/logs/red/messages", 404, "404 page not found", id="no-such-log"),
    pytest.param("GET", "/logs/?query=", 400, "query: Invalid value", id="journal-no-unit"),
    pytest.param("GET", "/logs/?sinceTime=now&query=a", 400, '"now": invalid time format', id="journal-when"),
    pytest.param("GET", "/logs/?tailLines=1", 406, "query: Required value: cannot be empty", id="journal-options-alone"),
    pytest.param("GET", "/logs/?query=/etc/shadow", 406, "serves the journals of its hosts, and no files", id="journal-a-file"),
    pytest.param("GET", "/logs/?query=a%20b", 406, "unsupported characters", id="journal-odd-unit"),
    pytest.param("GET", "/logs/?query=a&boot=1", 406, "boot: Invalid value: 1: must be less than 1", id="journal-next-boot"),
    pytest.param("GET", "/logs/?query=a&tailLines=100001", 406, "must be between 0 and 100000", id="journal-too-many"),
    pytest.param("GET", "/logs/?query=a&query=b&query=c&query=d&query=e", 406, "query: Too many: 5", id="journal-too-many-units"),
    pytest.param("GET", "/logs/red/?query=a", 406, "path not allowed in query mode", id="journal-path-and-query"),
    pytest.param("POST", "/checkpoint/ns/q/c", 404, "pod does not exist", id="checkpoint-no-pod"),
    pytest.param("POST", "/checkpoint/ns/p/d", 404, "container d does not exist", id="checkpoint-no-container"),
    pytest.param("POST", "/checkpoint/ns/p/c", 501, "checkpointing of ns/p/c failed", id="checkpoint"),
    pytest.param("GET", "/debug/pprof/heap", 405, "profiling endpoint is disabled.", id="profile"),
    pytest.param("PUT", "/debug/flags/v", 405, "flags endpoint is disabled.", id="flags"),
    pytest.param("GET", "/unknown", 404, "Not Found", id="unknown"),
    pytest.param("DELETE", "/pods", 405, "Not Allowed", id="wrong-method"),
    pytest.param("GET", "/exec/ns/p/c?output=1", 400, "missing upgrade headers in request", id="exec-without-upgrade"),
    pytest.param("GET", "/containerLogs/", 400, '{"message": "Missing podID."}', id="logs-no-pod"),
    pytest.param("GET", "/containerLogs/ns/p", 400, '{"message": "Missing container name."}', id="logs-no-container"),
    pytest.param("GET", "/containerLogs//p/c", 400, '{"message": "Missing podNamespace."}', id="logs-no-namespace"),
    pytest.param("GET", "/containerLogs/ns/p/c/d", 404, "Not Found", id="logs-too-long"),
    pytest.param("GET", "/containerLogs/ns/q/c", 404, 'pod "q" does not exist', id="logs-unknown-pod"),
    pytest.param("GET", "/containerLogs/ns/p/d", 404, 'container "d" not found in pod "p"', id="logs-unknown-container"),
    pytest.param("GET", "/containerLogs/ns/p/c?tailLines=x", 400, "Unable to decode query", id="logs-undecodable"),
    pytest.param("GET", "/containerLogs/ns/p/c?limitBytes=0", 422, "Invalid request", id="logs-invalid"),
    pytest.param("GET", "/containerLogs/ns/p/c?stream=Stderr", 400, "PodLogsQuerySplitStreams", id="logs-one-stream"),
    pytest.param("GET", "/containerLogs/ns/p/c?previous=true", 400, "previous terminated container", id="logs-no-previous"),
]


@pytest.mark.parametrize(("method", "route", "status", "text"), ANSWERS)
async def test_each_route_answers_as_a_kubelet(
    http: aiohttp.ClientSession, method: str, route: str, status: int, text: str
) -> None:
    async with http.request(method, route) as answer:
        body = await answer.text()
        assert answer.status == status
        assert text in body


async def test_a_stalled_loop_fails_the_health_check(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    kubelet.stalled = "last seen 6 minutes ago"
    for route, status in (("/healthz", 500), ("/healthz/syncloop", 500), ("/healthz/ping", 200)):
        async with http.get(route) as answer:
            assert answer.status == status


async def test_logs_come_as_the_backend_sends_them(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    kubelet.provider.lines = (b"one\n", b"\x00\xff binary\n", b"x" * 1_000_000)
    async with http.get("/containerLogs/ns/p/c?tailLines=3&timestamps=true&limitBytes=99") as answer:
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert answer.content_type == "text/plain"
        assert await answer.read() == b"one\n\x00\xff binary\n" + b"x" * 1_000_000
    assert kubelet.provider.asked == [LogOptions(0, timestamps=True, tail_lines=3, limit_bytes=99)]


async def test_a_follower_has_headers_before_the_first_line_and_leaves_nothing(
    kubelet: Kubelet, http: aiohttp.ClientSession
) -> None:
    async with asyncio.timeout(2):
        async with http.get("/containerLogs/ns/p/c?follow=true") as answer:
            assert answer.status == 200
        await kubelet.provider.cancelled.wait()


@pytest.mark.parametrize(
    ("error", "status"),
    [pytest.param(Unreachable("host red is lost"), 503, id="lost"), pytest.param(NotFound("no such log"), 404, id="gone")],
)
async def test_a_log_that_fails_at_once_is_a_status(
    kubelet: Kubelet, http: aiohttp.ClientSession, error: Exception, status: int
) -> None:
    kubelet.provider.lines = (error,)
    async with http.get("/containerLogs/ns/p/c") as answer:
        assert (answer.status, await answer.text()) == (status, str(error))


async def test_a_log_that_breaks_off_does_not_look_complete(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    kubelet.provider.lines = (b"one\n", Unreachable("host red is lost"))
    async with http.get("/containerLogs/ns/p/c") as answer:
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_the_journals_of_all_hosts_come_in_turn(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    kubelet.provider.journals = {"red": b"red said\n", "blue": b"blue said\n"}
    async with http.get("/logs/?query=sshd&query=nix-daemon&tailLines=5&sinceTime=2026-01-01T00:00:00Z&pattern=x%20y") as answer:
        assert (answer.status, await answer.text()) == (200, "red said\nblue said\n")
    asked = JournalQuery(("sshd", "nix-daemon"), since=1767225600.0, tail_lines=5, pattern="x y", boot=0)
    assert kubelet.provider.asked == [asked, asked]
    async with http.get("/logs/blue/journal?boot=-1") as answer:
        assert await answer.text() == "blue said\n"
    assert kubelet.provider.asked[2:] == [JournalQuery(boot=-1)]


async def test_a_host_without_an_answer_does_not_hide_the_others(kubelet: Kubelet, http: aiohttp.ClientSession) -> None:
    kubelet.provider.journals = {"red": Unreachable("host red is lost"), "blue": b"blue said\n"}
    async with http.get("/logs/?query=sshd") as answer:
        assert (answer.status, await answer.text()) == (200, "blue said\n\nhost red is lost\n")
    async with http.get("/logs/red/journal") as answer:
        assert (answer.status, await answer.text()) == (503, "host red is lost")
    kubelet.provider.journals = {"red": Refused("", "no such pattern")}
    async with http.get("/logs/?query=sshd&pattern=(") as answer:
        assert answer.status == 400
