"""Odd requests and odd sessions, over real TLS: always a clear answer, nothing in the log, and the server goes on.

`scripts/bench fuzz` tries far more of the same.
"""

import asyncio
import re
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.kubelet.routes import METHODS, routes
from tests.kubelet.world import Kubelet
from tests.unit.test_fuzz_framers import Step, steps, wire
from vknix.kubelet import server

fuzzed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

ANSWER_S = 20.0
ODD_S = 0.5  # what has no answer by then counts as having none
MAX_ANSWER = 16 * 1024
# What a kubelet, too, answers so: the request is right, and what it asks for can't be had.
NO_FAULT_OF_THE_REQUEST = re.compile(
    r'container not found \("|this node does not support|checkpointing of .* failed|is not running|executable file not found'
)

ROUTES = routes()
NAMED = {"namespace": "ns", "pod": "p", "container": "c", "uid": "x"}
odd_text = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        (
            "..",
            ".",
            "",
            "%00",
            "%2e%2e%2f",
            "%",
            "%zz",
            "%ff%fe",
            "a" * 2000,
            "ns",
            "p",
            "c",
            "ü",
            "\udcff\udcfe",
            "\t",
            "a;b",
            "//",
        )
    ),
)
segments = st.lists(odd_text, max_size=5).map(lambda parts: "/" + "/".join(parts))
names = st.sampled_from(
    (
        *("input", "output", "error", "tty", "command", "port", "ports", "cmd", "only_cpu_and_memory", "verbose", "query"),
        *("follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream", "boot", "pattern"),
    )
)
values = st.one_of(
    st.sampled_from(("1", "0", "true", "-1", "9" * 30, "1e9", "NaN", "2026-01-01T00:00:00Z", "9999-99-99T99:99:99Z", "80,x", "")),
    odd_text,
)
queries = st.lists(st.tuples(names, values), max_size=5)
UPGRADES = ("Upgrade", "websocket", "SPDY/3.1", "spdy/3.1, websocket", "h2c", "")
PROTOCOLS = ("v5.channel.k8s.io", "v4.base64.channel.k8s.io", "portforward.k8s.io", "SPDY/3.1+portforward.k8s.io", "x", ", ,", "")
headers = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("Connection", "Upgrade")), st.sampled_from(UPGRADES)),
        st.tuples(st.sampled_from(("X-Stream-Protocol-Version", "Sec-WebSocket-Protocol")), st.sampled_from(PROTOCOLS)),
        st.tuples(st.sampled_from(("Sec-WebSocket-Key", "Sec-WebSocket-Version")), st.sampled_from(("13", "8", "AAAA", "=", ""))),
        st.tuples(st.sampled_from(("Content-Length", "Transfer-Encoding")), st.sampled_from(("0", "-1", "5", "x", "chunked"))),
        st.tuples(st.sampled_from(("Expect", "Range", "Host", "Cookie", "Accept-Encoding")), odd_text),
        st.tuples(st.text("abc-_ :(", min_size=1, max_size=8), odd_text),
    ),
    max_size=6,
)
methods = st.one_of(st.sampled_from((*METHODS, "HEAD", "OPTIONS", "TRACE", "CONNECT", "PRI", "get")), st.text(max_size=6))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str


@asynccontextmanager
async def connected(kubelet: Kubelet) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", kubelet.port, ssl=kubelet.client)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer(kubelet: Kubelet, sent: bytes, *, within_s: float = ANSWER_S) -> Answer | None:
    """What comes first; None where the server closes without a word, or says nothing: it may wait for more of the request."""
    async with connected(kubelet) as (reader, writer):
        writer.write(sent)
        try:
            async with asyncio.timeout(within_s):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return None
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        status = re.match(rb"HTTP/1\.[01] (\d{3}) ", head)
        assert status is not None, head
        length = re.search(rb"(?i)content-length: (\d+)", head)
        body = b""
        if length is not None and not sent.startswith(b"HEAD"):
            async with asyncio.timeout(ANSWER_S):
                body = await reader.readexactly(int(length[1]))
        return Answer(int(status[1]), body.decode(errors="replace"))


async def lives(kubelet: Kubelet) -> None:
    good = await answer(kubelet, b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
    assert good == Answer(200, "ok")


def request(method: str, path: str, query: Iterable[tuple[str, str]], of: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """As it is: what is not escaped stays so."""
    asked = "&".join(f"{name}={value}" for name, value in query)
    of = list(of)
    of += [] if any(name == "Host" for name, _ in of) else [("Host", "node")]
    lines = [f"{method} {path}{'?' + asked if asked else ''} HTTP/1.1", *(f"{name}: {value}" for name, value in of)]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def check(told: Answer | None) -> None:
    """Nothing, where the request had no end; else a status that says whose fault it is, in few words."""
    if told is None or told.status < 400:
        return
    assert len(told.text) <= MAX_ANSWER
    assert "Traceback" not in told.text
    assert told.status < 500 or (told.status in (500, 501, 503) and NO_FAULT_OF_THE_REQUEST.search(told.text)), told


@fuzzed
@given(st.sampled_from(ROUTES), methods, queries, headers, st.binary(max_size=40))
@example(
    ("GET", "/exec/ns/p/c"), "GET", [("output", "1")], [("Host", "n"), ("Connection", "Upgrade"), ("Upgrade", "websocket")], b""
)
@example(("GET", "/exec/ns/p/c"), "POST", [("output", "1")], [("Host", "n"), ("Content-Length", "5")], b"x")
@example(("GET", "/logs/"), "GET", [("query", "\udcff"), ("pattern", "\udcff")], [], b"")
@example(("GET", "/run/ns/p/c"), "POST", [("cmd", "\udcff")], [], b"")
@example(("GET", "/run/ns/p/c"), "POST", [("cmd", "echo%20%00%ff")], [], b"")
@example(("GET", "/run/ns/p/c"), "POST", [("cmd", "")], [], b"")
async def test_each_route_survives_odd_requests(
    kubelet: Kubelet,
    route: tuple[str, str],
    method: str,
    query: list[tuple[str, str]],
    of: list[tuple[str, str]],
    body: bytes,
) -> None:
    path = re.sub(
        r"/(namespace|pod|container|uid)", lambda match: {"n": "/ns", "p": "/p", "c": "/c", "u": "/x"}[match[1][0]], route[1]
    )
    check(await answer(kubelet, request(method or route[0], path, query, of, body), within_s=ODD_S))
    await lives(kubelet)


@fuzzed
@given(st.sampled_from(METHODS), st.sampled_from(ROUTES), segments, queries)
async def test_odd_paths_are_not_found_or_refused(
    kubelet: Kubelet, method: str, route: tuple[str, str], tail: str, query: list[tuple[str, str]]
) -> None:
    first = "/" + route[1].split("/")[1]
    for path in (first + tail, tail):
        check(await answer(kubelet, request(method, path, query, [], b""), within_s=ODD_S))
    await lives(kubelet)


@fuzzed
@given(st.binary(max_size=300))
@example(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n")
@example(b"GET /" + b"a" * (2 << 20) + b" HTTP/1.1\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nX: " + b"a" * (2 << 20) + b"\r\n\r\n")
@example(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
@example(b"\x16\x03\x01\x02\x00")
async def test_what_is_no_http_is_refused(kubelet: Kubelet, sent: bytes) -> None:
    told = await answer(kubelet, sent + b"\r\n\r\n", within_s=ODD_S)
    assert told is None or 400 <= told.status < 500
    await lives(kubelet)


BIG = [
    pytest.param(b"GET /" + b"a" * (2 << 20) + b" HTTP/1.1\r\nHost: n\r\n\r\n", id="a-path-of-2-MiB"),
    pytest.param(b"GET /pods HTTP/1.1\r\nHost: n\r\nX: " + b"a" * 8200 + b"\r\n\r\n", id="a-header-of-8200-bytes"),
    pytest.param(b"GET /pods HTTP/1.1\r\nHost: n\r\n" + b"X: y\r\n" * 129 + b"\r\n", id="129-headers-more"),
    pytest.param(b"GET /pods HTTP/1.1\r\nHost: n\r\nX: " + b"a" * (2 << 20) + b"\r\n\r\n", id="a-header-of-2-MiB"),
    pytest.param(b"GET /pods HTTP/1.1\r\nHost: n\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", id="a-hundred-thousand-headers"),
]


@pytest.mark.parametrize("sent", BIG)
async def test_headers_have_a_limit(kubelet: Kubelet, sent: bytes) -> None:
    async with connected(kubelet) as (reader, writer):
        writer.write(sent)
        async with asyncio.timeout(ANSWER_S):
            try:
                said = await reader.read()
            except ConnectionError:  # it did not read on
                said = b"HTTP/1.1 400 "
    assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), said[:200]
    await lives(kubelet)


async def test_a_command_may_be_long(kubelet: Kubelet) -> None:
    """It is in the first line."""
    told = await answer(kubelet, request("POST", "/run/ns/p/c", [("cmd", "echo%20" + "a" * 900_000)], [], b""))
    assert told == Answer(200, "a" * 900_000 + "\n")


SPDY_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: n\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {name}\r\n\r\n"
)
SOCKET_HEAD = (
    "GET {path} HTTP/1.1\r\nHost: n\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {name}\r\n\r\n"
)
EXEC, ATTACH = "/exec/ns/p/c?input=1&output=1&error=1&command=cat", "/attach/ns/p/c?input=1&output=1&tty=1"
SESSIONS = [
    SPDY_HEAD.format(path=EXEC, name="v4.channel.k8s.io"),
    SPDY_HEAD.format(path=ATTACH, name="v3.channel.k8s.io"),
    SPDY_HEAD.format(path="/portForward/ns/p", name="portforward.k8s.io"),
]
SOCKETS = [
    SOCKET_HEAD.format(path=EXEC, name="v5.channel.k8s.io"),
    SOCKET_HEAD.format(path=EXEC, name="v4.base64.channel.k8s.io"),
    SOCKET_HEAD.format(path=ATTACH, name="channel.k8s.io"),
    SOCKET_HEAD.format(path="/portForward/ns/p", name="SPDY/3.1+portforward.k8s.io"),
    SOCKET_HEAD.format(path="/portForward/ns/p?port=7,9", name="v4.channel.k8s.io"),
]


def message(opcode: int, payload: bytes, *, first: int = 0x80, masked: bool = True) -> bytes:
    """A frame of a WebSocket client: its mask is zeros."""
    bit = 0x80 if masked else 0
    length = bytes((bit | len(payload),)) if len(payload) < 126 else bytes((bit | 126,)) + struct.pack("!H", len(payload))
    return bytes((first | opcode,)) + length + (bytes(4) if masked else b"") + payload


socket_messages = st.lists(
    st.one_of(
        st.builds(message, st.sampled_from((1, 2)), st.binary(max_size=200)),
        st.builds(message, st.integers(0, 15), st.binary(max_size=130)),
        st.builds(message, st.integers(0, 15), st.binary(max_size=8), first=st.sampled_from((0, 0x40, 0xF0)), masked=st.booleans()),
        st.binary(max_size=30),
    ),
    max_size=8,
).map(b"".join)


async def session(kubelet: Kubelet, head: str, sent: bytes) -> None:
    """Upgraded, fed, and left: what ran in it has ended soon after."""
    async with connected(kubelet) as (reader, writer):
        writer.write(head.encode())
        async with asyncio.timeout(ANSWER_S):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            writer.write(sent)
            try:
                async with asyncio.timeout(0.02):
                    while await reader.read(1 << 16):
                        pass
            except (TimeoutError, ConnectionError):
                pass
    async with asyncio.timeout(ANSWER_S):
        while kubelet.provider.running:  # noqa: ASYNC110 - the programs tell nobody
            await asyncio.sleep(0.005)


@fuzzed
@given(st.sampled_from(SESSIONS), steps)
async def test_spdy_sessions_survive_any_frames(kubelet: Kubelet, head: str, of: list[Step]) -> None:
    await session(kubelet, head, wire(of))
    await lives(kubelet)


@fuzzed
@given(st.sampled_from(SOCKETS), socket_messages)
async def test_websocket_sessions_survive_any_messages(kubelet: Kubelet, head: str, sent: bytes) -> None:
    await session(kubelet, head, sent)
    await lives(kubelet)


SLOW = [
    pytest.param(b"", id="says-nothing"),
    pytest.param(b"GET /healthz HTTP/1.1\r\nHost: no", id="half-a-head"),
    pytest.param(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n", id="never-asks-again"),
    pytest.param(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\nGET /hea", id="half-a-second-request"),
]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_KEEP_ALIVE_S", 0.3)
    monkeypatch.setattr("asyncio.constants.SSL_HANDSHAKE_TIMEOUT", 0.3)


@pytest.mark.parametrize("sent", SLOW)
async def test_a_slow_client_is_dropped(impatient: None, kubelet: Kubelet, sent: bytes) -> None:
    async with connected(kubelet) as (reader, writer):
        writer.write(sent)
        async with asyncio.timeout(ANSWER_S):
            assert (await reader.read()).count(b"HTTP/1.1 200 OK") == sent.count(b"\r\n\r\n")
    await lives(kubelet)


async def test_a_client_that_does_not_even_shake_hands_is_dropped(impatient: None, kubelet: Kubelet) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", kubelet.port)
    try:
        async with asyncio.timeout(ANSWER_S):
            assert await reader.read() == b""
    finally:
        writer.transport.abort()
    await lives(kubelet)
