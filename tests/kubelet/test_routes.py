"""Who may call what, and what each route answers."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kubelet.pki import Authority
from tests.kubelet.world import Keys, Kubelet
from vknix.errors import NotFound, Unreachable
from vknix.provider import LogOptions

ROUTES = (
    "/healthz",
    "/healthz/ping",
    "/healthz/log",
    "/healthz/syncloop",
    "/pods",
    "/containerLogs/ns/p/c",
    "/exec/ns/p/c?output=1",
    "/exec/ns/p/uid/c?output=1",
    "/attach/ns/p/c",
    "/portForward/ns/p",
    "/run/ns/p/c",
    "/unknown",
)


@pytest.fixture
async def stranger(kubelet: Kubelet) -> Any:
    connector = aiohttp.TCPConnector(ssl=kubelet.anonymous, force_close=True)
    async with aiohttp.ClientSession(kubelet.url(""), connector=connector) as session:
        yield session


@pytest.mark.parametrize("route", ROUTES)
async def test_no_route_without_a_user(stranger: aiohttp.ClientSession, route: str) -> None:
    for headers in ({}, {"Authorization": "Bearer bad"}, {"Authorization": "Basic Z29vZDo="}):
        async with stranger.get(route, headers=headers) as answer:
            assert (answer.status, await answer.text()) == (401, "Unauthorized")


@pytest.mark.parametrize("route", ROUTES)
async def test_no_route_without_permission(kubelet: Kubelet, http: aiohttp.ClientSession, route: str) -> None:
    kubelet.forbidden.update(("proxy", "pods", "healthz"))
    async with http.get(route) as answer:
        assert answer.status == 403
        assert (await answer.text()).startswith("Forbidden (user=apiserver, verb=")


async def test_a_token_is_as_good_as_a_certificate(stranger: aiohttp.ClientSession) -> None:
    async with stranger.get("/healthz", headers={"Authorization": "Bearer good"}) as answer:
        assert (answer.status, await answer.text()) == (200, "ok")


async def test_a_certificate_of_another_authority_is_refused(kubelet: Kubelet, keys: Keys, tmp_path: Path) -> None:
    files = Authority(tmp_path, "stranger-ca").sign("apiserver", ("system:masters",))
    context = ssl.create_default_context(cafile=str(keys.authority.certificate))
    context.load_cert_chain(files.certificate, files.key)
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with aiohttp.ClientSession(kubelet.url(""), connector=connector) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get("/healthz")


ANSWERS: list[Any] = [
    pytest.param("GET", "/healthz?verbose", 200, "healthz check passed", id="healthz-verbose"),
    pytest.param("GET", "/pods", 200, '{"kind":"PodList","items":[]}', id="pods"),
    pytest.param("GET", "/attach/ns/p/c", 400, "you must specify at least 1 of stdin, stdout, stderr", id="attach-nothing"),
    pytest.param("GET", "/attach/ns/p/c?output=1", 400, "missing upgrade headers in request", id="attach-without-upgrade"),
    pytest.param("POST", "/attach/ns/q/c?output=1", 404, "pod does not exist", id="attach-unknown-pod"),
    pytest.param("POST", "/attach/ns/p/d?output=1", 500, 'container not found ("d")', id="attach-unknown-container"),
    pytest.param("POST", "/attach/ns/p/0-0/c?output=1", 500, 'container not found ("c")', id="attach-other-uid"),
    pytest.param("POST", "/portForward/ns/p", 501, "does not support portForward yet", id="port-forward"),
    pytest.param("POST", "/run/ns/p/c", 501, "does not support run yet", id="run"),
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
