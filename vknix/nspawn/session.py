"""A host for as long as one link lasts: what it has said since, and what is asked of it."""

import asyncio
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Protocol

from vknix.core.facts import HostName, Keys, PodFacts, StorePath
from vknix.errors import Deposed, Refused, Unreachable
from vknix.nspawn import files, guesses, limits, listing, network, paths, spaces, swap, tree, unit
from vknix.nspawn.bus import Bus
from vknix.nspawn.closures import Closures, Source
from vknix.nspawn.facts import pod_facts
from vknix.nspawn.guesses import Doubts, Guesses
from vknix.nspawn.listing import Found
from vknix.nspawn.logs import Logs
from vknix.nspawn.plan import PodPlan, Settings
from vknix.nspawn.ssh import Finished, Link
from vknix.nspawn.unit_state import Unit, ended, merge
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

    def __init__(self, host: Owner, link: Link, bus: Bus, settings: Settings, tasks: asyncio.TaskGroup) -> None:
        self.host = host
        self.link = link
        self.settings = settings
        self.pods: dict[str, Found] = {}
        self.units: dict[str, Unit] = {}
        self.wanted: dict[str, PodPlan] = {}  # Pods that wait for closures, and have nothing else here yet
        self.logs = Logs(host.name, settings.tool, link.stream, tasks)
        self.closures = Closures(host.name, link, host.others, self._closure_changed, set())
        self._told: dict[str, PodFacts] = {}
        self._users: dict[str, int] = {}  # of Pods that were given a range of users since the link came up
        self._doubts = Doubts()
        self._bus = bus
        self._tasks = tasks
        self._networked = asyncio.Event()

    async def list_all(self) -> None:
        await self._bus.subscribe()
        self.units = await self._bus.units()
        for found in listing.found(await self.link.run(listing.list_script())):
            self.pods[found.uid32] = found
        await self._ask_for_lost()
        for uid32, found in self.pods.items():
            for root in found.roots:
                self.closures.use(root)
                self.closures.want(root, self._tasks)
            self._tell_pod(uid32)
        self.host.tell(Listed(self.host.name))

    async def _ask_for_lost(self) -> None:
        """What seems lost may have begun between the two listings, by its host or by a vknix that is no more."""
        lost = {paths.unit(uid32, name): uid32 for uid32, found in self.pods.items() for name in found.all_lost(self.units)}
        if lost:
            there = await self._bus.units(lost)
            self.units = {name: of for name, of in self.units.items() if name not in lost} | there
            await self._read_again(sorted(set(lost.values())))

    async def follow(self) -> None:
        """Units that change are merged; of one that has ended or gone, its Pod's files are read before it is said to have."""
        while True:
            changes = await self._bus.changes()
            ends: list[tuple[str, Unit | None, Unit | None]] = []
            touched: set[str] = set()
            stale: set[str] = set()
            for name, changed in changes.items():
                of = paths.container_of(name)
                if of is None:
                    continue
                touched.add(of[0])
                before = self.units.get(name)
                after = merge(before, changed) if changed is not None else None
                if after is not None and not ended(after):
                    self.units[name] = after
                else:
                    ends.append((name, before, after))
                    stale.add(of[0])
            known = sorted(stale & self.pods.keys())
            if known:
                await self._read_again(known)
            for end in ends:
                self._ended(*end)
            await self._ask_for_doubted()
            for uid32 in sorted(touched & self.pods.keys()):
                self._tell_pod(uid32)

    def _ended(self, name: str, before: Unit | None, after: Unit | None) -> None:
        """But for the end of an earlier unit, where its successor has been asked for meanwhile."""
        if self.units.get(name) is not before:
            return
        if not guesses.came_true(before, self._ends(name)):
            self._doubts.add(name)
            return
        if after is not None:
            self.units[name] = after
        else:
            self.units.pop(name, None)

    def _ends(self, name: str) -> int:
        of = paths.container_of(name)
        found = self.pods.get(of[0]) if of is not None else None
        return len(found.facts.get(of[1], ())) if of is not None and found is not None else 0

    async def _ask_for_doubted(self) -> None:
        """What was to begin, and was stopped before it did, is gone without a word of its own."""
        before = {name: self.units[name] for name in self._doubts.due() & self.units.keys()}
        there = await self._bus.units(before) if before else {}
        gone = {name: of for name, of in before.items() if name not in there}
        uids = {pair[0] for name in gone if (pair := paths.container_of(name)) is not None} & self.pods.keys()
        if uids:  # what ended meanwhile has its fact
            await self._read_again(sorted(uids))
        for name, of in gone.items():
            if self.units.get(name) is of:
                del self.units[name]
        for uid32 in uids & self.pods.keys():
            self._tell_pod(uid32)

    async def _read_again(self, uids: list[str]) -> None:
        for found in listing.found(await self.link.run(listing.list_script(uids))):
            before = self.pods.get(found.uid32)
            if before is not None:  # it may have been cleaned meanwhile
                self.pods[found.uid32] = listing.again(before, found)

    def _tell_pod(self, uid32: str) -> None:
        found = self.pods.get(uid32)
        if found is None:
            plan = self.wanted[uid32]
            found = Found(uid32, plan.namespace, plan.name, (), plan.closures, handler=plan.handler, images=plan.images)
        facts = pod_facts(found, self.host.name, self.units, self.closures.facts)
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
                script = unit.guard(self.settings.epoch) + network.base(*of, self.settings.nft)
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
        resized = self._resized(plan, run)
        attempts = {name: self._attempt(plan.uid32, name, lost) for name in run}
        script = unit.sync(plan, attempts, lost, self.settings, resized)
        archive = tree.pack(files.files(plan, script, nonce))
        unpack = "tar --xattrs --xattrs-include='trusted.*' -xpf - -C /"
        command = f"{unit.guard(self.settings.epoch)}{unpack}\nexec sh {paths.run(plan.uid32)}/sync-{nonce}"
        with self._starting(plan, attempts) as guessed:
            answer = checked(await self.link.finish(command, archive), self.host.name)
            self.pods[plan.uid32] = self._made(plan, lost, listing.moment(answer), listing.refused_limits(answer))
            if ahead := listing.ahead(answer):
                await self._read_again([plan.uid32])
                guessed.drop(paths.unit(plan.uid32, name) for name in ahead)
            self._tell_pod(plan.uid32)
        await self._ask_for_doubted()

    def _resized(self, plan: PodPlan, run: tuple[str, ...]) -> tuple[str, ...]:
        """Containers that are there, and are to have other resources than they have, as far as is known."""
        found = self.pods.get(plan.uid32)
        had = found.resources if found is not None else {}
        there = (of for of in plan.machines if of.container not in run and paths.unit(plan.uid32, of.container) in self.units)
        return tuple(of.container for of in there if had.get(of.container) != limits.read(of.limits))

    async def _until_networked(self) -> None:
        try:
            async with asyncio.timeout(20):
                await self._networked.wait()
        except TimeoutError as error:
            raise Unreachable(f"host {self.host.name}: its network is not made yet") from error

    def _lost_attempts(self, uid32: str, run: tuple[str, ...]) -> dict[str, int]:
        found = self.pods.get(uid32)
        return {name: attempt for name in run if found is not None and (attempt := found.lost(name)) is not None}

    def _attempt(self, uid32: str, container: str, lost: Mapping[str, int]) -> int:
        """The next, as far as is known."""
        found = self.pods.get(uid32)
        return lost[container] + 1 if container in lost else len(found.facts.get(container, ())) if found is not None else 0

    @contextmanager
    def _starting(self, plan: PodPlan, attempts: Mapping[str, int]) -> Iterator[Guesses]:
        """What is started counts as being made, with its resources, from before its host is asked until systemd says more.

        It may end before the answer: nobody is to start or resize it once more. Where starting fails, a part of it is there.
        """
        found = self.pods.setdefault(plan.uid32, self._made(plan, {}, None))
        begin = {of.container: limits.read(of.limits) for of in plan.machines if of.container in attempts}
        self.pods[plan.uid32] = replace(found, resources={**found.resources, **begin})
        self.wanted.pop(plan.uid32, None)
        images = {machine.container: machine.image_name for machine in plan.machines}
        guessed = Guesses(self.units)
        for container, attempt in attempts.items():
            guessed.make(paths.unit(plan.uid32, container), attempt, images[container])
        self._tell_pod(plan.uid32)
        try:
            with self._doubts.asking(paths.unit(plan.uid32, container) for container in attempts):
                yield guessed
        except BaseException:
            guessed.drop()
            self._tell_pod(plan.uid32)
            raise

    def _made(self, plan: PodPlan, lost: Mapping[str, int], since: float | None, errors: Mapping[str, str] | None = None) -> Found:
        """What there is of a Pod beside its units: `lost` attempts have their fact now.

        `errors`: limits that could not be had, by container; the others are in force. None: none are yet.
        """
        before = self.pods.get(plan.uid32)
        machines = plan.machines if errors is not None else ()
        in_force = {each.container: limits.read(each.limits) for each in machines if each.container not in (errors or {})}
        facts = dict(before.facts) if before else {}
        for name, attempt in lost.items():
            if len(facts.get(name, ())) == attempt:
                facts[name] = (*facts.get(name, ()), unit.lost_fact(attempt))
        return Found(
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
            listed=before.since_listed() if before else {},
            resources={**(before.resources if before else {}), **in_force},
            errors=errors or {},
            again=before.again if before else {},
        )

    async def stop(self, uid32: str, containers: tuple[str, ...], deadline: float, grace_s: float, again: Keys) -> None:
        """`grace_s`: what systemd itself allows; a longer deadline is asked for gently and enforced by a later call."""
        found = self.pods.get(uid32)
        names = containers or tuple(found.closures if found is not None else ())
        if not names:
            return
        left = deadline - time.time()
        script = unit.stop(uid32, names, again, kill=left <= 0, gently=left > grace_s + 1, epoch=self.settings.epoch)
        checked(await self.link.finish(script), self.host.name)

    async def clean(self, uid32: str) -> None:
        known = self.pods.get(uid32) or self.wanted.get(uid32)
        if known is not None:
            script = unit.clean(uid32, tuple(known.closures), self.settings.epoch, self.settings.nft)
            checked(await self.link.finish(script), self.host.name)
            self.pods.pop(uid32, None)
            self.wanted.pop(uid32, None)
        self._told.pop(uid32, None)
        self._users.pop(uid32, None)
        for name in [name for name in self.units if name.startswith(f"vk-{uid32}-")]:
            del self.units[name]
        self.host.tell(PodGone(paths.uid(uid32), self.host.name))
