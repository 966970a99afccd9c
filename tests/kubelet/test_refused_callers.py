"""Who is refused, on every route: strangers, those whose certificate is another's or for something else, those without the right.

And no way of writing a path leads past the question that belongs to it.
"""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.kubelet.pki import Authority, Files
from tests.kubelet.routes import routes
from tests.kubelet.test_fuzz import ODD_S, Answer, answer
from tests.kubelet.world import Keys, Kubelet

ROUTES = routes()
MASTERS = ("system:masters",)
SPDY = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
SOCKET = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


def of_another(_keys: Keys, folder: Path) -> Files:
    return Authority(folder, "stranger-ca").sign("apiserver", MASTERS)


def of_its_namesake(_keys: Keys, folder: Path) -> Files:
    """An authority that calls itself as the cluster's does."""
    return Authority(folder, "lab-ca").sign("apiserver", MASTERS)


def of_the_past(keys: Keys, _folder: Path) -> Files:
    return keys.authority.sign("apiserver-of-old", MASTERS, ended=True)


def for_servers(keys: Keys, _folder: Path) -> Files:
    return keys.authority.sign("a-server", MASTERS, usage=ExtendedKeyUsageOID.SERVER_AUTH)


def for_code(keys: Keys, _folder: Path) -> Files:
    return keys.authority.sign("a-signer", MASTERS, usage=ExtendedKeyUsageOID.CODE_SIGNING)


Made = Callable[[Keys, Path], Files]
WRONG: tuple[Made, ...] = (of_another, of_its_namesake, of_the_past, for_servers, for_code)


@pytest.fixture(params=WRONG, ids=[made.__name__ for made in WRONG])
def wrongly_signed(request: pytest.FixtureRequest, keys: Keys, tmp_path: Path) -> ssl.SSLContext:
    files = request.param(keys, tmp_path)
    context = ssl.create_default_context(cafile=str(keys.authority.certificate))
    context.load_cert_chain(files.certificate, files.key)
    return context


async def test_no_route_by_a_wrong_certificate(kubelet: Kubelet, wrongly_signed: ssl.SSLContext) -> None:
    """TLS refuses it: no request is even read."""
    connector = aiohttp.TCPConnector(ssl=wrongly_signed, force_close=True)
    async with aiohttp.ClientSession(kubelet.url(""), connector=connector) as session:
        for method, route in ROUTES:
            with pytest.raises(aiohttp.ClientError):
                async with session.request(method, route, headers={"Authorization": "Bearer good"}):
                    pass
    assert kubelet.asked == []
    assert kubelet.provider.asked == []


def upgrading(method: str, path: str, headers: str, *, token: str = "") -> bytes:
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"{method} {path} HTTP/1.1\r\nHost: node\r\n{authorization}{headers}\r\n".encode()


QUERY = "?input=1&output=1&error=1&command=cat&port=7"


@pytest.mark.parametrize("headers", [pytest.param(SPDY, id="spdy"), pytest.param(SOCKET, id="websocket"), ""])
async def test_an_upgrade_is_refused_as_anything_else(kubelet: Kubelet, headers: str) -> None:
    """Without a user 401, without the right 403, and the answer comes instead of the upgrade."""
    known = kubelet.client
    for method, route in ROUTES:
        for token in ("", "bad"):
            kubelet.client = kubelet.anonymous
            told = await answer(kubelet, upgrading(method, route + QUERY, headers, token=token))
            assert told == Answer(401, "Unauthorized")
        kubelet.client, kubelet.allowed = known, frozenset()
        told = await answer(kubelet, upgrading(method, route + QUERY, headers))
        assert told is not None
        assert told.status == 403
    assert kubelet.provider.asked == []


RUNNERS = ("exec", "attach", "run", "portForward")
READER = frozenset(
    (verb, subresource)
    for verb in ("get", "update", "patch", "delete", "")
    for subresource in ("proxy", "stats", "metrics", "log", "pods", "healthz", "configz", "checkpoint", "statusz")
)
WRITTEN: tuple[Callable[[str], str], ...] = (
    lambda path: path,
    lambda path: "/" + path,
    lambda path: "/." + path,
    lambda path: "/x/.." + path,
    lambda path: "/metrics/.." + path,
    lambda path: "/%2e%2e" + path,
    lambda path: path.replace("/", "//"),
    lambda path: path.replace("/", "/./"),
    lambda path: "/" + path[1:].replace("/", "%2F"),
    lambda path: "/" + "".join(f"%{ord(letter):02x}" if letter != "/" else letter for letter in path[1:]),
    lambda path: "/" + path[1:].upper(),
    lambda path: path + "/",
    lambda path: path + "%00",
    lambda path: path + ";x",
    lambda path: "https://node" + path,
    lambda path: "https://node/metrics/.." + path,
)


@pytest.mark.parametrize("written", range(len(WRITTEN)))
async def test_who_may_not_create_runs_nothing_however_it_is_written(kubelet: Kubelet, written: int) -> None:
    """All verbs but `create`, on all subresources."""
    kubelet.allowed = READER
    for runner in RUNNERS:
        path = WRITTEN[written](f"/{runner}/ns/p{'/c' if runner != 'portForward' else ''}")
        for method, headers in (("GET", SOCKET), ("POST", SPDY), ("GET", SPDY), ("X", SOCKET), ("get", SOCKET), ("PUT", SPDY)):
            told = await answer(kubelet, upgrading(method, path + QUERY, headers), within_s=ODD_S)
            assert told is None or told.status in (400, 403, 404, 405), (path, told)
    assert kubelet.provider.asked == []
    assert kubelet.provider.running == 0


async def test_the_right_to_metrics_opens_nothing_else_however_it_is_written(kubelet: Kubelet) -> None:
    kubelet.allowed = frozenset({("get", "metrics")})
    assert await answer(kubelet, upgrading("GET", "/metrics", "")) == Answer(200, "up 1\n")
    for path in ("/pods", "/runningpods/", "/configz", "/stats/summary", "/logs/", "/containerLogs/ns/p/c", "/healthz"):
        for written in WRITTEN:
            told = await answer(kubelet, upgrading("GET", written(path), ""), within_s=ODD_S)
            assert told is None or told.status in (400, 403, 404, 405), (written(path), told)
    assert kubelet.provider.asked == []


async def test_it_is_created_by_those_who_may(kubelet: Kubelet) -> None:
    """The same requests, by one who has the right: what is refused above is refused for want of it."""
    kubelet.allowed = frozenset({("create", "proxy")})
    for method, headers in (("GET", SOCKET), ("POST", SPDY)):
        reader, writer = await asyncio.open_connection("127.0.0.1", kubelet.port, ssl=kubelet.client)
        try:
            writer.write(upgrading(method, f"/exec/ns/p/c{QUERY}", headers))
            async with asyncio.timeout(10):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        finally:
            writer.transport.abort()
