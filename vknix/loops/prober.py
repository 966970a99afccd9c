"""Probes of the containers that run: a task for each attempt that has any; results go into the ledger and wake the Pod's worker."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from vknix.core import hooks, host_network, probes
from vknix.core import pod as pods
from vknix.core.container import Probe
from vknix.core.facts import ContainerFacts, PodFacts, State, Uid
from vknix.core.happenings import Happening
from vknix.core.pod import Member, Pod
from vknix.core.probes import Probed, ProbeKind, Run
from vknix.errors import HostFailed, NotFound, Unreachable
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
        pod = self._tools.decode(record.raw) if record is not None and facts is not None and b"Probe" in record.raw else None
        wanted = dict(self._wanted(pod, facts)) if pod is not None and facts is not None else {}
        for key in [key for key in self._watched if key[0] == uid]:
            if key[1] not in wanted or wanted[key[1]][1].attempt != self._watched[key].attempt:
                self._watched.pop(key).task.cancel()
        for name, (member, seen) in wanted.items():
            if (uid, name) not in self._watched and pod is not None and facts is not None:
                self._ledger.probed.setdefault(uid, {})[name] = self._first(pod, member, seen)
                work = self._watch(
                    pod, Subject(uid, facts.host, member, host_network.address(pod, facts, self._ledger.hosts)), seen
                )
                self._watched[uid, name] = _Watched(seen.attempt, self._tasks.create_task(work, name=f"probes {uid} {name}"))
        if not wanted:
            self._ledger.probed.pop(uid, None)
        if record is None:
            self._tools.telemetry.forget_probes(uid)

    def _wanted(self, pod: Pod, facts: PodFacts) -> list[tuple[str, tuple[Member, ContainerFacts]]]:
        """A probe waits for the postStart hook of its container, as it does for the container."""
        found = []
        hooked = self._ledger.hooks.get(pod.uid, {})
        reached = host_network.address(pod, facts, self._ledger.hosts)
        for member in pods.members(pod):
            seen = facts.containers.get(member.name)
            if seen is not None and hooks.is_pending(hooked.get(member.name), seen):
                continue
            has = any(probes.of_kind(member.container, kind) for kind in ProbeKind)
            if has and seen is not None and seen.state in (State.RUNNING, State.STOPPING) and reached:
                found.append((member.name, (member, seen)))
        return found

    @staticmethod
    def _first(pod: Pod, member: Member, seen: ContainerFacts) -> Probed:
        """An attempt that was ready when another process was told so stays ready until a probe says otherwise."""
        told, first = pod.told(member.name), probes.before(member.container, seen.attempt)
        if not _is_told(pod, member, seen):
            return first
        started = first.started or bool(told.get("started"))
        return Probed(seen.attempt, started, started and (member.container.readiness_probe is None or bool(told.get("ready"))))

    async def _watch(self, pod: Pod, of: Subject, seen: ContainerFacts) -> None:
        if not self._now(of).started:
            await self._series(pod, of, seen, ProbeKind.STARTUP)
        if self._is_over(of, seen.attempt) or self._now(of).doomed:
            return
        async with asyncio.TaskGroup() as tasks:
            for kind in (ProbeKind.LIVENESS, ProbeKind.READINESS):
                tasks.create_task(self._series(pod, of, seen, kind))

    def _now(self, of: Subject) -> Probed:
        return self._ledger.probed[of.uid][of.container.name]

    def _is_over(self, of: Subject, attempt: int) -> bool:
        """What is cancelled may go on for a moment: the ledger may know of another attempt by then, or of none."""
        known = self._ledger.probed.get(of.uid, {}).get(of.container.name)
        return known is None or known.attempt != attempt

    def _spared(self, of: Subject, of_attempt: int, kind: ProbeKind) -> bool:
        """A container that is being stopped, or whose Pod leaves, can only be ready or not; an attempt that is over is nothing."""
        if self._is_over(of, of_attempt):
            return True
        record, facts = self._ledger.wanted.get(of.uid), self._ledger.seen.get(of.uid)
        seen = facts.containers.get(of.container.name) if facts is not None else None
        lives = (
            record is not None and not self._tools.decode(record.raw).leaving and seen is not None and seen.state is State.RUNNING
        )
        return kind is not ProbeKind.READINESS and not lives

    async def _series(self, pod: Pod, of: Subject, seen: ContainerFacts, kind: ProbeKind) -> None:
        """Until the startup probe has passed, or the container is doomed; the others for as long as the attempt runs."""
        probe = probes.of_kind(of.container, kind)
        if probe is None:
            return
        run = Run()
        await asyncio.sleep(self._first_in_s(pod, of, seen, probe))
        while not self._spared(of, seen.attempt, kind):
            outcome = await self._try(pod, of, kind)
            if self._spared(of, seen.attempt, kind):
                return
            if outcome is not None:
                run = probes.step(run, probe, success=outcome.success)
                if not outcome.success:
                    message = f"{kind.value.capitalize()} probe failed: {outcome.message}"
                    self._tools.tell(pod, Happening("Unhealthy", message, of.container.name, warning=True))
                self._note(of, probes.after(self._now(of), of.member, kind, run))
            if self._now(of).doomed or (kind is ProbeKind.STARTUP and self._now(of).started):
                return
            await asyncio.sleep(max(1, probe.period_seconds))

    @staticmethod
    def _first_in_s(pod: Pod, of: Subject, seen: ContainerFacts, probe: Probe) -> float:
        """At once after the delay; of attempts that a process takes over not all at the same time."""
        spread = random.uniform(0, probe.period_seconds) if _is_told(pod, of.member, seen) else 0.0  # noqa: S311  # no secret
        return max(spread, (seen.started or 0.0) + probe.initial_delay_seconds - time.time())

    async def _try(self, pod: Pod, of: Subject, kind: ProbeKind) -> Outcome | None:
        """None: nothing can be said of the container, since its host could not be asked."""
        probe = probes.of_kind(of.container, kind)
        assert probe is not None
        began, outcome = time.monotonic(), None
        try:
            outcome = await attempt(self._tools.provider, of, probe)
        except (Unreachable, HostFailed, NotFound) as error:
            log.debug("%s probe of %s: %s", kind.value, of.container.name, error)
        self._count(pod, of, kind, outcome, time.monotonic() - began)
        return outcome

    def _count(self, pod: Pod, of: Subject, kind: ProbeKind, outcome: Outcome | None, took_s: float) -> None:
        named = of.container.name, pod.namespace, pod.name
        result = "unknown" if outcome is None else "successful" if outcome.success else "failed"
        self._tools.telemetry.probes.add(*named, pod.uid, kind.value.capitalize(), result)
        if outcome is not None:
            self._tools.telemetry.probe_times.observe(took_s, *named, kind.value.capitalize())

    def _note(self, of: Subject, probed: Probed) -> None:
        if self._now(of) != probed:
            self._ledger.probed[of.uid][of.container.name] = probed
            self._wake(of.uid)


def _is_told(pod: Pod, member: Member, seen: ContainerFacts) -> bool:
    """Whether the API server knows of this very attempt."""
    return bool(seen.id) and str(pod.told(member.name).get("containerID", "")).endswith(seen.id)
