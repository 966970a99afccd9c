"""A host for as long as one link lasts: what it has said since, and what is asked of it."""

import asyncio
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Protocol

from vknix.core.facts import HostName, PodFacts, StorePath
from vknix.errors import Deposed, HostFailed, Refused, Unreachable
from vknix.nspawn import bus as buses
from vknix.nspawn import files, network, paths, read, spaces, swap, tree, unit
from vknix.nspawn.bus import Bus
from vknix.nspawn.closures import Closures, Source
from vknix.nspawn.plan import PodPlan, Settings
from vknix.nspawn.read import Found, Unit
from vknix.nspawn.ssh import Finished, Link
from vknix.provider import Listed, PodGone, PodSeen, Seen

_SWEEP_S = 60.0
Network = tuple[IPv4Network, tuple[network.Peer, ...], tuple[str, ...]]


class Owner(Protocol):
    """What a session knows of its host."""

    @property
    def name(self) -> HostName: ...

    def tell(self, seen: Seen) -> None: ...

    def others(self) -> Iterable[Source]: ...

    def network(self) -> Network | None:
        """Its own slice, its peers and the cluster's CIDRs; None before they are known."""


def checked(done: Finished, host: str) -> bytes:
    """Deposed where the host's epoch has moved on; Refused where a volume can't be had; HostFailed where it could not do it."""
    if done.status == unit.DEPOSED:
        raise Deposed(f"host {host} obeys another vknix by now")
    if done.status == swap.UNMOUNTABLE:
        why = done.err.decode(errors="replace").strip().splitlines()[-1:]
        raise Refused("", why[0] if why else "a volume can't be mounted", remedy=f"see to it on host {host}", reason="FailedMount")
    return done.checked(host)


class Session:
    """A host for as long as one link lasts."""

    def __init__(self, host: Owner, link: Link, bus: Bus, settings: Settings, nft: str, tasks: asyncio.TaskGroup) -> None:
        self.host = host
        self.link = link
        self.settings = settings
        self.pods: dict[str, Found] = {}
        self.units: dict[str, Unit] = {}
        self._reading: frozenset[str] = frozenset()
        self.wanted: dict[str, PodPlan] = {}  # Pods that wait for closures, and have nothing else here yet
        self.closures = Closures(host.name, link, host.others, self._closure_changed, set())
        self._told: dict[str, PodFacts] = {}
        self._users: dict[str, int] = {}  # of Pods that were given a range of users since the link came up
        self._bus = bus
        self._nft = nft
        self._tasks = tasks
        self._networked = asyncio.Event()

    async def list_all(self) -> None:
        await self._bus.subscribe()
        self.units = await self._bus.units()
        for found in read.found(await self.link.run(read.list_script())):
            self.pods[found.uid32] = found
        for uid32, found in self.pods.items():
            for root in found.roots:
                self.closures.use(root)
                self.closures.want(root, self._tasks)
            self._tell_pod(uid32)
        self.host.tell(Listed(self.host.name))

    async def follow(self) -> None:
        """Units that change are merged; where one has ended or gone, its Pod's files are read again."""
        while True:
            changes = await self._bus.changes()
            stale: set[str] = set()
            touched: set[str] = set()
            for name, changed in changes.items():
                of = paths.container_of(name)
                if of is None:
                    continue
                if changed is None:
                    self.units.pop(name, None)
                else:
                    self.units[name] = buses.merge(self.units.get(name), changed)
                touched.add(of[0])
                if changed is None or read.ended(self.units[name]):
                    stale.add(of[0])
            known = sorted(stale & self.pods.keys())
            if known:
                await self._read_again(known)
            for uid32 in sorted(touched & self.pods.keys()):
                self._tell_pod(uid32)

    async def _read_again(self, uids: list[str]) -> None:
        """Nothing is told of these Pods meanwhile: a unit that is gone without its fact looks like one that was lost."""
        self._reading = frozenset(uids)
        try:
            for found in read.found(await self.link.run(read.list_script(uids))):
                if found.uid32 in self.pods:  # it may have been cleaned meanwhile
                    self.pods[found.uid32] = found
        finally:
            self._reading = frozenset()

    def _tell_pod(self, uid32: str) -> None:
        if uid32 in self._reading:
            return  # `follow` tells, once it knows
        found = self.pods.get(uid32)
        if found is None:
            plan = self.wanted[uid32]
            found = Found(uid32, plan.namespace, plan.name, (), plan.closures, handler=plan.handler, images=plan.images)
        facts = read.pod_facts(found, self.host.name, self.units, self.closures.facts)
        if self._told.get(uid32) != facts:
            self._told[uid32] = facts
            self.host.tell(PodSeen(facts))

    def _closure_changed(self, root: StorePath) -> None:
        for uid32, found in self.pods.items():
            if root in found.roots:
                self._tell_pod(uid32)
        for uid32, plan in self.wanted.items():
            if uid32 not in self.pods and root in plan.roots:
                self._tell_pod(uid32)

    async def route(self, changed: asyncio.Event) -> None:
        """Makes the network between the hosts, now and whenever it is to be another."""
        while True:
            of = self.host.network()
            if of is not None:
                changed.clear()
                script = unit.guard(self.settings.epoch) + network.base(*of, self._nft)
                checked(await self.link.finish(script), self.host.name)
                self._networked.set()
            await changed.wait()

    async def sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            in_use = {root for found in self.pods.values() for root in found.roots}
            in_use |= {root for plan in self.wanted.values() for root in plan.roots}
            await self.closures.forget_unused(in_use)

    def users_for(self, uid32: str) -> int:
        """Where the users of a Pod begin that has its own: what it has already, else a range that no Pod on this host has."""
        found, wanted = self.pods.get(uid32), self._users.get(uid32)
        if found is not None and found.users is not None:
            return found.users
        taken = {of.users for of in self.pods.values() if of.users is not None} | set(self._users.values())
        users = wanted if wanted is not None else spaces.free_users(taken)
        if users is None:
            raise Refused("spec.hostUsers", "the host has no range of users left", remedy="add a host", reason="OutOfpods")
        self._users[uid32] = users
        return users

    async def sync(self, plan: PodPlan, run: tuple[str, ...]) -> None:
        lacking = {root for machine in plan.machines for root in machine.roots if not self.closures.present(root)}
        for root in lacking:
            self.closures.want(root, self._tasks)
        plan = replace(plan, machines=tuple(machine for machine in plan.machines if lacking.isdisjoint(machine.roots)))
        run = tuple(machine.container for machine in plan.machines if machine.container in run)
        if lacking and not run:
            self.wanted[plan.uid32] = plan
            self._tell_pod(plan.uid32)
            return
        await self._until_networked()
        for root in plan.roots:
            self.closures.use(root)
        nonce = secrets.token_hex(6)
        lost = self._lost_attempts(plan.uid32, run)
        script = unit.sync(plan, run, lost, self.settings)
        archive = tree.pack(files.files(plan, script, nonce))
        unpack = "tar --xattrs --xattrs-include='trusted.*' -xpf - -C /"
        command = f"{unit.guard(self.settings.epoch)}{unpack}\nexec sh {paths.run(plan.uid32)}/sync-{nonce}"
        try:
            since = read.moment(checked(await self.link.finish(command, archive), self.host.name))
        except (HostFailed, Refused):
            self.wanted[plan.uid32] = plan
            self._tell_pod(plan.uid32)  # a part of it is there, to be cleaned
            raise
        self._remember(plan, run, lost, since)

    async def _until_networked(self) -> None:
        try:
            async with asyncio.timeout(20):
                await self._networked.wait()
        except TimeoutError as error:
            raise Unreachable(f"host {self.host.name}: its network is not made yet") from error

    def _lost_attempts(self, uid32: str, run: tuple[str, ...]) -> dict[str, int]:
        found = self.pods.get(uid32)
        if found is None:
            return {}
        return {
            name: max(logs)
            for name, logs in found.logs.items()
            if name in run and logs and max(logs) >= len(found.facts.get(name, ()))
        }

    def _remember(self, plan: PodPlan, run: tuple[str, ...], lost: Mapping[str, int], since: float) -> None:
        """What was started counts as being made until its host says more; `lost` attempts have their fact now."""
        self.wanted.pop(plan.uid32, None)
        before = self.pods.get(plan.uid32)
        facts = dict(before.facts) if before else {}
        for name, attempt in lost.items():
            if len(facts.get(name, ())) == attempt:
                facts[name] = (*facts.get(name, ()), unit.lost_fact(attempt))
        self.pods[plan.uid32] = Found(
            plan.uid32,
            plan.namespace,
            plan.name,
            plan.addresses,
            plan.closures,
            facts,
            before.logs if before else {},
            since=since,
            handler=plan.handler,
            users=plan.spaces.users,
            images=plan.images,
        )
        images = {machine.container: machine.image_name for machine in plan.machines}
        for name in run:
            known, image = self.units.get(paths.unit(plan.uid32, name)), images[name]
            if known is None or read.ended(known):
                self.units[paths.unit(plan.uid32, name)] = Unit("activating", "start", image=image)
            elif not known.image:  # systemd's word of the start came first
                self.units[paths.unit(plan.uid32, name)] = replace(known, image=image)
        self._tell_pod(plan.uid32)

    async def stop(self, uid32: str, containers: tuple[str, ...], deadline: float, grace_s: float) -> None:
        """`grace_s`: what systemd itself allows; a longer deadline is asked for gently and enforced by a later call."""
        found = self.pods.get(uid32)
        names = containers or tuple(found.closures if found is not None else ())
        if not names:
            return
        left = deadline - time.time()
        script = unit.stop(uid32, names, kill=left <= 0, gently=left > grace_s + 1, epoch=self.settings.epoch)
        checked(await self.link.finish(script), self.host.name)

    async def clean(self, uid32: str) -> None:
        if uid32 in self.pods or uid32 in self.wanted:
            checked(await self.link.finish(unit.clean(uid32, self.settings.epoch)), self.host.name)
            self.pods.pop(uid32, None)
            self.wanted.pop(uid32, None)
        self._told.pop(uid32, None)
        self._users.pop(uid32, None)
        for name in [name for name in self.units if name.startswith(f"vk-{uid32}-")]:
            del self.units[name]
        self.host.tell(PodGone(paths.uid(uid32), self.host.name))
