"""A backend in memory: a test double, a demo without hosts, and the shortest example of a provider.Provider."""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network

from vknix.core import host_network, host_ports, resources
from vknix.core.facts import HostFacts, HostName, HostState, Keys, State, Uid
from vknix.core.fetched import FileKey
from vknix.core.inputs import Inputs
from vknix.core.pod import Pod
from vknix.core.resources import Amounts
from vknix.core.usage import HostUsage, PodDisk
from vknix.errors import Deposed, NotFound, Refused, Unreachable
from vknix.fake.container import Container, output_of
from vknix.fake.host import FakeHost
from vknix.fake.usage import disk_of, journal, usage_of
from vknix.provider import AttachRequest, Connection, Duplex, ExecRequest, JournalQuery, Localhost, LogOptions, Place, Seen, Streams

_SLICE_BITS = 8  # of a host's piece of the Pod CIDRs


class FakeProvider:
    """One process' side of the hosts. `epoch` is higher than that of each process before it."""

    def __init__(self, *hosts: FakeHost, epoch: int = 1) -> None:
        self._hosts = {host.facts.name: host for host in hosts}
        self._epoch = epoch
        self._linked = False
        self._slices: dict[HostName, IPv4Network] = {}
        self._placed: dict[Uid, tuple[Place, Amounts]] = {}
        self._ports: dict[Uid, frozenset[host_ports.Port]] = {}

    async def watch(self) -> AsyncGenerator[Seen, None]:
        seen: asyncio.Queue[Seen] = asyncio.Queue()
        with ExitStack() as links:
            for host in self._hosts.values():
                links.enter_context(host.linked(self._epoch, seen.put_nowait))
            self._linked = True
            try:
                while True:
                    yield await seen.get()
            finally:
                self._linked = False

    def configure(self, pod_cidrs: tuple[str, ...], told: Mapping[HostName, str]) -> Mapping[HostName, str]:
        self._slices = {name: IPv4Network(cidr) for name, cidr in told.items() if name in self._hosts}
        free = (piece for cidr in pod_cidrs for piece in IPv4Network(cidr).subnets(new_prefix=32 - _SLICE_BITS))
        for name in sorted(self._hosts.keys() - self._slices.keys()):
            taken = [*self._slices.values(), *(IPv4Network(cidr) for cidr in told.values())]
            self._slices[name] = next(piece for piece in free if not any(piece.overlaps(other) for other in taken))
        return {name: str(piece) for name, piece in self._slices.items()}

    def place(self, pod: Pod, hosts: Mapping[HostName, HostFacts]) -> Place:
        if pod.uid in self._placed:
            return self._placed[pod.uid][0]
        if not self._slices:
            raise Unreachable("the Pod network is not known yet")
        asked = resources.requested(pod)
        hosts = host_network.fitting(pod, hosts, [(at.host, self._ports[uid]) for uid, (at, _) in self._placed.items()])
        listed = [facts for name, facts in hosts.items() if name in self._hosts and facts.state is HostState.LISTED]
        if not listed:
            raise Unreachable("no host of the pool answers")
        lacks = {facts.name: _lack(asked, facts, self._on(facts.name)) for facts in listed}
        fitting = [name for name, lack in lacks.items() if not lack]
        if not fitting:
            lack = next(iter(lacks.values()))
            raise Refused("", f"no host of the pool has room: {lack}", remedy="ask for less", reason=f"OutOf{lack}")
        name = min(fitting, key=lambda name: (len(self._on(name)), name))
        chosen = Place(name, () if pod.spec.host_network else (self._free_address(name),))
        self._placed[pod.uid] = chosen, asked
        self._ports[pod.uid] = host_ports.ports(pod)
        return chosen

    def _on(self, host: HostName) -> list[Amounts]:
        return [amounts for place, amounts in self._placed.values() if place.host == host]

    def _free_address(self, host: HostName) -> str:
        taken = {address for place, _ in self._placed.values() for address in place.addresses}
        return next(str(address) for address in self._slices[host].hosts() if str(address) not in taken)

    def resize(self, pod: Pod, place: Place, hosts: Mapping[HostName, HostFacts]) -> None:
        asked, facts = resources.requested(pod), hosts[place.host]
        others = [amounts for uid, (at, amounts) in self._placed.items() if at.host == place.host and uid != pod.uid]
        for there, reason, what in (([], "Infeasible", "capacity"), (others, "Deferred", "resource")):
            lack = _lack(asked, facts, there)
            if lack:
                raise Refused("", f"Node didn't have enough {what}: {lack}", remedy="ask for less", reason=reason)
        self._placed[pod.uid] = place, asked

    def adopt(self, pod: Pod, place: Place) -> None:
        self._placed[pod.uid] = place, resources.requested(pod)
        self._ports[pod.uid] = host_ports.ports(pod) if not pod.ended else frozenset()

    def release(self, uid: Uid) -> None:
        self._placed.pop(uid, None)
        self._ports.pop(uid, None)

    async def sync(self, pod: Pod, place: Place, inputs: Inputs, run: tuple[str, ...]) -> None:
        self.reach(place.host).sync(pod, place, inputs, run)

    async def stop(
        self, uid: Uid, host: HostName, containers: tuple[str, ...], deadline: float, grace_s: float, again: Keys = ()
    ) -> None:
        self.reach(host).stop(uid, containers, deadline - time.time(), again)

    async def clean(self, uid: Uid, host: HostName) -> None:
        self.reach(host).clean(uid)

    async def exec(self, request: ExecRequest, host: HostName, streams: Streams) -> int:
        container = self.reach(host).container(request.uid, request.container)
        if container is None or not container.runs:
            raise NotFound(f'container not found ("{request.container}")')
        output, code = output_of(request.argv, container.files)
        try:
            async with asyncio.TaskGroup() as tasks:
                end = tasks.create_task(self._until_over(host, container, container.id))
                if output:
                    await streams.write_stdout(output)
                if code is None:
                    code = await _copy(request, streams)
                end.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        return code

    async def attach(self, request: AttachRequest, host: HostName, streams: Streams) -> None:
        container = self.reach(host).container(request.uid, request.container)
        if container is None or not container.runs:
            raise NotFound(f'container not found ("{request.container}")')
        try:
            async with asyncio.TaskGroup() as tasks:
                feeding = tasks.create_task(self._feed(request, host, container, streams))
                await self._show(host, container, streams, feeding)
                feeding.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _show(self, host: HostName, container: Container, streams: Streams, feeding: asyncio.Task[None]) -> None:
        """What the attempt writes from now on, until it or the session ends."""
        lines, attempt = container.logs[-1], container.id
        at = len(lines)
        while True:
            for _, line in lines[at:]:
                await streams.write_stdout(line)
            at = len(lines)
            if container.id != attempt or not container.runs or feeding.done():
                return
            await self.reach(host).news.wait()
            self.reach(host)

    async def _feed(self, request: AttachRequest, host: HostName, container: Container, streams: Streams) -> None:
        """What `cat` reads it writes; where its input ends, so does it, unless it is to wait for the next session's."""
        if not request.stdin or not container.stdin:
            await asyncio.Event().wait()
        while data := await streams.read_stdin():
            self.reach(host).write(request.uid, request.container, data)
        if container.stdin_once:
            self.reach(host).end(request.uid, request.container, 0)
        else:
            self.reach(host).write(request.uid, request.container, b"")  # wakes who shows it

    async def _until_over(self, host: HostName, container: Container, attempt: str) -> None:
        while container.id == attempt and container.state is not State.STOPPED:
            await self.reach(host).news.wait()
            self.reach(host)
        raise NotFound("the container has ended, and the command with it")

    async def logs(self, uid: Uid, host: HostName, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        of = self.reach(host).container(uid, container)
        if of is None or not 0 <= options.attempt < len(of.logs):
            raise NotFound(f"attempt {options.attempt} of {container} has no log")
        lines = of.logs[options.attempt]
        at = 0 if options.tail_lines is None else max(0, len(lines) - options.tail_lines)
        left = options.limit_bytes
        while True:
            while at < len(lines):
                (stamp, line), at = lines[at], at + 1
                if stamp < (options.since or 0):
                    continue
                piece = (_stamp(stamp) + line if options.timestamps else line)[:left]
                left = None if left is None else left - len(piece)
                if piece:
                    yield piece
            ended = options.attempt < len(of.logs) - 1 or of.state is State.STOPPED
            if left == 0 or ended or not options.follow:
                return
            await self.reach(host).news.wait()
            self.reach(host)

    @asynccontextmanager
    async def dial(self, uid: Uid, host: HostName, address: str, port: int) -> AsyncGenerator[Connection, None]:
        yield self.reach(host).connect(address, port)

    @asynccontextmanager
    async def localhost(self, uid: Uid, host: HostName) -> AsyncGenerator[Localhost, None]:
        if not self.reach(host).has(uid):
            raise NotFound(f"host {host} does not have the Pod")
        yield _Localhost(self, uid, host)

    async def answers(self, host: HostName) -> None:
        self.reach(host)

    async def usage(self, host: HostName) -> HostUsage:
        return usage_of(self.reach(host))

    async def read(self, pod: Pod, host: HostName, files: Collection[FileKey]) -> Mapping[FileKey, bytes | None]:
        of = self.reach(host)
        return {key: of.volumes.get((pod.uid, key)) for key in files}

    async def disk(self, host: HostName, uids: Collection[Uid]) -> Mapping[Uid, PodDisk]:
        of = self.reach(host)
        return {uid: disk_of(of, uid) for uid in uids if of.has(uid)}

    async def host_logs(self, host: HostName, query: JournalQuery) -> AsyncGenerator[bytes, None]:
        yield journal(self.reach(host), query)

    def reach(self, name: HostName) -> FakeHost:
        host = self._hosts.get(name)
        if host is None or not self._linked or host.facts.state is not HostState.LISTED:
            raise Unreachable(f"host {name} is not connected")
        if host.epoch > self._epoch:
            raise Deposed(f"host {name} obeys another vknix by now")
        return host


@dataclass(frozen=True, slots=True)
class _Localhost:
    of: FakeProvider
    uid: Uid
    host: HostName

    @asynccontextmanager
    async def dial(self, port: int) -> AsyncGenerator[Duplex, None]:
        yield self.of.reach(self.host).forward(self.uid, port)


def _lack(asked: Amounts, facts: HostFacts, there: Sequence[Amounts]) -> str:
    """The resource that is short beside what is there; empty where the Pod fits."""
    if len(there) >= facts.pods:
        return "pods"
    cpu = sum(amounts.cpu_milli or 0 for amounts in (*there, asked))
    memory = sum(amounts.memory_bytes or 0 for amounts in (*there, asked))
    return "cpu" if cpu > facts.cpu_milli else "memory" if memory > facts.memory_bytes else ""


async def _copy(request: ExecRequest, streams: Streams) -> int:
    """What `cat` does; `sleep` waits until it is cancelled."""
    if request.argv[0].endswith("sleep"):
        await asyncio.Event().wait()
    while data := await streams.read_stdin():
        await streams.write_stdout(data)
    return 0


def _stamp(at: float) -> bytes:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z ").encode()
