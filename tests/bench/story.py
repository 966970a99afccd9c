"""All that the API server shows of the Pods of one namespace, kept by name, and waited for."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from vknix.kube import watch
from vknix.kube.client import Client

Json = dict[str, Any]


class Story:
    def __init__(self, client: Client, pods: str) -> None:
        self._client = client
        self._pods = pods
        self._news = asyncio.Condition()
        self.seen: dict[str, list[Json]] = {}
        self.gone: dict[str, float] = {}
        self.ready = asyncio.Event()

    async def run(self) -> None:
        async with aclosing(watch.follow(self._client, self._pods, query={}, decode=json.loads)) as events:
            async for event in events:
                match event:
                    case watch.Listed(_):
                        self.ready.set()
                    case watch.Changed(pod):
                        await self._saw(pod, gone=False)
                    case watch.Gone(pod):
                        await self._saw(pod, gone=True)
                    case watch.Lost(error):
                        raise error

    async def _saw(self, pod: Json, *, gone: bool) -> None:
        async with self._news:
            name = pod["metadata"]["name"]
            self.seen.setdefault(name, []).append(pod)
            if gone:
                self.gone[name] = time.time()
            self._news.notify_all()

    async def until(self, name: str, done: Callable[[Json], bool], *, timeout_s: float) -> bool:
        """Whether it came to that in time, or went."""
        return await self._until(lambda: name in self.gone or (name in self.seen and done(self.seen[name][-1])), timeout_s)

    async def until_gone(self, name: str, *, timeout_s: float) -> bool:
        return await self._until(lambda: name in self.gone, timeout_s)

    async def _until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(done)
        except TimeoutError:
            return False
        return True

    def told(self, name: str) -> Sequence[Json]:
        """Each of its states, the oldest first."""
        return self.seen.get(name, ())
