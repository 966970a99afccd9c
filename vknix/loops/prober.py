"""Probes of the containers that run: a task for each attempt that has any; results go into the ledger and wake the Pod's worker."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from vknix.core import pod as pods
from vknix.core import probes
from vknix.core.facts import ContainerFacts, PodFacts, State, Uid
from vknix.core.happenings import Happening
from vknix.core.pod import Container, Pod
from vknix.core.probes import Probed, ProbeKind, Run
from vknix.errors import NotFound, Unreachable
from vknix.ledger import Ledger
from vknix.loops.probing import Outcome, Subject, attempt
from vknix.loops.tools import Tools

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Watched:
    attempt: int
    task: asyncio.Task[None]


class Prober:
    """`look` at a Pod whenever it or its facts have changed; `tasks` is the group in which the probes run."""

    def __init__(self, ledger: Ledger, tools: Tools, wake: Callable[[Uid], None], tasks: asyncio.TaskGroup) -> None:
        self._ledger = ledger
        self._tools = tools
        self._wake = wake
        self._tasks = tasks
        self._watched: dict[tuple[Uid, str], _Watched] = {}

    def look(self, uid: Uid) -> None:
        record, facts = self._ledger.wanted.get(uid), self._ledger.seen.get(uid)
        pod = pods.decode(record.raw) if record is not None and facts is not None and b"Probe" in record.raw else None
        wanted = dict(self._wanted(pod, facts)) if pod is not None and facts is not None else {}
        for key in [key for key in self._watched if key[0] == uid]:
            if key[1] not in wanted or wanted[key[1]][1].attempt != self._watched[key].attempt:
                self._watched.pop(key).task.cancel()
        for name, (container, seen) in wanted.items():
            if (uid, name) not in self._watched and pod is not None and facts is not None:
                self._ledger.probed.setdefault(uid, {})[name] = self._first(pod, container, seen)
                work = self._watch(pod, Subject(uid, facts.host, container, facts.addresses[0]), seen)
                self._watched[uid, name] = _Watched(seen.attempt, self._tasks.create_task(work, name=f"probes {uid} {name}"))
        if not wanted:
            self._ledger.probed.pop(uid, None)

    @staticmethod
    def _wanted(pod: Pod, facts: PodFacts) -> "list[tuple[str, tuple[Container, ContainerFacts]]]":
        found = []
        for member in pods.members(pod):
            seen = facts.containers.get(member.name)
            has = any(probes.of_kind(member.container, kind) for kind in ProbeKind)
            if has and seen is not None and seen.state is State.RUNNING and facts.addresses:
                found.append((member.name, (member.container, seen)))
        return found

    @staticmethod
    def _first(pod: Pod, container: Container, seen: ContainerFacts) -> Probed:
        """An attempt that was ready when another process was told so stays ready until a probe says otherwise."""
        told = pod.told(container.name)
        if seen.id and str(told.get("containerID", "")).endswith(seen.id):
            return Probed(seen.attempt, bool(told.get("started")), bool(told.get("ready")))
        return probes.before(container, seen.attempt)

    async def _watch(self, pod: Pod, of: Subject, seen: ContainerFacts) -> None:
        if not self._now(of).started:
            await self._series(pod, of, seen, ProbeKind.STARTUP)
        if self._now(of).doomed or pod.leaving:
            return
        async with asyncio.TaskGroup() as tasks:
            for kind in (ProbeKind.LIVENESS, ProbeKind.READINESS):
                tasks.create_task(self._series(pod, of, seen, kind))

    def _now(self, of: Subject) -> Probed:
        return self._ledger.probed[of.uid][of.container.name]

    async def _series(self, pod: Pod, of: Subject, seen: ContainerFacts, kind: ProbeKind) -> None:
        """Until the startup probe has passed, or the container is doomed; the others for as long as the attempt runs."""
        probe = probes.of_kind(of.container, kind)
        if probe is None:
            return
        run = Run()
        await asyncio.sleep(max(0.0, (seen.started or time.time()) + probe.initial_delay_seconds - time.time()))
        while True:
            outcome = await self._try(of, kind)
            if outcome is not None:
                run = probes.step(run, probe, success=outcome.success)
                if not outcome.success:
                    message = f"{kind.value.capitalize()} probe failed: {outcome.message}"
                    self._tools.tell(pod, Happening("Unhealthy", message, of.container.name, warning=True))
                self._note(of, probes.after(self._now(of), of.container, kind, run))
            if self._now(of).doomed or (kind is ProbeKind.STARTUP and self._now(of).started):
                return
            await asyncio.sleep(max(1, probe.period_seconds))

    async def _try(self, of: Subject, kind: ProbeKind) -> Outcome | None:
        """None: nothing can be said of the container, since its host could not be asked."""
        probe = probes.of_kind(of.container, kind)
        assert probe is not None
        try:
            return await attempt(self._tools.provider, of, probe)
        except (Unreachable, NotFound) as error:
            log.debug("%s probe of %s: %s", kind.value, of.container.name, error)
            return None

    def _note(self, of: Subject, probed: Probed) -> None:
        if self._now(of) != probed:
            self._ledger.probed[of.uid][of.container.name] = probed
            self._wake(of.uid)
