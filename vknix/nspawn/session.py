"""A host for as long as one link lasts: what is asked of it. What it has, by what it has said since, is in mirror.py."""

import asyncio
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Protocol

from vknix.core.facts import Keys
from vknix.errors import Deposed, Refused, Unreachable
from vknix.nspawn import files, limits, listing, mirror, network, paths, spaces, swap, tree, unit
from vknix.nspawn.bus import Bus
from vknix.nspawn.guesses import Guesses
from vknix.nspawn.listing import Found
from vknix.nspawn.logs import Logs
from vknix.nspawn.mirror import Mirror
from vknix.nspawn.plan import PodPlan, Settings
from vknix.nspawn.ssh import Finished, Link

_SWEEP_S = 60.0
Network = tuple[IPv4Network, tuple[network.Peer, ...], tuple[str, ...]]


class Owner(mirror.Owner, Protocol):
    """What a session knows of its host."""

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
        self.mirror = Mirror(host, link, bus, tasks)
        self.closures = self.mirror.closures
        self.logs = Logs(host.name, settings.tool, link.stream, tasks)
        self._users: dict[str, int] = {}  # of Pods that were given a range of users since the link came up
        self._tasks = tasks
        self._networked = asyncio.Event()

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
            in_use = {root for found in self.mirror.pods.values() for root in found.roots}
            in_use |= {root for plan in self.mirror.wanted.values() for root in plan.roots}
            await self.closures.forget_unused(in_use)

    def users_for(self, uid32: str) -> int:
        """Where the users of a Pod begin that has its own: what it has already, else a range that no Pod on this host has."""
        found, wanted = self.mirror.pods.get(uid32), self._users.get(uid32)
        if found is not None and found.users is not None:
            return found.users
        taken = {of.users for of in self.mirror.pods.values() if of.users is not None} | set(self._users.values())
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
            self.mirror.wanted[plan.uid32] = plan
            self.mirror.tell_pod(plan.uid32)
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
            self.mirror.pods[plan.uid32] = self._made(plan, lost, listing.moment(answer), listing.refused_limits(answer))
            if ahead := listing.ahead(answer):
                await self.mirror.read_again([plan.uid32])
                guessed.drop(paths.unit(plan.uid32, name) for name in ahead)
            self.mirror.tell_pod(plan.uid32)
        await self.mirror.ask_for_doubted()

    def _resized(self, plan: PodPlan, run: tuple[str, ...]) -> tuple[str, ...]:
        """Containers that are there, and are to have other resources than they have, as far as is known."""
        found = self.mirror.pods.get(plan.uid32)
        had = found.resources if found is not None else {}
        there = (
            of for of in plan.machines if of.container not in run and paths.unit(plan.uid32, of.container) in self.mirror.units
        )
        return tuple(of.container for of in there if had.get(of.container) != limits.read(of.limits))

    async def _until_networked(self) -> None:
        try:
            async with asyncio.timeout(20):
                await self._networked.wait()
        except TimeoutError as error:
            raise Unreachable(f"host {self.host.name}: its network is not made yet") from error

    def _lost_attempts(self, uid32: str, run: tuple[str, ...]) -> dict[str, int]:
        found = self.mirror.pods.get(uid32)
        return {name: attempt for name in run if found is not None and (attempt := found.lost(name)) is not None}

    def _attempt(self, uid32: str, container: str, lost: Mapping[str, int]) -> int:
        """The next, as far as is known."""
        found = self.mirror.pods.get(uid32)
        return lost[container] + 1 if container in lost else len(found.facts.get(container, ())) if found is not None else 0

    @contextmanager
    def _starting(self, plan: PodPlan, attempts: Mapping[str, int]) -> Iterator[Guesses]:
        """What is started counts as being made, with its resources, from before its host is asked until systemd says more.

        It may end before the answer: nobody is to start or resize it once more. Where starting fails, a part of it is there.
        """
        found = self.mirror.pods.setdefault(plan.uid32, self._made(plan, {}, None))
        begin = {of.container: limits.read(of.limits) for of in plan.machines if of.container in attempts}
        self.mirror.pods[plan.uid32] = replace(found, resources={**found.resources, **begin})
        self.mirror.wanted.pop(plan.uid32, None)
        images = {machine.container: machine.image_name for machine in plan.machines}
        starts = {paths.unit(plan.uid32, name): (attempt, images[name]) for name, attempt in attempts.items()}
        with self.mirror.guessing(plan.uid32, starts) as guessed:
            yield guessed

    def _made(self, plan: PodPlan, lost: Mapping[str, int], since: float | None, errors: Mapping[str, str] | None = None) -> Found:
        """What there is of a Pod beside its units: `lost` attempts have their fact now.

        `errors`: limits that could not be had, by container; the others are in force. None: none are yet.
        """
        before = self.mirror.pods.get(plan.uid32)
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
        found = self.mirror.pods.get(uid32)
        names = containers or tuple(found.closures if found is not None else ())
        if not names:
            return
        left = deadline - time.time()
        script = unit.stop(uid32, names, again, kill=left <= 0, gently=left > grace_s + 1, epoch=self.settings.epoch)
        checked(await self.link.finish(script), self.host.name)

    async def clean(self, uid32: str) -> None:
        known = self.mirror.pods.get(uid32) or self.mirror.wanted.get(uid32)
        if known is not None:
            script = unit.clean(uid32, tuple(known.closures), self.settings.epoch, self.settings.nft)
            checked(await self.link.finish(script), self.host.name)
        self._users.pop(uid32, None)
        self.mirror.forget(uid32)
