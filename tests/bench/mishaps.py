"""What befalls vknix and its hosts while Pods come and go: kill -9 of vknix, a host's cable that is pulled and put back.

Where vknix ends by itself, all is over at once.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from tests.lab.lab import Lab
from tests.lab.shell import LabError

EVERY_S = (5.0, 15.0)
KILLED_S = (0.0, 8.0)
CUT_S = (1.0, 20.0)


@dataclass
class Mishaps:
    """`over` ends them: whatever was done is put right then."""

    lab: Lab
    dice: Random
    kill: bool
    cut: bool
    over: asyncio.Event = field(default_factory=asyncio.Event)
    count: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            if self.kill:
                tasks.create_task(self._kills())
            else:
                tasks.create_task(self._lives())
            if self.cut:
                tasks.create_task(self._cuts())

    async def _lives(self) -> None:
        pid = self.lab.vknix.pid
        while not await self._rest(1.0, 1.0):
            if self.lab.vknix.pid != pid:
                raise LabError(f"vknix has ended; the end of {self.lab.vknix.log_file}:\n{self.lab.vknix.log()[-3000:]}")

    async def _kills(self) -> None:
        vknix = self.lab.vknix
        while not await self._rest(*EVERY_S):
            await asyncio.to_thread(vknix.kill)
            self.count["kill -9 of vknix"] += 1
            await self._rest(*KILLED_S)
            await asyncio.to_thread(vknix.start)

    async def _cuts(self) -> None:
        while not await self._rest(*EVERY_S):
            host = self.dice.choice(self.lab.hosts)
            await asyncio.to_thread(host.cut)
            self.count["cut of a host"] += 1
            await self._rest(*CUT_S)
            await asyncio.to_thread(host.heal)

    async def _rest(self, least_s: float, most_s: float) -> bool:
        """Whether it is all over."""
        try:
            async with asyncio.timeout(self.dice.uniform(least_s, most_s)):
                await self.over.wait()
        except TimeoutError:
            return False
        return True
