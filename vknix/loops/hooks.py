"""Lifecycle hooks of the containers that run: a task for each; how far they are goes into the ledger and wakes the Pod's worker."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from vknix.core import hooks, host_network
from vknix.core import pod as pods
from vknix.core.facts import ContainerFacts, PodFacts, State, Uid
from vknix.core.happenings import Happening
from vknix.core.hooks import Hooked, Stage
from vknix.core.pod import Member, Pod
from vknix.errors import HostFailed, NotFound, Unreachable
from vknix.ledger import Ledger
from vknix.loops import hooking
from vknix.loops.hooking import Hooking
from vknix.loops.probing import Subject
from vknix.loops.tools import Tools

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    """`limit`: when a preStop hook is given up."""

    attempt: int
    task: asyncio.Task[None]
    limit: asyncio.Timeout | None = None


class Hooks:
    """`look` at a Pod whenever it or its facts have changed; `tasks` is the group in which the hooks run."""

    def __init__(self, ledger: Ledger, tools: Tools, wake: Callable[[Uid], None], tasks: asyncio.TaskGroup) -> None:
        self._ledger = ledger
        self._tools = tools
        self._wake = wake
        self._tasks = tasks
        self._starting: dict[tuple[Uid, str], _Running] = {}
        self._leaving: dict[tuple[Uid, str], _Running] = {}

    def look(self, uid: Uid) -> None:
        """Begins the postStart hook of each new attempt; ends what runs for an attempt that has ended."""
        record, facts = self._ledger.wanted.get(uid), self._ledger.seen.get(uid)
        for running in (self._starting, self._leaving):
            for key in [key for key in running if key[0] == uid and not _runs(facts if record else None, key[1], running[key])]:
                running.pop(key).task.cancel()
        if record is None or facts is None:
            self._ledger.hooks.pop(uid, None)
        elif b'"lifecycle"' in record.raw:
            pod = pods.decode(record.raw)
            for member, seen in self._new(pod, facts):
                self._begin(pod, facts, member, seen)

    def _new(self, pod: Pod, facts: PodFacts) -> Iterator[tuple[Member, ContainerFacts]]:
        """Attempts with a postStart hook that run and were not looked at yet."""
        known = self._ledger.hooks.get(pod.uid, {})
        reached = host_network.address(pod, facts, self._ledger.hosts)
        for member in pods.members(pod):
            seen = facts.containers.get(member.name)
            if seen is None or seen.state is not State.RUNNING or not reached or not hooks.has_post_start(member):
                continue
            if member.name not in known or known[member.name].attempt != seen.attempt:
                yield member, seen

    def _begin(self, pod: Pod, facts: PodFacts, member: Member, seen: ContainerFacts) -> None:
        first = hooks.before(pod, member, seen)
        self._ledger.hooks.setdefault(pod.uid, {})[member.name] = first
        if first.post_start is Stage.RUNNING:
            work = self._post_start(pod, self._subject(pod, facts, member), seen)
            task = self._tasks.create_task(work, name=f"postStart {pod.uid} {member.name}")
            self._starting[pod.uid, member.name] = _Running(seen.attempt, task)

    async def _post_start(self, pod: Pod, of: Subject, seen: ContainerFacts) -> None:
        """No limit but the life of the container, as a kubelet; a host that can't be asked is asked again once it is back."""
        lifecycle = of.container.lifecycle
        assert lifecycle is not None
        assert lifecycle.post_start is not None
        try:
            message = await hooking.run(self._tools, Hooking(pod, of, lifecycle.post_start))
        except (Unreachable, HostFailed, NotFound) as error:
            log.info("postStart hook of %s: %s", of.container.name, error)
            await asyncio.sleep(self._tools.times.backoff[-1 if isinstance(error, NotFound) else 0])
            if not self._is_over(self._starting, of, seen.attempt):
                self._ledger.hooks.get(of.uid, {}).pop(of.container.name, None)
                self._wake(of.uid)
            return
        if self._is_over(self._starting, of, seen.attempt):
            return
        if message:
            self._tools.tell(pod, Happening(hooks.FAILED_POST_START, "PostStartHook failed", of.container.name, warning=True))
        stage = Stage.FAILED if message else Stage.PASSED
        self._ledger.hooks.setdefault(of.uid, {})[of.container.name] = Hooked(seen.attempt, stage, message)
        self._wake(of.uid)

    @staticmethod
    def _is_over(running: Mapping[tuple[Uid, str], _Running], of: Subject, attempt: int) -> bool:
        """What is cancelled may go on for a moment: it is another attempt's turn by then, or nobody's."""
        known = running.get((of.uid, of.container.name))
        return known is None or known.attempt != attempt

    def leaving(self, uid: Uid) -> frozenset[str]:
        """Whose preStop hook runs."""
        return frozenset(name for of, name in self._leaving if of == uid)

    def pre_stop(self, pod: Pod, facts: PodFacts, name: str, limit_s: float) -> None:
        """Begins the hook of a container that is to end, or changes how long it may still take."""
        running = self._leaving.get((pod.uid, name))
        if running is not None:
            if running.limit is not None:
                running.limit.reschedule(asyncio.get_running_loop().time() + limit_s)
            return
        member = next(member for member in pods.members(pod) if member.name == name)
        attempt = facts.containers[name].attempt
        work = self._pre_stop(pod, self._subject(pod, facts, member), attempt, limit_s)
        task = self._tasks.create_task(work, name=f"preStop {pod.uid} {name}")
        self._leaving[pod.uid, name] = _Running(attempt, task)

    async def _pre_stop(self, pod: Pod, of: Subject, attempt: int, limit_s: float) -> None:
        key, lifecycle = (of.uid, of.container.name), of.container.lifecycle
        assert lifecycle is not None
        assert lifecycle.pre_stop is not None
        try:
            async with asyncio.timeout(limit_s) as limit:
                self._leaving[key].limit = limit
                message = await hooking.run(self._tools, Hooking(pod, of, lifecycle.pre_stop))
        except TimeoutError:
            message = "it took longer than the grace period"
        except (Unreachable, HostFailed, NotFound) as error:
            message = str(error)
        if self._is_over(self._leaving, of, attempt):
            return
        if message:
            log.info("preStop hook of %s: %s", of.container.name, message)
            self._tools.tell(pod, Happening("FailedPreStopHook", "PreStopHook failed", of.container.name, warning=True))
        self._leaving.pop(key, None)
        self._wake(of.uid)

    def _subject(self, pod: Pod, facts: PodFacts, member: Member) -> Subject:
        return Subject(facts.uid, facts.host, member, host_network.address(pod, facts, self._ledger.hosts))


def _runs(facts: PodFacts | None, name: str, running: _Running) -> bool:
    """Whether the attempt that a hook is of is there."""
    seen = facts.containers.get(name) if facts is not None else None
    return seen is not None and seen.state in (State.RUNNING, State.STOPPING) and seen.attempt == running.attempt
