"""One Pod: report what is, then carry out the one step that core/decide.py names. Runs when woken or when something is due.

Errors by class: wait (Unreachable: back off, the phase stays), refused (a status, an Event, no retry before something changes),
bug (anything else: reported with its trace, backed off; the node lives on).
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vknix import log as logs
from vknix.core import decide, ending, fields, happenings, host_network, known, resize, status, sysctls
from vknix.core import pod as pods
from vknix.core.container_status import View
from vknix.core.decide import Row, Step, Turn
from vknix.core.facts import HostFacts, HostName, HostState, PodFacts, Uid
from vknix.core.handlers import Handler
from vknix.core.happenings import Happening
from vknix.core.known import Doomed
from vknix.core.pod import Pod, PodRecord
from vknix.core.resize import Resize
from vknix.errors import Conflict, Deposed, HostFailed, NotFound, Refused, Unreachable
from vknix.kube import api
from vknix.ledger import Ledger
from vknix.loops.ending import Ender
from vknix.loops.hooks import Hooks
from vknix.loops.starting import Starter
from vknix.loops.together import both
from vknix.loops.tools import Tools
from vknix.provider import Place

log = logging.getLogger(__name__)

HOST_ANNOTATION = "vknix.io/host"  # which host a Pod is bound to; written before anything of it is made there


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
        self._answered = answered
        self._over = over
        self._task: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._failures = 0
        self._starter = Starter(tools)
        self._refused: Refused | None = None
        self._late: set[str] = set()  # ephemeral containers whose refusal was told
        self._unreadable: Refused | None = None  # an image name, which can be put right in place
        self._before: PodFacts | None = None
        self._seen: PodFacts | None = None  # as its host has told it, when this turn began
        self._acted: _Acted | None = None
        self._ender = Ender(uid, tools, hooks)
        self._doomed: Doomed = {}
        self._expired = False  # an Event has said so

    def wake(self, tasks: asyncio.TaskGroup) -> None:
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
        with logs.about(pod=f"{record.namespace}/{record.name}" if record is not None else str(self._uid)):
            try:
                until = await (self._turn(self._tools.decode(record.raw)) if record is not None else self._turn_gone())
                self._failures = 0
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
        handler = await self._handler(pod)  # before anything is looked at: nothing may change while it is looked at
        fit = await self._fit(pod)
        self._seen = self._ledger.seen.get(self._uid)  # what comes later is for the next turn, also where a start has looked at it
        facts = self._facts(pod)
        self._judge(pod, facts, handler)
        self._tell_late(pod)
        fitting = {name: of for name, of in self._ledger.hosts.items() if fit is None or name in fit}
        place = self._place(resize.in_force(pod, facts), facts, fitting)
        lost = self._lost(pod, place)
        resizing = self._resizing(pod, facts, place) if lost is None else None
        facts = resize.doomed(facts, resizing)
        if facts is not None and lost is None:
            self._tell_events(pod, facts)
            for happening in resize.happenings(pod, resizing):
                self._tools.tell(pod, happening)
        step = decide.step(pod, facts, time.time(), lost=lost is not None)
        if step in (Step.STOP, Step.KILL):  # neither waits for the other
            _, until = await both(self._report(pod, facts, place, lost, resizing), self._stop(pod, facts))
            return until
        before, pod = pod, await self._report(pod, facts, place, lost, resizing)
        if decide.row(pod, time.time()) is not decide.row(before, time.time()):
            self._again.set()  # there is something else to be told of it, before anything is done
            return None
        pod = resize.granted(pod, facts, resizing)
        step = decide.step(pod, facts, time.time(), lost=lost is not None)
        if (spent := self._spent(step)) is not None:
            return spent
        match step:
            case Step.WORK if place is not None:
                until = await self._work(pod, facts, place, update=resizing is not None and resizing.update)
                again = time.time() + self._tools.times.held if resizing is not None and resizing.refused else None
                return _sooner(_sooner(until, again), decide.expires(pod))
            case Step.CLEAN:
                return await self._clean(facts)
            case Step.CONFIRM:
                await api.delete_pod(self._tools.client, pod.namespace, pod.name, pod.uid)
                return self._act(step)  # the watch will say that it is gone
            case _:
                return time.time() + self._tools.times.held if fit is not None and not fit else None

    async def _fit(self, pod: Pod) -> frozenset[HostName] | None:
        """The hosts where its claims can be mounted: none while they are not bound. None: it asks for nothing of that kind."""
        if decide.row(pod, time.time()) is not Row.WANTED:
            self._tools.objects.forget(pod.uid)
            return None
        if self._refused or self._told_place(pod, self._ledger.seen.get(self._uid)) is not None:
            return None
        try:
            return await self._starter.hosts(pod, tuple(self._ledger.hosts))
        except Refused as refusal:
            self._tools.tell(pod, Happening(refusal.reason, str(refusal), warning=True))
            return frozenset()

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
                self._tools.objects.forget(self._uid)
                self._over(self._uid)
            case _:
                pass
        return None

    async def _handler(self, pod: Pod) -> Handler | None:
        """Of a Pod that no host has shown yet; None where that is not to be had now: its start will say so, and try again."""
        if self._uid in self._ledger.seen:
            return None
        try:
            return await self._starter.handler(pod, None)
        except Refused:
            return None

    def _judge(self, pod: Pod, facts: PodFacts | None, handler: Handler | None) -> None:
        if facts is not None or handler is None or decide.row(pod, time.time()) is not Row.WANTED or self._refused is not None:
            return
        unreadable = None
        try:
            spec = json.loads(self._ledger.wanted[self._uid].raw)["spec"]
            spec.pop("ephemeralContainers", None)  # each is judged by itself
            fields.check(spec, handler, self._tools.settings.aliases)
            sysctls.check(pod, self._tools.settings.allowed_unsafe_sysctls)
        except Refused as refusal:
            if refusal.reason != "InvalidImageName":
                self._refuse(pod, refusal)
            else:
                unreadable = refusal
                if str(self._unreadable) != str(refusal):
                    self._tools.tell(pod, Happening("Failed", f"Error: {refusal}", warning=True))
        self._unreadable = unreadable

    def _tell_late(self, pod: Pod) -> None:
        for name in pod.late.keys() - self._late:
            self._tools.tell(pod, Happening("Failed", f"Error: {pod.late[name]}", name, warning=True))
        self._late = set(pod.late)

    def _refuse(self, pod: Pod, refusal: Refused) -> None:
        self._refused = refusal
        self._tools.tell(pod, Happening(refusal.reason, str(refusal), warning=True))

    def _place(self, pod: Pod, facts: PodFacts | None, hosts: Mapping[HostName, HostFacts]) -> Place | None:
        """As the Pod itself says, else as its host does, else chosen now; None where it has no place and gets none yet."""
        place = self._told_place(pod, facts)
        if place is not None:
            self._tools.provider.adopt(pod, place)
            return place
        nowhere = self._lost(pod, None) is not None or (not hosts and bool(self._ledger.hosts))
        if decide.row(pod, time.time()) is not Row.WANTED or self._refused or self._unreadable or nowhere:
            return None
        try:
            place = self._tools.provider.place(pod, hosts)
            self._starter.check_limits(pod, self._ledger.hosts[place.host])
        except Refused as refusal:
            self._tools.provider.release(pod.uid)  # its limits may be refused where it had been given room
            self._refuse(pod, refusal)
            return None
        return place

    def _told_place(self, pod: Pod, facts: PodFacts | None) -> Place | None:
        """As its host says, else as the Pod does. An annotation alone is no word of ours: the Pod's author may have written it."""
        annotated = (pod.metadata.annotations or {}).get(HOST_ANNOTATION) if pod.status.get("hostIP") else None
        host = facts.host if facts is not None else annotated
        if host is None:
            return None
        told = () if pod.spec.host_network else tuple(each["ip"] for each in pod.status.get("podIPs") or ())
        return Place(HostName(host), told or (facts.addresses if facts is not None else ()))

    def _lost(self, pod: Pod, place: Place | None) -> str | None:
        """Why the Pod's host can't be asked; None: what is known is all there is."""
        hosts = self._ledger.hosts
        if place is not None:
            host = hosts.get(place.host)
            if host is None:
                return f"host {place.host} is not in the configuration" if hosts else "no host is known yet"
            return None if host.state is HostState.LISTED else f"host {host.name} does not answer: {host.message or 'connecting'}"
        if pod.uid in self._tools.inherited:
            unlisted = sorted(name for name, host in hosts.items() if host.state is not HostState.LISTED)
            if unlisted or not hosts:
                return f"it may run on a host that was not asked yet: {', '.join(unlisted) or 'none is known'}"
        return None

    def _is_unasked(self, name: HostName) -> bool:
        hosts = self._ledger.hosts
        return hosts[name].state is HostState.UNKNOWN if name in hosts else not hosts

    def _resizing(self, pod: Pod, facts: PodFacts | None, place: Place | None) -> Resize | None:
        """What changes of its resources; the room for it is taken where there is some."""
        wanted = resize.wanted(pod, facts)
        if wanted is None or place is None:
            return None
        try:
            resize.check_limits(pod, facts, self._ledger.hosts[place.host])
            self._tools.provider.resize(pod, place, self._ledger.hosts)
        except Refused as refusal:
            return Resize(refused=refusal)
        return wanted

    async def _report(
        self, pod: Pod, facts: PodFacts | None, place: Place | None, lost: str | None, resizing: Resize | None
    ) -> Pod:
        """Tells the API server what has changed, and where the Pod goes; answers the Pod as it is there then.

        The place is written and answered before anything is made there: a Pod never has two hosts.
        """
        if lost is not None and (place is None or self._is_unasked(place.host)):
            return pod  # what was told before this process began stays until the host has answered, or has not in time
        held = self._starter.held
        if self._unreadable is not None:
            held = {container.name: self._unreadable for _, container in pods.containers(pod)}
        host = self._ledger.hosts.get(place.host) if place is not None else None
        own = place.addresses if place is not None else ()
        host_ips, pod_ips = host_network.ips(pod, host, self._tools.settings.node_address, own)
        view = View(
            facts=facts,
            now=time.time(),
            lost=lost,
            refused=self._refused,
            held=held,
            host_ips=host_ips,
            pod_ips=pod_ips,
            placed=place is not None,
            resizing=resizing,
        )
        changed = status.patch(pod.status, status.pod_status(resize.in_force(pod, facts), view))
        patch: dict[str, Any] = {"status": changed} if changed else {}
        if place is not None and (pod.metadata.annotations or {}).get(HOST_ANNOTATION) != place.host:
            patch["metadata"] = {"annotations": {HOST_ANNOTATION: place.host}}
        return await self._patch(pod, patch) if patch else pod

    async def _patch(self, pod: Pod, patch: dict[str, Any]) -> Pod:
        try:
            answer = await api.patch_pod_status(self._tools.client, pod.namespace, pod.name, pod.uid, patch)
        except NotFound:
            return pod  # the watch will say so
        self._answered(pods.record(answer))
        return self._tools.decode(answer)

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
            over = ending.of_all(pod, facts, grace_s=pod.spec.grace_s) if turn.over else ()
            ended = await self._ender.end(pod, facts, (*over, *ending.of_doomed(pod, facts)))
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
        """All of a Pod that leaves, is past its deadline, or has ended and yet runs."""
        assert facts is not None
        match decide.row(pod, time.time()):
            case Row.LEAVING:
                wishes = ending.of_all(pod, facts, by=ending.deadline(pod))
            case Row.EXPIRED:
                wishes = ending.of_all(pod, facts, grace_s=pod.spec.grace_s)
                self._tell_expired(pod)
            case _:
                wishes = ending.of_all(pod, facts, by=0.0)
        return await self._ender.end(pod, facts, wishes)

    def _tell_expired(self, pod: Pod) -> None:
        if not self._expired:
            self._expired = True
            self._tools.tell(pod, Happening(status.DEADLINE_EXCEEDED, status.DEADLINE_MESSAGE))

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
