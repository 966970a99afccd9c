"""Watches into the ledger, and one worker a Pod: it first reports, then carries out one step. Decisions are core's."""

import asyncio
import logging
from contextlib import aclosing

from vknix.core import pod as pods
from vknix.core.facts import HostName, HostState, Uid
from vknix.core.pod import PodRecord
from vknix.kube import api, watch
from vknix.ledger import Ledger
from vknix.loops.hooks import Hooks
from vknix.loops.prober import Prober
from vknix.loops.tools import Tools
from vknix.loops.worker import Worker
from vknix.provider import HostSeen, Listed, PodGone, PodSeen, Seen

log = logging.getLogger(__name__)


class Pods:
    """`run` for ever."""

    def __init__(self, ledger: Ledger, tools: Tools) -> None:
        self._ledger = ledger
        self._tools = tools
        tools.objects.wake = self.wake
        self._workers: dict[Uid, Worker] = {}
        self._woken: dict[Uid, None] = {}
        self._wake = asyncio.Event()
        self._listed = asyncio.Event()  # the API server has said what is wanted
        self._since: dict[HostName, set[Uid]] = {}  # the Pods that a host has named since its link came up

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_cluster())
            tasks.create_task(self._follow_hosts())
            await self._dispatch(tasks)

    def wake(self, uid: Uid) -> None:
        self._woken[uid] = None
        self._wake.set()

    async def _follow_cluster(self) -> None:
        of = api.pods_of_node(self._tools.settings.node_name)
        async with aclosing(watch.follow(self._tools.client, of.path, query=of.query, decode=pods.record)) as events:
            async for event in events:
                match event:
                    case watch.Listed(items):
                        self._list(items)
                    case watch.Changed(record):
                        self.want(record)
                    case watch.Gone(record):
                        self._ledger.unwant(record.uid)
                        self.wake(record.uid)
                    case watch.Lost():
                        pass  # what was wanted stays wanted

    def _list(self, items: tuple[PodRecord, ...]) -> None:
        """A Pod that the list lacks was deleted while nobody watched."""
        for uid in self._ledger.wanted.keys() - {record.uid for record in items}:
            self._ledger.unwant(uid)
            self.wake(uid)
        if not self._listed.is_set():
            self._tools.inherited.update(record.uid for record in items)
            self._listed.set()
        for record in items:
            self.want(record)
        for uid in list(self._ledger.seen):
            self.wake(uid)

    def want(self, record: PodRecord) -> None:
        """Older news than what a write has answered is no news."""
        known = self._ledger.wanted.get(record.uid)
        if known is None and record.uid not in self._tools.inherited:
            self._tools.starts.begin(record.uid)
        if known is None or int(record.resource_version) > int(known.resource_version):
            self._ledger.want(record)
            self.wake(record.uid)

    def answered(self, record: PodRecord) -> None:
        """What a write has answered. It brings no Pod back: the watch may have said meanwhile that it is gone."""
        if record.uid in self._ledger.wanted:
            self.want(record)

    async def _follow_hosts(self) -> None:
        async with aclosing(self._tools.provider.watch()) as seen:
            async for each in seen:
                self._saw(each)

    def _saw(self, each: Seen) -> None:
        match each:
            case PodSeen(facts):
                self._since.setdefault(facts.host, set()).add(facts.uid)
                self._ledger.seen[facts.uid] = facts
                self.wake(facts.uid)
            case PodGone(uid, host):
                self._gone(uid, host)
            case Listed(host):
                for uid in self._ledger.on_host(host):
                    if uid not in self._since.get(host, ()):
                        self._gone(uid, host)
            case HostSeen(facts):
                self._ledger.hosts[facts.name] = facts
                if facts.state is HostState.LOST:
                    self._since[facts.name] = set()
                for uid in (*self._ledger.on_host(facts.name), *(self._ledger.wanted.keys() - self._ledger.seen.keys())):
                    self.wake(uid)
                self._tools.hosts_changed.set()

    def _gone(self, uid: Uid, host: HostName) -> None:
        facts = self._ledger.seen.get(uid)
        if facts is not None and facts.host == host:
            del self._ledger.seen[uid]
        self.wake(uid)

    async def _dispatch(self, tasks: asyncio.TaskGroup) -> None:
        """Nobody works before the first list: a Pod that a host has would look as if it were deleted."""
        await self._listed.wait()
        hooks = Hooks(self._ledger, self._tools, self.wake, tasks)
        prober = Prober(self._ledger, self._tools, self.wake, tasks)
        while True:
            await self._wake.wait()
            self._wake.clear()
            woken, self._woken = self._woken, {}
            for uid in woken:
                worker = self._workers.get(uid)
                if worker is None:
                    worker = self._workers[uid] = Worker(uid, self._ledger, self._tools, hooks, self.answered, self._workers.pop)
                worker.wake(tasks)
                hooks.look(uid)
                prober.look(uid)
