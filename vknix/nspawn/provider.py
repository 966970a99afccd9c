"""The backend: machines on a pool of NixOS hosts. Implements provider.Provider over its hosts, one task each."""

import asyncio
import logging
import shlex
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network

from vknix.core import host_network, host_ports, resources, storage
from vknix.core import inputs as needed
from vknix.core.facts import HostFacts, HostName, Keys, Uid
from vknix.core.fetched import FileKey
from vknix.core.host_ports import ANY, Port
from vknix.core.inputs import Inputs
from vknix.core.pod import Pod
from vknix.core.resources import Amounts
from vknix.core.usage import HostUsage, PodDisk
from vknix.errors import HostFailed, NotFound, Refused, Unreachable
from vknix.nspawn import journal, logs, mounts, network, paths, volumes
from vknix.nspawn import place as places
from vknix.nspawn import plan as plans
from vknix.nspawn import usage as usages
from vknix.nspawn.attach import run_attach
from vknix.nspawn.exec import run_exec
from vknix.nspawn.forward import localhost
from vknix.nspawn.host import Host, HostSettings
from vknix.nspawn.ssh import Address, Link
from vknix.provider import AttachRequest, Connection, ExecRequest, JournalQuery, Localhost, LogOptions, Place, Seen, Streams

log = logging.getLogger(__name__)

_ANSWER_S = 2.0
_BLOCK = 1 << 16
_USAGE_S = 8.0  # a scraper waits 10 s
_DISK_S = 60.0


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A host of the pool: where it is, how many Pods it takes, and its slice where the configuration gives one."""

    to: Address
    pods: int
    slice: str | None


@dataclass(frozen=True, slots=True)
class _Placed:
    """`asked` None: the Pod has ended, and keeps its address but takes no room."""

    place: Place
    asked: Amounts | None
    ports: frozenset[Port] = frozenset()


class NspawnProvider:
    def __init__(self, specs: tuple[HostSpec, ...], settings: HostSettings) -> None:
        self._specs = {HostName(spec.to.name): spec for spec in specs}
        self._seen: asyncio.Queue[Seen] = asyncio.Queue()
        self._hosts = {
            name: Host(spec.to, spec.pods, settings, self._seen.put_nowait, self._all_hosts) for name, spec in self._specs.items()
        }
        self._slices: dict[HostName, IPv4Network] = {}
        self._placed: dict[Uid, _Placed] = {}
        self._last: dict[HostName, str] = {}
        # A Pod must not take the way by which its host is reached.
        self._own_ports = [(name, frozenset({Port("TCP", ANY, spec.to.port, 0)})) for name, spec in self._specs.items()]

    def _all_hosts(self) -> tuple[Host, ...]:
        return tuple(self._hosts.values())

    @property
    def hosts(self) -> Mapping[HostName, Host]:
        return self._hosts

    async def watch(self) -> AsyncGenerator[Seen, None]:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(host.run(), name=f"host {name}") for name, host in self._hosts.items()]
            try:
                while True:
                    yield await self._seen.get()
            finally:
                for task in running:
                    task.cancel()

    def configure(self, pod_cidrs: tuple[str, ...], told: Mapping[HostName, str]) -> Mapping[HostName, str]:
        given = {name: spec.slice for name, spec in self._specs.items()}
        self._slices = network.slices(pod_cidrs, given, told)
        for name, host in self._hosts.items():
            peers = tuple(
                network.Peer(other, self._specs[other].to.address, of) for other, of in self._slices.items() if other != name
            )
            host.configure(self._slices[name], peers)
        return {name: str(of) for name, of in self._slices.items()}

    def place(self, pod: Pod, hosts: Mapping[HostName, HostFacts]) -> Place:
        if not self._slices:
            raise Unreachable("the Pod network is not known yet: the Node has no podCIDR; set nodes[].podCIDRs")
        if pod.uid in self._placed:
            return self._placed[pod.uid].place
        asked = resources.requested(pod)
        ports = [(of.place.host, of.ports) for of in self._placed.values()] + self._own_ports
        hosts = host_network.fitting(pod, hosts, ports)
        wanted = needed.closures(pod)
        at_hand = frozenset(
            name for name, host in self._hosts.items() if host.ready and all(host.session.closures.present(root) for root in wanted)
        )
        taken = {
            name: places.used(of.asked for of in self._placed.values() if of.place.host == name and of.asked is not None)
            for name in hosts
        }
        name = places.choose(asked, hosts.values(), taken, at_hand)
        chosen = Place(name, () if pod.spec.host_network else (self._free_address(name),))
        self._placed[pod.uid] = _Placed(chosen, asked, host_ports.ports(pod))
        return chosen

    def _free_address(self, host: HostName) -> str:
        taken = {address for of in self._placed.values() for address in of.place.addresses}
        address = network.free_address(self._slices[host], taken, self._last.get(host))
        if address is None:
            raise Refused("", f"host {host} has no Pod address left", remedy="give it a larger podCIDR", reason="OutOfpods")
        self._last[host] = address
        return address

    def resize(self, pod: Pod, place: Place, hosts: Mapping[HostName, HostFacts]) -> None:
        asked = resources.requested(pod)
        others = (of.asked for uid, of in self._placed.items() if uid != pod.uid and of.place.host == place.host)
        places.resize(asked, hosts[place.host], places.used(of for of in others if of is not None))
        self._placed[pod.uid] = _Placed(place, asked, host_ports.ports(pod))

    def adopt(self, pod: Pod, place: Place) -> None:
        if pod.uid not in self._placed and place.addresses:
            self._last[place.host] = place.addresses[0]
        there = (None, frozenset[Port]()) if pod.ended else (resources.requested(pod), host_ports.ports(pod))
        self._placed[pod.uid] = _Placed(place, *there)

    def release(self, uid: Uid) -> None:
        self._placed.pop(uid, None)

    async def sync(self, pod: Pod, place: Place, inputs: Inputs, run: tuple[str, ...]) -> None:
        session, own_users = self._host(place.host).session, self._host(place.host).facts.own_users
        if pod.spec.host_users is False and not own_users:
            remedy = "see what `vknix check` says of it, or set hostUsers: true"
            raise Refused(
                "spec.hostUsers", f"host {place.host} has no users for a Pod", remedy=remedy, reason="FailedCreatePodSandBox"
            )
        users = session.users_for(paths.uid32(pod.uid)) if pod.spec.host_users is False else None
        plan = plans.pod_plan(pod, inputs, place.addresses, session.settings, session.closures.known, users)
        await session.sync(plan, run)

    async def stop(
        self, uid: Uid, host: HostName, containers: tuple[str, ...], deadline: float, grace_s: float, again: Keys = ()
    ) -> None:
        await self._host(host).session.stop(paths.uid32(uid), containers, deadline, grace_s, again)

    async def clean(self, uid: Uid, host: HostName) -> None:
        await self._host(host).session.clean(paths.uid32(uid))

    async def exec(self, request: ExecRequest, host: HostName, streams: Streams) -> int:
        session = self._host(host).session
        return await run_exec(session.link, session.settings.tool, request, streams)

    async def attach(self, request: AttachRequest, host: HostName, streams: Streams) -> None:
        session = self._host(host).session
        await run_attach(session.link, session.settings.tool, request, streams)

    async def logs(self, uid: Uid, host: HostName, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        directory = f"{paths.var_of(paths.uid32(uid), container)}/log"
        async with aclosing(self._host(host).session.logs.read(directory, options)) as pieces:
            async for piece in pieces:
                yield piece

    @asynccontextmanager
    async def dial(self, uid: Uid, host: HostName, address: str, port: int) -> AsyncGenerator[Connection, None]:
        async with self._host(host).session.link.connection(address, port) as connection:
            yield connection

    @asynccontextmanager
    async def localhost(self, uid: Uid, host: HostName) -> AsyncGenerator[Localhost, None]:
        session, uid32 = self._host(host).session, paths.uid32(uid)
        found = session.mirror.pods.get(uid32)
        if found is None:
            raise NotFound(f"host {host} does not have the Pod")
        async with localhost(session.link, session.settings.tool, uid32, own_network=bool(found.addresses)) as opened:
            yield opened

    async def answers(self, host: HostName) -> None:
        await self._host(host).session.link.answers(_ANSWER_S)

    async def usage(self, host: HostName) -> HostUsage:
        session = self._host(host).session
        answer = await session.link.run(f"exec {session.settings.tool} usage", timeout_s=_USAGE_S)
        return usages.parse(host, answer.decode(errors="replace"))

    async def disk(self, host: HostName, uids: Collection[Uid]) -> Mapping[Uid, PodDisk]:
        session = self._host(host).session
        words = [session.settings.tool, "disk", *(paths.uid32(uid) for uid in uids)]
        answer = await session.link.run(f"exec {shlex.join(words)}", timeout_s=_DISK_S)
        return volumes.disks(host, answer.decode(errors="replace"))

    async def read(self, pod: Pod, host: HostName, files: Collection[FileKey]) -> Mapping[FileKey, bytes | None]:
        session, wanted = self._host(host).session, [key for key in files if "\0" not in key.path]
        if not wanted:
            return dict.fromkeys(files)
        where = {volume.name: mounts.where(paths.uid32(pod.uid), volume.name, of) for volume, of in storage.empty_dirs(pod)}
        words = [session.settings.tool, "read", *(word for key in wanted for word in (where[key.volume], key.path))]
        answer = await session.link.run(f"exec {shlex.join(words)}")
        return {**dict.fromkeys(files), **dict(zip(wanted, volumes.files(host, answer), strict=True))}

    async def host_logs(self, host: HostName, query: JournalQuery) -> AsyncGenerator[bytes, None]:
        script = f"PATH={paths.SEARCH}; export PATH\n{journal.script(query)}"
        try:
            async with aclosing(_output(self._host(host).session.link, script, host)) as pieces:
                async for piece in pieces:
                    yield piece
        except HostFailed as error:
            raise Refused("", str(error), remedy="ask for what journalctl knows") from error

    def _host(self, name: HostName) -> Host:
        try:
            return self._hosts[name]
        except KeyError as error:
            raise Unreachable(
                f"host {name} is not in the configuration any more: put it back, or delete its Pods by force"
            ) from error


async def _output(link: Link, command: str, host: HostName) -> AsyncGenerator[bytes, None]:
    """What a command prints, as it comes. HostFailed where it exits non-zero, with what it said."""
    async with link.stream(command) as process:
        while block := await process.stdout.read(_BLOCK):
            yield block
        await logs.check(process, host)
