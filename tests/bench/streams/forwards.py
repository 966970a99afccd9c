"""scripts/bench forward: connections to a Pod's port, against `ssh -L` to the same program over the same network."""

import asyncio
import os
import re
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp

from tests.bench.streams.ways import NAMESPACE, Figures, Pod, Ways, ways
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

PORT = 7000
TRIPS, CONNECTIONS = 500, 100
BARE, STRAIGHT = "bare: ssh -L", "straight to vknix"
MIB = 1 << 20
READ = 1 << 18


@dataclass(frozen=True, slots=True)
class Stream:
    """One connection, whatever carries it."""

    send: Callable[[bytes], Awaitable[None]]
    receive: Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Bench:
    ways: Ways
    pod: Pod
    rounds: int
    mib: int
    ports: dict[str, int]  # on which somebody listens here, by who

    @asynccontextmanager
    async def connection(self, who: str) -> AsyncIterator[Stream]:
        if who == STRAIGHT:
            async with self.ways.straight.websocket(self.pod, "portForward", [("port", str(PORT))], "v4.channel.k8s.io") as ws:
                await ws.receive_bytes()
                await ws.receive_bytes()
                yield Stream(lambda data: ws.send_bytes(b"\0" + data), lambda: _payload(ws))
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[who], limit=READ)

        async def send(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        try:
            yield Stream(send, lambda: reader.read(READ))
        finally:
            writer.transport.abort()

    async def latency(self) -> None:
        """A byte there and back, on a connection that is open; each in turn."""
        figures = Figures()
        async with AsyncExitStack() as stack:
            streams = {who: await stack.enter_async_context(self.connection(who)) for who in (BARE, STRAIGHT, *self.ports)}
            for stream in streams.values():
                await stream.send(b"e")
            for number in range(TRIPS + 20):
                for who, stream in streams.items():
                    began = time.perf_counter()
                    await stream.send(b"x")
                    await stream.receive()
                    if number >= 20:
                        figures.add(who, (time.perf_counter() - began) * 1e3)
        figures.show("round trip of a byte", "ms", against=BARE)
        more = figures.median(STRAIGHT) - figures.median(BARE)
        print(f"    straight to vknix takes {more:.2f} ms more than ssh -L", flush=True)

    async def throughput(self) -> None:
        figures = Figures()
        for _ in range(self.rounds):
            for who in dict.fromkeys((BARE, STRAIGHT, *self.ports)):
                async with self.connection(who) as stream:
                    began, size = time.perf_counter(), 0
                    await stream.send(b"s" + self.mib.to_bytes(4))
                    while size < self.mib * MIB:
                        piece = await stream.receive()
                        assert piece, "the connection has ended"
                        size += len(piece)
                    figures.add(who, size / MIB / (time.perf_counter() - began))
        figures.show(f"{self.mib} MiB from the Pod", "MiB/s", against=BARE)

    async def many(self) -> None:
        """100 connections at once, each of which makes its way there and back."""
        for who in dict.fromkeys((BARE, STRAIGHT, *self.ports)):
            began = time.perf_counter()
            each = await asyncio.gather(
                *(self._echo(who, b"e%d" % number) for number in range(CONNECTIONS)), return_exceptions=True
            )
            failed = [one for one in each if one is not None]
            print(
                f"  {CONNECTIONS} at once, {who}: {len(failed)} failed, {time.perf_counter() - began:.2f} s {failed[:1] or ''}",
                flush=True,
            )

    async def _echo(self, who: str, said: bytes) -> None:
        async with asyncio.timeout(30), self.connection(who) as stream:
            await stream.send(said)
            came = b""
            while came != said[1:]:
                piece = await stream.receive()
                assert piece, "the connection has ended"
                came += piece


async def _payload(ws: aiohttp.ClientWebSocketResponse) -> bytes:
    message = await ws.receive_bytes()
    assert message[0] == 0, message
    return message[1:]


@asynccontextmanager
async def listening(there: Ways, pod: Pod) -> AsyncIterator[dict[str, int]]:
    """ssh -L to the Pod's address, and kubectl by either protocol."""
    layout = there.lab.layout
    kubectl = [str(layout.bin / "kubectl"), f"--kubeconfig={layout.admin_kubeconfig}", f"--namespace={NAMESPACE}"]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        to = f"127.0.0.1:{PORT + 1}:{there.pod_ip(pod)}:{PORT}"
        processes.append(subprocess.Popen(["ssh", "-F", str(layout.ssh_config), "-N", "-L", to, there.host.name]))  # noqa: ASYNC220
        ports = {BARE: PORT + 1}
        for websockets in (True, False):
            env = {**os.environ, "KUBECTL_PORT_FORWARD_WEBSOCKETS": str(websockets).lower()}
            command = [*kubectl, "port-forward", pod.name, f":{PORT}", "--address=127.0.0.1"]
            process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)  # noqa: ASYNC220
            processes.append(process)
            assert process.stdout is not None
            found = re.search(rb":(\d+) ->", process.stdout.readline())
            assert found is not None
            ports[f"kubectl by {'WebSocket' if websockets else 'SPDY'}"] = int(found[1])
        await asyncio.to_thread(wait_for, lambda: _answers(PORT + 1), "ssh -L listens", timeout_s=15)
        yield ports
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _answers(port: int) -> bool:

    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


PARTS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "latency": Bench.latency,
    "throughput": Bench.throughput,
    "many": Bench.many,
}


async def bench(lab: Lab, parts: tuple[str, ...], rounds: int, mib: int) -> None:
    async with ways(lab) as there:
        pod = await there.pod("serving", "serve", str(PORT))
        async with listening(there, pod) as ports:
            made = Bench(there, pod, rounds, mib, ports)
            for part in parts:
                print(f"\nport-forward, {part}:", flush=True)
                await PARTS[part](made)
