"""An exec or attach request before its upgrade: its options, the protocol that both sides know, and then the carrier."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from vknix.kubelet import channels, spdy_carrier
from vknix.kubelet.channels import Channel, Failed, Outcome
from vknix.kubelet.spdy_carrier import serve_spdy
from vknix.kubelet.streams import ClientStreams, Run, run_attach, run_exec
from vknix.kubelet.target import Backend, Rejection, Target, words
from vknix.kubelet.websocket_carrier import serve_websocket
from vknix.provider import AttachRequest, ExecRequest

WEBSOCKET_PROTOCOL: Final = "Sec-WebSocket-Protocol"
UNKNOWN_WEBSOCKET: Final = "unable to upgrade: none of the WebSocket's subprotocols is known here"

_STREAM_PROTOCOL = "X-Stream-Protocol-Version"
_ACCEPTED = "X-Accepted-Stream-Protocol-Versions"


@dataclass(frozen=True, slots=True)
class Options:
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @property
    def channels(self) -> frozenset[Channel]:
        asked = ((self.stdin, Channel.STDIN), (self.stdout, Channel.STDOUT), (self.stderr, Channel.STDERR))
        return frozenset(channel for is_asked, channel in asked if is_asked)


def options(query: Mapping[str, str]) -> Options:
    """A terminal has no stderr of its own."""
    stdin, stdout, stderr, tty = (query.get(name) == "1" for name in ("input", "output", "error", "tty"))
    if not (stdin or stdout or (stderr and not tty)):
        raise Rejection(400, "you must specify at least 1 of stdin, stdout, stderr")
    return Options(stdin, stdout, stderr and not tty, tty)


async def serve_exec(request: web.Request, target: Target, container: str, wants: Options, backend: Backend) -> web.StreamResponse:
    """Refuses before the upgrade what can be refused; after it, the error channel says all."""
    host = target.running_on(container)
    argv = words(request.query.getall("command", ()))
    command = ExecRequest(target.pod.uid, container, argv, wants.stdin, wants.stdout, wants.stderr, wants.tty)

    async def run(streams: ClientStreams) -> Outcome:
        return await run_exec(backend, command, host, streams) if argv else Failed("no command was given")

    return await _serve(request, wants, run)


async def serve_attach(
    request: web.Request, target: Target, container: str, wants: Options, backend: Backend
) -> web.StreamResponse:
    """The same; whether there is a terminal is the container's affair, and `tty` only says how the client speaks."""
    host = target.running_on(container)
    asked = AttachRequest(target.pod.uid, container, wants.stdin)

    async def run(streams: ClientStreams) -> Outcome:
        return await run_attach(backend, asked, host, streams)

    return await _serve(request, wants, run)


async def _serve(request: web.Request, wants: Options, run: Run) -> web.StreamResponse:
    if is_upgrade(request, "websocket"):
        protocol = channels.choose(listed(request, WEBSOCKET_PROTOCOL))
        if protocol is None:
            raise Rejection(403, UNKNOWN_WEBSOCKET)
        return await serve_websocket(request, protocol, wants.channels, run)
    name = spdy_protocol(request, spdy_carrier.PROTOCOLS)
    return await serve_spdy(request, name, _spdy_channels(name, wants), run)


def spdy_protocol(request: web.Request, known: tuple[str, ...]) -> str:
    """The client's first that is `known`; Rejection where there is none."""
    if not is_upgrade(request, "spdy/3.1"):
        raise Rejection(400, "unable to upgrade: missing upgrade headers in request: it needs a WebSocket or SPDY/3.1")
    offered = listed(request, _STREAM_PROTOCOL)
    if not offered:
        count = len(request.headers)
        raise Rejection(400, f"unable to upgrade: header {_STREAM_PROTOCOL} does not exist in request with {count} headers")
    chosen = next((name for name in offered if name in known), None)
    if chosen is None:
        text = f"unable to upgrade: the client supports {', '.join(offered)}, this server {', '.join(known)}"
        raise Rejection(403, text, tuple((_ACCEPTED, name) for name in known))
    return chosen


def _spdy_channels(protocol: str, wants: Options) -> frozenset[Channel]:
    """The streams that the client opens; only those from v3 on have one for the size of the terminal."""
    resizes = wants.tty and protocol in ("v4.channel.k8s.io", "v3.channel.k8s.io")
    return wants.channels | {Channel.ERROR} | ({Channel.RESIZE} if resizes else set())


def is_upgrade(request: web.Request, protocol: str) -> bool:
    connection = (token.lower() for token in listed(request, "Connection"))
    return "upgrade" in connection and request.headers.get("Upgrade", "").lower() == protocol


def listed(request: web.Request, header: str) -> tuple[str, ...]:
    """A header that may be repeated, or hold a comma list."""
    lines: Iterable[str] = request.headers.getall(header, ())
    return tuple(name.strip() for line in lines for name in line.split(",") if name.strip())
