"""A port-forward request before its upgrade, and its session: by SPDY/3.1, by SPDY in a WebSocket, or by a WebSocket's channels."""

import asyncio
from collections.abc import Awaitable

from aiohttp import web

from vknix.kubelet.forwarding import Forwarder, asked_ports
from vknix.kubelet.peer import watch_peer
from vknix.kubelet.spdy_forward import PROTOCOL, SpdyForward
from vknix.kubelet.target import Backend, Rejection, Target
from vknix.kubelet.upgrade import UNKNOWN_WEBSOCKET, WEBSOCKET_PROTOCOL, is_upgrade, listed, spdy_protocol
from vknix.kubelet.websocket_forward import PROTOCOLS, serve_channels
from vknix.kubelet.wire import Taken, Tunnel

TUNNEL = f"SPDY/3.1+{PROTOCOL}"


async def serve_forward(request: web.Request, target: Target, backend: Backend) -> web.StreamResponse:
    """Refuses before the upgrade what can be refused; after it, each connection has its error stream."""
    websocket = is_upgrade(request, "websocket")
    offered = (listed(request, WEBSOCKET_PROTOCOL) or ("",)) if websocket else ()
    ports: tuple[int, ...] = ()
    if not websocket:
        spdy_protocol(request, (PROTOCOL,))
    elif TUNNEL not in offered:
        if not set(offered) & set(PROTOCOLS):
            raise Rejection(403, UNKNOWN_WEBSOCKET)
        ports = asked_ports(request.query.getall("port", ()))
    async with backend.localhost(target.pod.uid, target.network_on()) as localhost:
        forwarder = Forwarder(localhost, target.pod)
        if TUNNEL in offered:
            return await _serve_tunnel(request, forwarder)
        if websocket:
            return await serve_channels(request, next(name for name in offered if name in PROTOCOLS), ports, forwarder)
        return await _serve_spdy(request, forwarder)


async def _serve_spdy(request: web.Request, forwarder: Forwarder) -> web.StreamResponse:
    async with asyncio.TaskGroup() as tasks:
        session: SpdyForward
        wire = Taken(request, lambda data: session.receive(data))
        session = SpdyForward(wire, forwarder, tasks)
        wire.start(PROTOCOL)
        await _run(session, session.ended.wait(), tasks)
    return web.Response()  # goes nowhere: the connection is closed


async def _serve_tunnel(request: web.Request, forwarder: Forwarder) -> web.StreamResponse:
    async with asyncio.TaskGroup() as tasks:
        session: SpdyForward
        wire = Tunnel(TUNNEL, lambda data: session.receive(data))
        session = SpdyForward(wire, forwarder, tasks)
        await wire.socket.start(request)
        await _run(session, wire.run(), tasks)
        await wire.socket.response.close()
        wire.socket.close()
    return wire.socket.response


async def _run(session: SpdyForward, end: Awaitable[object], tasks: asyncio.TaskGroup) -> None:
    watch = tasks.create_task(watch_peer(session))
    try:
        await end
    finally:
        watch.cancel()
        session.close()
