"""The end of containers: core/ending.py says who is to end and by when; hooks begin, hosts are told, Events say so."""

import time
from collections.abc import Iterable
from dataclasses import replace

from vknix.core import ending
from vknix.core.ending import Asked, Ending, Key, Wish
from vknix.core.facts import PodFacts, Uid
from vknix.core.happenings import Happening
from vknix.core.pod import Pod
from vknix.loops.hooks import Hooks
from vknix.loops.tools import Tools


class Ender:
    """Of one Pod. What it remembers spares its host to be told the same again; a new process asks anew."""

    def __init__(self, uid: Uid, tools: Tools, hooks: Hooks) -> None:
        self._uid = uid
        self._tools = tools
        self._hooks = hooks
        self._asked: dict[Key, Asked] = {}

    async def end(self, pod: Pod | None, facts: PodFacts, wishes: Iterable[Wish]) -> float | None:
        """When to look again; None: there is nothing to end. `pod` None: the API server has no such Pod any more."""
        now, least_s = time.time(), self._tools.times.kill
        of = ending.advance(pod, facts, wishes, self._asked, self._hooks.leaving(self._uid), now, least_s)
        for key, asked in of.asked.items():
            known = self._asked.get(key)
            self._asked[key] = replace(asked, sent=known.sent if known is not None else float("inf"))
        if pod is not None:
            self._begin(pod, facts, of, now)
        grace_s = pod.spec.grace_s if pod is not None else least_s
        for by, names in of.stops.items():
            again = tuple((name, facts.containers[name].attempt) for name in names if facts.containers[name].doomed)
            await self._tools.provider.stop(self._uid, facts.host, tuple(names), by, grace_s, again)
            for key in [(name, facts.containers[name].attempt) for name in names]:
                self._asked[key] = replace(self._asked[key], sent=by)
        return of.until if of.asked else None

    def _begin(self, pod: Pod, facts: PodFacts, of: Ending, now: float) -> None:
        for name in of.first:
            message = facts.containers[name].doomed or f"Stopping container {name}"
            self._tools.tell(pod, Happening("Killing", message, name))
        for name, by in of.hooks.items():
            self._hooks.pre_stop(pod, facts, name, by - now)
