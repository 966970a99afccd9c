"""Pods that have more on disk than they may are evicted: each host that has such a Pod is asked again and again."""

import asyncio
import logging
from collections.abc import Callable, Collection

from vknix.core import eviction
from vknix.core import pod as pods
from vknix.core.facts import HostName, HostState, Uid
from vknix.core.pod import Pod
from vknix.errors import VknixError
from vknix.ledger import Ledger
from vknix.provider import Provider

log = logging.getLogger(__name__)

PERIOD_S = 10.0  # a kubelet's eviction manager
_ANSWER_S = 60.0  # millions of files take their time


class Evicting:
    """`run` for ever. `wake` is told whose Pod is to fail by now; why is in the ledger."""

    def __init__(self, ledger: Ledger, provider: Provider, wake: Callable[[Uid], None], *, period_s: float = PERIOD_S) -> None:
        self._ledger = ledger
        self._provider = provider
        self._wake = wake
        self._period_s = period_s

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            looks: dict[HostName, asyncio.Task[None]] = {}
            while True:
                await asyncio.sleep(self._period_s)
                for host, limited in self._limited().items():
                    if host not in looks or looks[host].done():  # one that takes long holds up no other
                        looks[host] = tasks.create_task(self._look(host, limited), name=f"disks of {host}")

    def _limited(self) -> dict[HostName, list[Pod]]:
        found: dict[HostName, list[Pod]] = {}
        for uid, record in self._ledger.wanted.items():
            seen = self._ledger.seen.get(uid)
            if seen is None or uid in self._ledger.evicted or not eviction.may_be_limited(record.raw):
                continue
            if self._ledger.host_state(seen.host) is HostState.LISTED and eviction.is_limited(pod := pods.decode(record.raw)):
                found.setdefault(seen.host, []).append(pod)
        return found

    async def _look(self, host: HostName, limited: Collection[Pod]) -> None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                disks = await self._provider.disk(host, [pod.uid for pod in limited])
        except (VknixError, TimeoutError) as error:
            log.warning("host %s does not say what its Pods have on disk: %s", host, str(error) or "no answer in time")
            return
        for pod in limited:
            why = eviction.excess(pod, disks[pod.uid]) if pod.uid in disks else None
            if why is not None and pod.uid in self._ledger.wanted:
                log.info("%s/%s is evicted: %s", pod.namespace, pod.name, why)
                self._ledger.evicted[pod.uid] = why
                self._wake(pod.uid)
