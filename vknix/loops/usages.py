"""What the hosts use now: each is asked once for all who want to know within a moment."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vknix.core import measured
from vknix.core.facts import HostName, HostState, State, Uid
from vknix.core.measured import Measured, Odometer, Reading
from vknix.core.usage import HostUsage
from vknix.errors import VknixError
from vknix.ledger import Ledger
from vknix.provider import Provider

log = logging.getLogger(__name__)

FRESH_S = 2.0  # several scrapers of one node ask at nearly the same time
RATE_S = 10.0  # a kubelet's, for CPU of late
ANSWER_S = 8.0  # a scraper waits 10 s
_REBOOT_S = 10.0  # a clock that is set moves the moment of the boot a little


@dataclass(slots=True)
class _Host:
    """`lock`: who comes while it is asked waits for the same answer. `asked` is by a clock that is never set."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: float = float("-inf")
    reading: Reading | None = None
    older: HostUsage | None = None


class Usages:
    """Of one node's hosts."""

    def __init__(
        self,
        node: str,
        ledger: Ledger,
        provider: Provider,
        *,
        clock: Callable[[], float] = time.monotonic,
        fresh_s: float = FRESH_S,
    ) -> None:
        self._node = node
        self._ledger = ledger
        self._provider = provider
        self._clock = clock
        self._fresh_s = fresh_s
        self._hosts: dict[HostName, _Host] = {}
        self._odometer = Odometer()

    async def read(self) -> Measured:
        """All that answers in time, by one question a host."""
        names = list(self._ledger.hosts)
        async with asyncio.TaskGroup() as tasks:
            asking = {name: tasks.create_task(self._read(name)) for name in names}
        readings = {name: reading for name, task in asking.items() if (reading := task.result()) is not None}
        return Measured(
            node=self._node,
            hosts=readings,
            pods=measured.pods(readings, self._ledger.seen.values(), self._current),
            cpu_ns=self._odometer.read({name: reading.now for name, reading in readings.items()}),
            silent=tuple(name for name in names if name not in readings),
        )

    def _current(self, namespace: str, name: str) -> Uid | None:
        record = self._ledger.named(namespace, name)
        return record.uid if record is not None else None

    async def _read(self, name: HostName) -> Reading | None:
        """None where it gives no answer; that is remembered as long as an answer is."""
        of = self._hosts.setdefault(name, _Host())
        async with of.lock:
            if self._clock() - of.asked < self._fresh_s and not self._has_begun(name, of.reading):
                return of.reading
            now = await self._ask(name)
            of.asked = self._clock()
            if now is None:
                of.reading = None
                return None
            if of.older is None or abs(of.older.boot - now.boot) > _REBOOT_S:
                of.reading, of.older = Reading(now), now
            else:
                of.reading = Reading(now, of.older)
                if now.at - of.older.at >= RATE_S:
                    of.older = now
            return of.reading

    def _has_begun(self, name: HostName, since: Reading | None) -> bool:
        """Whether a container there was started after it was read: whoever knows of it wants to see it."""
        if since is None:
            return False
        there = (facts for facts in self._ledger.seen.values() if facts.host == name)
        starts = (each.started for facts in there for each in facts.containers.values() if each.state is State.RUNNING)
        return any(started is not None and started > since.now.at for started in starts)

    async def _ask(self, name: HostName) -> HostUsage | None:
        if self._ledger.host_state(name) is not HostState.LISTED:
            return None
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._provider.usage(name)
        except (VknixError, TimeoutError) as error:
            log.warning("host %s does not say what it uses: %s", name, str(error) or "no answer in time")
            return None
