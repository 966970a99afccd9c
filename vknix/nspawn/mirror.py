"""What one host has of Pods, as far as it has said since the link came up; what is asked of it is session.py's."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from vknix.core.facts import HostName, PodFacts, StorePath
from vknix.nspawn import guesses, listing, paths
from vknix.nspawn.bus import Bus
from vknix.nspawn.closures import Closures, Source
from vknix.nspawn.facts import pod_facts
from vknix.nspawn.guesses import Doubts, Guesses
from vknix.nspawn.listing import Found
from vknix.nspawn.plan import PodPlan
from vknix.nspawn.ssh import Link
from vknix.nspawn.unit_state import Unit, ended, merge
from vknix.provider import Listed, PodGone, PodSeen, Seen


class Owner(Protocol):
    """The host that it is of."""

    @property
    def name(self) -> HostName: ...

    def tell(self, seen: Seen) -> None: ...

    def others(self) -> Iterable[Source]: ...


class Mirror:
    """`pods` and `units` are also written by who changes the host, who knows first what comes of that."""

    def __init__(self, host: Owner, link: Link, bus: Bus, tasks: asyncio.TaskGroup) -> None:
        self.pods: dict[str, Found] = {}
        self.units: dict[str, Unit] = {}
        self.wanted: dict[str, PodPlan] = {}  # Pods that wait for closures, and have nothing else here yet
        self.closures = Closures(host.name, link, host.others, self._closure_changed, set())
        self._host = host
        self._link = link
        self._told: dict[str, PodFacts] = {}
        self._doubts = Doubts()
        self._bus = bus
        self._tasks = tasks

    async def list_all(self) -> None:
        await self._bus.subscribe()
        self.units = await self._bus.units()
        for found in listing.found(await self._link.run(listing.list_script())):
            self.pods[found.uid32] = found
        await self._ask_for_lost()
        for uid32, found in self.pods.items():
            for root in found.roots:
                self.closures.use(root)
                self.closures.want(root, self._tasks)
            self.tell_pod(uid32)
        self._host.tell(Listed(self._host.name))

    async def _ask_for_lost(self) -> None:
        """What seems lost may have begun between the two listings, by its host or by a vknix that is no more."""
        lost = {paths.unit(uid32, name): uid32 for uid32, found in self.pods.items() for name in found.all_lost(self.units)}
        if lost:
            there = await self._bus.units(lost)
            self.units = {name: of for name, of in self.units.items() if name not in lost} | there
            await self.read_again(sorted(set(lost.values())))

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
                await self.read_again(known)
            for end in ends:
                self._ended(*end)
            await self.ask_for_doubted()
            for uid32 in sorted(touched & self.pods.keys()):
                self.tell_pod(uid32)

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

    async def ask_for_doubted(self) -> None:
        """What was to begin, and was stopped before it did, is gone without a word of its own."""
        before = {name: self.units[name] for name in self._doubts.due() & self.units.keys()}
        there = await self._bus.units(before) if before else {}
        gone = {name: of for name, of in before.items() if name not in there}
        uids = {pair[0] for name in gone if (pair := paths.container_of(name)) is not None} & self.pods.keys()
        if uids:  # what ended meanwhile has its fact
            await self.read_again(sorted(uids))
        for name, of in gone.items():
            if self.units.get(name) is of:
                del self.units[name]
        for uid32 in uids & self.pods.keys():
            self.tell_pod(uid32)

    async def read_again(self, uids: list[str]) -> None:
        for found in listing.found(await self._link.run(listing.list_script(uids))):
            before = self.pods.get(found.uid32)
            if before is not None:  # it may have been cleaned meanwhile
                self.pods[found.uid32] = listing.again(before, found)

    def tell_pod(self, uid32: str) -> None:
        found = self.pods.get(uid32)
        if found is None:
            plan = self.wanted[uid32]
            found = Found(uid32, plan.namespace, plan.name, (), plan.closures, handler=plan.handler, images=plan.images)
        facts = pod_facts(found, self._host.name, self.units, self.closures.facts)
        if self._told.get(uid32) != facts:
            self._told[uid32] = facts
            self._host.tell(PodSeen(facts))

    def _closure_changed(self, root: StorePath) -> None:
        for uid32, found in self.pods.items():
            if root in found.roots:
                self.tell_pod(uid32)
        for uid32, plan in self.wanted.items():
            if uid32 not in self.pods and root in plan.roots:
                self.tell_pod(uid32)

    @contextmanager
    def guessing(self, uid32: str, starts: Mapping[str, tuple[int, str]]) -> Iterator[Guesses]:
        """Units that are about to be started, each an attempt and an image, count as being made until systemd says more.

        Where starting fails, they no longer do.
        """
        guessed = Guesses(self.units)
        for name, (attempt, image) in starts.items():
            guessed.make(name, attempt, image)
        self.tell_pod(uid32)
        try:
            with self._doubts.asking(starts):
                yield guessed
        except BaseException:
            guessed.drop()
            self.tell_pod(uid32)
            raise

    def forget(self, uid32: str) -> None:
        """The host has nothing of it any more."""
        self.pods.pop(uid32, None)
        self.wanted.pop(uid32, None)
        self._told.pop(uid32, None)
        for name in [name for name in self.units if name.startswith(f"vk-{uid32}-")]:
            del self.units[name]
        self._host.tell(PodGone(paths.uid(uid32), self._host.name))
