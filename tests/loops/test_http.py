"""vknix.loops.http and probing: what a probe makes of servers of all kinds, over real sockets of this machine."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.kubelet.pki import Authority
from vknix import __version__
from vknix.core.container import Container, Probe
from vknix.core.facts import HostName, Uid
from vknix.core.pod import Kind, Member
from vknix.errors import Refused, Unreachable
from vknix.fake.host import FakeHost
from vknix.fake.provider import FakeProvider
from vknix.loops import http
from vknix.loops.probing import Outcome, Subject, attempt
from vknix.provider import Connection

HERE = "127.0.0.1"
Serve = Callable[[str], bytes]  # a request's head -> all that is sent back; then the connection is closed


def answer(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Server:
    serve: Serve
    port: int = 0
    heads: list[str] = field(default_factory=list)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(self.serve(self.heads[-1]))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client did not want all of it
        finally:
            writer.close()


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    made = Server(serve)
    async with await asyncio.start_server(made.talk, HERE, 0, ssl=tls) as server:
        made.port = server.sockets[0].getsockname()[1]
        yield made


@dataclass
class Socket:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self, limit: int) -> bytes:
        return await self.reader.read(limit)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


class Loopback(FakeProvider):
    """Dials for real. `silent`: its host does not answer any more."""

    def __init__(self, *, silent: bool = False) -> None:
        super().__init__(FakeHost("red"))
        self.silent = silent

    @asynccontextmanager
    async def dial(self, uid: Uid, host: HostName, address: str, port: int) -> AsyncGenerator[Connection, None]:
        try:
            reader, writer = await asyncio.open_connection(address, port)
        except OSError as error:
            raise Refused("", f"dial tcp {address}:{port}: connection refused") from error
        try:
            yield Socket(reader, writer)
        finally:
            writer.close()

    async def answers(self, host: HostName) -> None:
        if self.silent:
            raise Unreachable("host red is not connected")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder: Path = tmp_path_factory.mktemp("pki")
    files = Authority(folder, "nobody-knows-it").sign("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


async def probe(how: dict[str, Any], *, silent: bool = False, **fields: Any) -> Outcome:
    main = Member("spec.containers[0]", Container(name="main"), Kind.REGULAR, "Always")
    of = Subject(Uid("u"), HostName("red"), main, HERE)
    return await attempt(Loopback(silent=silent), of, msgspec.convert({**how, **fields}, Probe))


async def get(port: int, path: str | None = "/", **action: Any) -> Outcome:
    return await probe({"httpGet": {"port": port, "path": path, **action}})


@pytest.mark.parametrize(
    ("status", "success"),
    [(200, True), (204, True), (301, True), (304, True), (399, True), (400, False), (404, False), (503, False)],
)
async def test_status_from_200_to_399_is_success(status: int, success: bool) -> None:
    async with serving(lambda _: answer(status)) as server:
        message = "" if success else f"HTTP probe failed with statuscode: {status}"
        assert await get(server.port) == Outcome(success, message)


async def test_request_is_the_kubelets() -> None:
    async with serving(lambda _: answer()) as server:
        await get(server.port, "/healthz?full=1")
    (head,) = server.heads
    assert head.startswith("GET /healthz?full=1 HTTP/1.1\r\n")
    lines = head.lower().splitlines()
    for line in (f"host: {HERE}:{server.port}", f"user-agent: kube-probe/{__version__}", "accept: */*", "connection: close"):
        assert lines.count(line) == 1


async def test_own_headers_take_the_place_of_the_usual_ones() -> None:
    mine = {"Host": "web.example", "User-Agent": "me", "accept": "text/plain", "X-Name": "Jürgen"}
    async with serving(lambda _: answer()) as server:
        assert (await get(server.port, httpHeaders=[{"name": name, "value": value} for name, value in mine.items()])).success
    lines = server.heads[0].lower().splitlines()
    assert {"host: web.example", "user-agent: me", "accept: text/plain", "x-name: jürgen"} <= set(lines)
    assert len([line for line in lines if line.startswith(("host:", "user-agent:", "accept:"))]) == 3


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (None, "/"),
        ("", "/"),
        ("ok", "/ok"),
        ("//elsewhere/x", "/elsewhere/x"),
        ("/a b", "/a%20b"),
        ("/ü?q=ü", "/%C3%BC?q=%C3%BC"),
        ("/%41", "/%41"),
    ],
)
async def test_path_never_leads_elsewhere(path: str | None, target: str) -> None:
    async with serving(lambda _: answer()) as server:
        assert (await get(server.port, path)).success
    assert server.heads[0].split()[1] == target


@pytest.mark.parametrize("scheme", ["HTTPS", "https"])
async def test_tls_is_spoken_and_no_certificate_verified(tls: ssl.SSLContext, scheme: str) -> None:
    async with serving(lambda _: answer(body=b"x" * 100_000), tls) as server:
        assert (await get(server.port, scheme=scheme)).success


async def test_redirect_on_the_same_host_is_followed(tls: ssl.SSLContext) -> None:
    async with (
        serving(lambda _: answer(404), tls) as last,
        serving(lambda _: answer(302, Location=f"https://{HERE}:{last.port}/x")) as first,
    ):
        assert await get(first.port) == Outcome(success=False, message="HTTP probe failed with statuscode: 404")
    assert last.heads[0].startswith("GET /x ")


async def test_relative_redirect_is_followed() -> None:
    async with serving(lambda head: answer() if " /b/d " in head else answer(307, Location="../b/d")) as server:
        assert (await get(server.port, "/a/c")).success
    assert [head.split()[1] for head in server.heads] == ["/a/c", "/b/d"]


async def test_redirect_to_another_host_is_success() -> None:
    async with serving(lambda _: answer(302, Location="http://elsewhere.example/")) as server:
        assert await get(server.port) == Outcome(success=True, message="Probe terminated redirects")


async def test_redirects_have_an_end() -> None:
    async with serving(lambda _: answer(302, Location="/again")) as server:
        assert await get(server.port) == Outcome(success=False, message="stopped after 10 redirects")
    assert len(server.heads) == 10


@pytest.mark.parametrize(
    "location",
    [f"http://{HERE}:99999/", "http://[::1/", f"ftp://{HERE}/", f"http://{HERE}:x/"],
    ids=["port", "bracket", "scheme", "no port"],
)
async def test_redirect_that_leads_nowhere_is_a_failure(location: str) -> None:
    async with serving(lambda _: answer(302, Location=location)) as server:
        outcome = await get(server.port)
    assert not outcome.success
    assert outcome.message


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 ",
        b"\x00\xff" * 9,
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
    ids=["nothing", "another protocol", "torn", "bytes", "bad header", "endless header"],
)
async def test_garbage_is_a_failure_with_words(sent: bytes) -> None:
    async with serving(lambda _: sent) as server:
        outcome = await get(server.port)
    assert not outcome.success
    assert outcome.message


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early\r\n\r\n" + answer(),
        answer(body=b"x" * 1_000_000),
    ],
    ids=["http 1.0", "chunks", "an early answer", "a large one"],
)
async def test_answers_of_all_shapes(sent: bytes) -> None:
    async with serving(lambda _: sent) as server:
        assert (await get(server.port)).success


async def test_answer_is_read_as_far_as_a_probe_shows_it() -> None:
    async with serving(lambda _: answer(body=b"x" * 1_000_000)) as server:
        reader, writer = await asyncio.open_connection(HERE, server.port)
        made = await http.get(Socket(reader, writer), "x", "/", [], tls=False)
        writer.close()
    assert (made.status, len(made.body)) == (200, 10 << 10)


async def test_plain_server_that_is_asked_for_tls_is_a_failure() -> None:
    async with serving(lambda _: answer()) as server:
        server.serve = lambda _: b"never"
        outcome = await probe({"httpGet": {"port": server.port, "scheme": "HTTPS"}}, timeoutSeconds=1)
    assert not outcome.success


@pytest.mark.parametrize("kind", ["httpGet", "tcpSocket"])
async def test_nobody_who_listens_is_a_failure(kind: str) -> None:
    async with serving(lambda _: b"") as server:
        port = server.port
    assert await probe({kind: {"port": port}}) == Outcome(success=False, message=f"dial tcp {HERE}:{port}: connection refused")


async def test_tcp_probe_only_connects() -> None:
    async with serving(lambda _: b"") as server:
        assert await probe({"tcpSocket": {"port": server.port}}) == Outcome(success=True)
        assert await probe({"tcpSocket": {"port": server.port, "host": "localhost"}}) == Outcome(success=True)


async def test_port_that_the_container_does_not_name_is_a_failure() -> None:
    assert (await probe({"tcpSocket": {"port": "web"}})).message == "couldn't find port 'web' of container main"


async def test_header_that_is_none_is_a_failure() -> None:
    async with serving(lambda _: answer()) as server:
        assert not (await get(server.port, httpHeaders=[{"name": "a b", "value": "c"}])).success
        assert not (await get(server.port, httpHeaders=[{"name": "a", "value": "b\r\nc: d"}])).success
    assert server.heads == []


@asynccontextmanager
async def mute() -> AsyncIterator[int]:
    """Accepts, and says nothing for as long as the block lasts."""
    over = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async with await asyncio.start_server(wait, HERE, 0) as server:
        yield server.sockets[0].getsockname()[1]
        over.set()


async def test_server_that_says_nothing_fails_in_time() -> None:
    async with mute() as port:
        assert await get(port) == Outcome(success=False, message="context deadline exceeded after 1s")


async def test_time_that_passed_on_a_host_that_is_silent_too_says_nothing() -> None:
    async with mute() as port:
        with pytest.raises(Unreachable):
            await probe({"httpGet": {"port": port}}, silent=True)
