"""One Pod: report what is, then carry out the one step that core/decide.py names. Runs when woken or when something is due.

Errors by class: wait (Unreachable: back off, the phase stays), refused (a status, an Event, no retry before something changes),
bug (anything else: reported with its trace, backed off; the node lives on).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from vknix import log as logs
from vknix.core import decide, ending, happenings, known, resize, rounds
from vknix.core import pod as pods
from vknix.core.decide import Step, Turn
from vknix.core.facts import HostState, PodFacts, Uid
from vknix.core.failing import expires, failing
from vknix.core.happenings import Happening
from vknix.core.known import Doomed
from vknix.core.pod import Pod, PodRecord
from vknix.errors import Conflict, Deposed, HostFailed, Refused, Unreachable
from vknix.kube import api
from vknix.ledger import Ledger
from vknix.loops.ending import Ender
from vknix.loops.hooks import Hooks
from vknix.loops.placing import Placing
from vknix.loops.reporting import Reporter
from vknix.loops.starting import Starter
from vknix.loops.starts import Turns
from vknix.loops.together import both
from vknix.loops.tools import Tools
from vknix.provider import Place

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Acted:
    """A step was taken on these facts: the same one waits until the host has said more, or for `until`."""

    step: Step
    on: PodFacts | None
    until: float


class Worker:
    """What it remembers between two turns only spares it work, or a second Event of the same."""

    def __init__(
        self,
        uid: Uid,
        ledger: Ledger,
        tools: Tools,
        hooks: Hooks,
        answered: Callable[[PodRecord], None],
        over: Callable[[Uid], object],
    ) -> None:
        self._uid = uid
        self._ledger = ledger
        self._tools = tools
        self._over = over
        self._task: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._turns = Turns(tools.telemetry)
        self._failures = 0
        self._starter = Starter(tools)
        self._placing = Placing(uid, ledger, tools, self._starter)
        self._reporter = Reporter(uid, ledger, tools, self._starter, self._placing, answered)
        self._late: set[str] = set()  # ephemeral containers whose refusal was told
        self._before: PodFacts | None = None
        self._seen: PodFacts | None = None  # as its host has told it, when this turn began
        self._acted: _Acted | None = None
        self._ender = Ender(uid, tools, hooks)
        self._doomed: Doomed = {}
        self._failing = False  # an Event has said so

    def wake(self, tasks: asyncio.TaskGroup) -> None:
        self._turns.woken()
        self._again.set()
        if self._task is None or self._task.done():
            self._task = tasks.create_task(self._run(), name=f"pod {self._uid}")

    async def _run(self) -> None:
        """Turn after turn until nothing is due; woken again, a new task goes on."""
        while self._again.is_set():
            self._again.clear()
            until = await self._guarded_turn()
            if until is None:
                continue
            try:
                async with asyncio.timeout(max(0.0, until - time.time())):
                    await self._again.wait()
            except TimeoutError:
                self._again.set()

    async def _guarded_turn(self) -> float | None:
        record = self._ledger.wanted.get(self._uid)
        name = f"{record.namespace}/{record.name}" if record is not None else str(self._uid)
        with self._turns.turn() as turn, logs.about(pod=name):
            try:
                until = await (self._turn(self._reporter.decode(record.raw)) if record is not None else self._turn_gone())
                self._failures, turn.result = 0, "done"
                return until
            except (Unreachable, HostFailed, Conflict, TimeoutError) as error:
                log.info("waiting: %s", error)
            except (Deposed, asyncio.CancelledError):
                raise
            except Exception:  # one Pod's bug must not take the node down
                log.exception("a bug in the work on this Pod")
            self._failures += 1
            backoff = self._tools.times.backoff
            return time.time() + backoff[min(self._failures, len(backoff)) - 1]

    async def _turn(self, pod: Pod) -> float | None:
        handler = await self._placing.handler(pod)  # before anything is looked at: nothing may change while it is looked at
        fit = await self._placing.fit(pod)
        self._seen = self._ledger.seen.get(self._uid)  # what comes later is for the next turn, also where a start has looked at it
        facts = self._facts(pod)
        self._placing.judge(pod, facts, handler)
        self._tell_late(pod)
        fitting = {name: of for name, of in self._ledger.hosts.items() if fit is None or name in fit}
        place = self._placing.place(resize.in_force(pod, facts), facts, fitting)
        lost = self._placing.lost(pod, place)
        resizing = self._placing.resizing(pod, facts, place) if lost is None else None
        facts = resize.doomed(facts, resizing)
        if facts is not None and lost is None:
            self._tell_events(pod, facts)
            for happening in resize.happenings(pod, resizing):
                self._tools.tell(pod, happening)
        step = decide.step(pod, facts, time.time(), lost=lost is not None)
        if step in (Step.STOP, Step.KILL):  # neither waits for the other
            _, until = await both(self._reporter.report(pod, facts, place, lost, resizing), self._stop(pod, facts))
            return until
        before, pod = pod, await self._reporter.report(pod, facts, place, lost, resizing)
        if decide.row(pod, time.time()) is not decide.row(before, time.time()):
            self._again.set()  # there is something else to be told of it, before anything is done
            return None
        facts = rounds.current(pod, facts) if facts is not None else None  # by what was told just now
        pod = resize.granted(pod, facts, resizing)
        step = decide.step(pod, facts, time.time(), lost=lost is not None)
        if (spent := self._spent(step)) is not None:
            return spent
        match step:
            case Step.WORK if place is not None:
                until = await self._work(pod, facts, place, update=resizing is not None and resizing.update)
                again = time.time() + self._tools.times.held if resizing is not None and resizing.refused else None
                return _sooner(_sooner(until, again), expires(pod))
            case Step.CLEAN:
                return await self._clean(facts)
            case Step.CONFIRM:
                await api.delete_pod(self._tools.client, pod.namespace, pod.name, pod.uid)
                return self._act(step)  # the watch will say that it is gone
            case _:
                again = time.time() + self._tools.times.held if fit is not None and not fit else None
                return _sooner(again, expires(pod) if step is Step.WORK else None)

    def _facts(self, pod: Pod) -> PodFacts | None:
        """What the Pod's host and its probes say now."""
        seen = self._ledger.seen.get(self._uid)
        if seen is None:
            return None
        probed, hooked = self._ledger.probed.get(self._uid, {}), self._ledger.hooks.get(self._uid, {})
        return known.facts(pod, seen, probed, hooked, self._doomed)

    async def _turn_gone(self) -> float | None:
        """The API server has no such Pod (any more)."""
        facts = self._seen = self._ledger.seen.get(self._uid)
        lost = facts is not None and self._ledger.host_state(facts.host) is not HostState.LISTED
        match decide.step(None, facts, time.time(), lost=lost):
            case Step.KILL:
                assert facts is not None
                return await self._ender.end(None, facts, ending.of_all(None, facts, by=0.0))
            case Step.CLEAN:
                spent = self._spent(Step.CLEAN)
                return spent if spent is not None else await self._clean(facts)
            case Step.FORGET:
                self._tools.provider.release(self._uid)
                self._tools.inherited.discard(self._uid)
                self._tools.starts.forget(self._uid)
                self._tools.objects.forget(self._uid)
                self._over(self._uid)
            case _:
                pass
        return None

    def _tell_late(self, pod: Pod) -> None:
        for name in pod.late.keys() - self._late:
            self._tools.tell(pod, Happening("Failed", f"Error: {pod.late[name].why}", name, warning=True))
        self._late = set(pod.late)

    def _spent(self, step: Step) -> float | None:
        """Until when the step is not taken again on what is known."""
        acted = self._acted
        if acted is None or acted.step is not step or acted.on is not self._seen or time.time() >= acted.until:
            return None
        return acted.until

    def _act(self, step: Step) -> float:
        self._acted = _Acted(step, self._seen, time.time() + self._tools.times.told)
        return self._acted.until

    async def _work(self, pod: Pod, facts: PodFacts | None, place: Place, *, update: bool) -> float | None:
        now = time.time()
        turn = decide.containers(pod, facts, now)
        ended = None
        if facts is not None:
            ended = await self._ender.end(pod, facts, ending.of_working(pod, facts, over=turn.over))
        return _sooner(ended, await self._start(pod, facts, place, turn, now, update=update))

    async def _start(self, pod: Pod, facts: PodFacts | None, place: Place, turn: Turn, now: float, *, update: bool) -> float | None:
        """`update`: what runs is to have other resources."""
        due = self._starter.due(pod, facts, now)  # first: what was held may be put right by now
        run = self._starter.runnable(turn.run, now)
        if not run and not update and (due is None or due > now):
            return _sooner(turn.until, due)
        try:
            await self._starter.start(pod, facts, place, self._ledger.hosts[place.host], run, lambda: self._due(pod))
        except Refused as refusal:
            self._tools.tell(pod, Happening(refusal.reason, str(refusal), warning=True))
            return now + self._tools.times.held
        until = self._act(Step.WORK)
        if self._starter.held:
            self._again.set()
        return _sooner(self._starter.due(pod, facts, now), until if update else None)

    def _due(self, pod: Pod) -> tuple[str, ...]:
        return decide.containers(pod, self._facts(pod), time.time()).run

    async def _stop(self, pod: Pod, facts: PodFacts | None) -> float | None:
        assert facts is not None
        fails = failing(pod, time.time())
        if fails is not None and not self._failing:
            self._failing = True
            self._tools.tell(pod, Happening(fails.reason, fails.message, warning=fails.warning))
        return await self._ender.end(pod, facts, ending.of_stopped(pod, facts, fails))

    async def _clean(self, facts: PodFacts | None) -> float:
        assert facts is not None
        await self._tools.provider.clean(self._uid, facts.host)
        return self._act(Step.CLEAN)

    def _tell_events(self, pod: Pod, facts: PodFacts) -> None:
        """What was told of before this process began is not told again."""
        if self._before is None and any(pod.told(container.name).get("containerID") for _, container in pods.containers(pod)):
            self._before = facts
        for happening in happenings.happenings(pod, self._before, facts):
            self._tools.tell(pod, happening)
        self._before = facts


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((at for at in (one, other) if at is not None), default=None)
