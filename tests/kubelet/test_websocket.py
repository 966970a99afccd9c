"""vknix.kubelet.websocket, with a client that is gone."""

import asyncio

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.kubelet.test_forward import vanish
from tests.kubelet.test_websocket_exec import transport_of
from vknix.kubelet.websocket import WebSocket


async def test_whoever_waits_for_room_hears_of_no_error_when_the_client_vanishes() -> None:
    served: asyncio.Future[WebSocket] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        socket = WebSocket("")
        await socket.start(request)
        served.set_result(socket)
        await over.wait()
        return socket.response

    app = web.Application()
    app.router.add_get("/", serve)
    async with TestServer(app) as server, aiohttp.ClientSession() as http, http.ws_connect(server.make_url("/")) as client:
        socket = await served
        transport_of(client).pause_reading()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(socket.send(bytes(16 << 20)))  # more than sockets hold
            while socket.transport.get_write_buffer_size() == 0:  # noqa: ASYNC110  # there is nothing to wait on
                await asyncio.sleep(0)
            assert not sending.done()
            vanish(transport_of(client))
        over.set()
