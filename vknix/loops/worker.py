"""One Pod: report what is, then carry out the one step that core/decide.py names. Runs when woken or when something is due.

Errors by class: wait (Unreachable: back off, the phase stays), refused (a status, an Event, no retry before something changes),
bug (anything else: reported with its trace, backed off; the node lives on).
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vknix import log as logs
from vknix.core import decide, fields, happenings, inputs, status
from vknix.core import pod as pods
from vknix.core.container_status import View
from vknix.core.decide import Step
from vknix.core.facts import HostFacts, HostName, HostState, PodFacts, State, Uid
from vknix.core.fetched import Surroundings
from vknix.core.pod import Pod, PodRecord
from vknix.errors import Conflict, Deposed, HostFailed, NotFound, Refused, Unreachable
from vknix.kube import api
from vknix.kube.client import Client
from vknix.kube.events import Recorder, Reference
from vknix.ledger import Ledger
from vknix.loops.objects import Objects
from vknix.loops.together import both
from vknix.provider import Place, Provider

log = logging.getLogger(__name__)

HOST_ANNOTATION = "vknix.io/host"  # which host a Pod is bound to; written before anything of it is made there
_BACKOFF_S = (0.5, 1, 2, 4, 8, 15, 30)
_HELD_S = 10.0  # how soon a container that can't be configured is tried again (the kubelet's sync after an error)
_KILL_S = 2.0  # what a Pod that was deleted by force still gets
_ADOPT_S = 30.0  # within which a Pod that was taken over gets fresh tokens


@dataclass(frozen=True, slots=True)
class PodSettings:
    node_name: str
    node_address: str
    cluster_domain: str
    cluster_dns: tuple[str, ...]
    strict_limits: bool


@dataclass(slots=True)
class Tools:
    """What all workers share. `inherited`: Pods that were there when this process began, which another may have started."""

    client: Client
    provider: Provider
    objects: Objects
    events: Recorder
    settings: PodSettings
    inherited: set[Uid] = field(default_factory=set)
    hosts_changed: asyncio.Event = field(default_factory=asyncio.Event)


class Worker:
    """What it remembers between two turns is only what spares it work, or a second Event of the same."""

    def __init__(self, uid: Uid, ledger: Ledger, tools: Tools, want: Callable[[PodRecord], None]) -> None:
        self.over = False
        self._uid = uid
        self._ledger = ledger
        self._tools = tools
        self._want = want
        self._task: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._failures = 0
        self._held: Mapping[str, Refused] = {}
        self._held_until = 0.0
        self._refused: Refused | None = None
        self._before: PodFacts | None = None
        self._stopping: float | None = None  # the deadline that was last sent
        self._refresh_at: float | None = None

    def wake(self, tasks: asyncio.TaskGroup) -> None:
        self._again.set()
        if self._task is None or self._task.done():
            self._task = tasks.create_task(self._run(), name=f"pod {self._uid}")

    async def _run(self) -> None:
        """Turn after turn until nothing is due; woken again, a new task goes on."""
        while self._again.is_set():
            self._again.clear()
            until = await self._guarded_turn()
            if until is None or self.over:
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
                until = await self._turn(record)
                self._failures = 0
                return until
            except (Unreachable, HostFailed, Conflict, TimeoutError) as error:
                log.info("waiting: %s", error)
            except (Deposed, asyncio.CancelledError):
                raise
            except Exception:  # one Pod's bug must not take the node down
                log.exception("a bug in the work on this Pod")
            self._failures += 1
            return time.time() + _BACKOFF_S[min(self._failures, len(_BACKOFF_S)) - 1]

    async def _turn(self, record: PodRecord | None) -> float | None:
        facts = self._ledger.seen.get(self._uid)
        pod = pods.decode(record.raw) if record is not None else None
        if pod is None:
            return await self._turn_gone(facts)
        self._judge(pod, facts)
        place = self._place_of(pod, facts)
        if place is not None:
            self._tools.provider.adopt(pod, place)
        lost = self._lost(pod, facts, place)
        if facts is not None and lost is None:
            self._tell_events(pod, facts)
        pod = await self._report(pod, facts, place, lost)
        match decide.step(pod, facts, lost=lost is not None):
            case Step.WORK:
                return await self._work(pod, facts, place)
            case Step.STOP:
                return await self._stop(pod, facts, decide.deadline(pod))
            case Step.KILL:
                return await self._stop(pod, facts, self._stopping or time.time() + _KILL_S)
            case Step.CLEAN:
                await self._clean(facts)
            case Step.CONFIRM:
                await api.delete_pod(self._tools.client, pod.namespace, pod.name, pod.uid)
            case Step.WAIT | Step.FORGET:
                pass
        return None

    async def _turn_gone(self, facts: PodFacts | None) -> float | None:
        """The API server has no such Pod (any more)."""
        lost = facts is not None and self._ledger.host_state(facts.host) is not HostState.LISTED
        match decide.step(None, facts, lost=lost):
            case Step.KILL:
                return await self._stop(None, facts, self._stopping or time.time() + _KILL_S)
            case Step.CLEAN:
                await self._clean(facts)
            case Step.FORGET:
                self._tools.provider.release(self._uid)
                self._tools.inherited.discard(self._uid)
                self.over = True
            case _:
                pass
        return None

    def _judge(self, pod: Pod, facts: PodFacts | None) -> None:
        if facts is None and not pod.leaving and not pod.ended and self._refused is None:
            try:
                fields.check(json.loads(self._ledger.wanted[self._uid].raw)["spec"])
            except Refused as refusal:
                self._refuse(pod, refusal)

    def _refuse(self, pod: Pod, refusal: Refused) -> None:
        """InvalidImageName is the one that can be put right in place; it waits instead of ending the Pod."""
        if refusal.reason == "InvalidImageName":
            self._held = {container.name: refusal for _, container in pods.containers(pod)}
            self._held_until = float("inf")
            self._event(pod, happenings.Happening("Failed", f"Error: {refusal}", warning=True))
        else:
            self._refused = refusal
            self._event(pod, happenings.Happening(refusal.reason, str(refusal), warning=True))

    def _place_of(self, pod: Pod, facts: PodFacts | None) -> Place | None:
        """As the Pod itself says, else as its host does."""
        annotations = pod.metadata.annotations or {}
        host = annotations.get(HOST_ANNOTATION) or (facts.host if facts is not None else None)
        if host is None:
            return None
        told = tuple(each["ip"] for each in pod.status.get("podIPs") or ())
        return Place(HostName(host), told or (facts.addresses if facts is not None else ()))

    def _lost(self, pod: Pod, facts: PodFacts | None, place: Place | None) -> str | None:
        """Why the Pod's host can't be asked; None: what is known is all there is."""
        hosts = self._ledger.hosts
        if place is not None:
            host = hosts.get(place.host)
            if host is None:
                return f"host {place.host} is not in the configuration" if hosts else "no host is known yet"
            return None if host.state is HostState.LISTED else f"host {host.name} does not answer: {host.message or 'connecting'}"
        if self._uid in self._tools.inherited:
            unlisted = sorted(name for name, host in hosts.items() if host.state is not HostState.LISTED)
            if unlisted or not hosts:
                return f"it may run on a host that was not asked yet: {', '.join(unlisted) or 'none is known'}"
        return None

    async def _report(self, pod: Pod, facts: PodFacts | None, place: Place | None, lost: str | None) -> Pod:
        """Tells the API server what has changed; answers the Pod as it is there then."""
        view = View(
            facts=facts,
            now=time.time(),
            lost=lost,
            refused=self._refused,
            held=self._held,
            host_ips=(self._tools.settings.node_address,),
            pod_ips=place.addresses if place is not None else (),
            placed=place is not None,
        )
        if lost is not None and place is None:
            return pod
        changed = status.patch(pod.status, status.pod_status(pod, view))
        return await self._patch(pod, {"status": changed}) if changed else pod

    async def _patch(self, pod: Pod, patch: dict[str, Any]) -> Pod:
        try:
            answer = await api.patch_pod_status(self._tools.client, pod.namespace, pod.name, pod.uid, patch)
        except NotFound:
            return pod  # the watch will say so
        self._want(pods.record(answer))
        return pods.decode(answer)

    async def _work(self, pod: Pod, facts: PodFacts | None, place: Place | None) -> float | None:
        if self._refused is not None:
            return None
        now = time.time()
        turn = decide.containers(pod, facts, now)
        run = tuple(name for name in turn.run if name not in self._held or self._held_until <= now)
        refresh = self._refresh_due(pod, facts, now)
        if not run and not (refresh is not None and refresh <= now):
            due = (turn.until, refresh, self._held_until if self._held else None)
            return min((at for at in due if at is not None and at != float("inf")), default=None)
        return await self._start(pod, place, run)

    def _refresh_due(self, pod: Pod, facts: PodFacts | None, now: float) -> float | None:
        """Tokens of a Pod that another process started are renewed soon: when they expire is not known."""
        runs = facts is not None and any(container.state is State.RUNNING for container in facts.containers.values())
        if runs and self._refresh_at is None:
            self._refresh_at = now + random.uniform(1, _ADOPT_S) if inputs.needs(pod).tokens else float("inf")  # noqa: S311
        return self._refresh_at if runs else None

    async def _start(self, pod: Pod, place: Place | None, run: tuple[str, ...]) -> float | None:
        if place is None:
            try:
                place = self._tools.provider.place(pod, self._ledger.hosts)
            except Refused as refusal:
                self._refuse(pod, refusal)
                return time.time()
        host = self._ledger.hosts[place.host]
        refused = self._check_limits(pod, host)
        if refused:
            return time.time()
        pod, fetched = await both(self._bind(pod, place), self._tools.objects.fetch(pod))
        try:
            made = inputs.resolve(pod, fetched, self._around(place, host))
        except Refused as refusal:
            self._event(pod, happenings.Happening(refusal.reason, str(refusal), warning=True))
            return time.time() + _HELD_S
        self._hold(pod, made)
        await self._tools.provider.sync(pod, place, made, tuple(name for name in run if name in made.containers))
        self._refresh_at = made.refresh_at if made.refresh_at is not None else float("inf")
        return self._held_until if self._held else None

    async def _bind(self, pod: Pod, place: Place) -> Pod:
        """Written and answered before anything is made: a Pod never has two hosts."""
        if (pod.metadata.annotations or {}).get(HOST_ANNOTATION) == place.host:
            return pod
        addresses = {"podIP": place.addresses[0], "podIPs": [{"ip": ip} for ip in place.addresses]} if place.addresses else {}
        return await self._patch(pod, {"metadata": {"annotations": {HOST_ANNOTATION: place.host}}, "status": addresses})

    def _around(self, place: Place, host: HostFacts) -> Surroundings:
        settings = self._tools.settings
        return Surroundings(
            node_name=settings.node_name,
            host_ips=(settings.node_address,),
            pod_ips=place.addresses,
            cpu_milli=host.cpu_milli,
            memory_bytes=host.memory_bytes,
            storage_bytes=host.storage_bytes,
            cluster_dns=settings.cluster_dns or self._tools.objects.cluster_dns,
            cluster_domain=settings.cluster_domain,
            host_resolv_conf=host.resolv_conf,
        )

    def _check_limits(self, pod: Pod, host: HostFacts) -> bool:
        """Says which limits the host can't enforce; True where that refuses the Pod."""
        lacking = happenings.unenforced(pod, host)
        if not lacking:
            return False
        message = f"host {host.name} has no cgroup controller for {', '.join(lacking)}"
        if self._tools.settings.strict_limits:
            self._refuse(pod, Refused(lacking[0], message, remedy="drop the limit, or set strictLimits: false"))
            return True
        self._event(pod, happenings.Happening("LimitsNotEnforced", f"{message}: the Pod runs without", warning=True))
        return False

    def _hold(self, pod: Pod, made: inputs.Inputs) -> None:
        for name, refusal in made.held.items():
            if str(self._held.get(name)) != str(refusal):
                self._event(pod, happenings.Happening("Failed", f"Error: {refusal}", name, warning=True))
        for note in made.notes:
            self._event(pod, happenings.Happening(note.reason, note.message, warning=True))
        if made.held and made.held.keys() != self._held.keys():
            self._again.set()
        self._held = made.held
        self._held_until = time.time() + _HELD_S

    async def _stop(self, pod: Pod | None, facts: PodFacts | None, deadline: float) -> float | None:
        """Asks once for each deadline, and again when it has passed; then each second until it is done."""
        assert facts is not None
        now = time.time()
        if self._stopping is None or deadline < self._stopping or now >= deadline:
            if self._stopping is None and pod is not None:
                for name, container in facts.containers.items():
                    if container.state is not State.STOPPED:
                        self._event(pod, happenings.Happening("Killing", f"Stopping container {name}", name))
            self._stopping = deadline
            grace_s = pod.spec.grace_s if pod is not None else _KILL_S
            await self._tools.provider.stop(self._uid, facts.host, (), deadline, grace_s)
        return deadline if now < deadline else now + 1

    async def _clean(self, facts: PodFacts | None) -> None:
        assert facts is not None
        await self._tools.provider.clean(self._uid, facts.host)

    def _tell_events(self, pod: Pod, facts: PodFacts) -> None:
        """What was told of before this process began is not told again."""
        if self._before is None and any(pod.told(container.name).get("containerID") for container in pod.spec.containers):
            self._before = facts
        for happening in happenings.happenings(pod, self._before, facts):
            self._event(pod, happening)
        self._before = facts

    def _event(self, pod: Pod, happening: happenings.Happening) -> None:
        reference = Reference("Pod", pod.name, pod.namespace, pod.uid, resource_version=pod.metadata.resource_version)
        path = f"spec.containers{{{happening.container}}}" if happening.container else ""
        kind = "Warning" if happening.warning else "Normal"
        self._tools.events.record(reference, kind, happening.reason, happening.message, path)
