"""The start of containers: what a Pod refers to is fetched and resolved, and handed to the backend with it."""

import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import msgspec

from vknix.core import claims, env_files, handlers, happenings, host_network, inputs
from vknix.core.facts import HostFacts, HostName, PodFacts, State
from vknix.core.fetched import FileKey, Surroundings
from vknix.core.handlers import Handler
from vknix.core.happenings import Happening
from vknix.core.pod import Pod
from vknix.errors import NotFound, Refused
from vknix.kube import api
from vknix.loops.starts import Phase
from vknix.loops.tools import Tools
from vknix.provider import Place

_NEVER = float("inf")


class _RuntimeClass(msgspec.Struct):
    handler: str


class Starter:
    """Of one Pod. `held` are the containers that could not be configured when it was last tried."""

    def __init__(self, tools: Tools) -> None:
        self.held: Mapping[str, Refused] = {}
        self._tools = tools
        self._noted: tuple[inputs.Note, ...] = ()
        self._held_until = 0.0
        self._refresh_at: float | None = None
        self._shown: object = None  # of the Pod, what its files and mounts were made from
        self._handler: Handler | None = None

    async def handler(self, pod: Pod, facts: PodFacts | None) -> Handler:
        """As its host has it, else as its RuntimeClass says now. Refused (FailedCreatePodSandBox) where that leads nowhere."""
        if facts is not None:
            return facts.handler
        if self._handler is None:
            self._handler = await self._asked_handler(pod)
        return self._handler

    async def _asked_handler(self, pod: Pod) -> Handler:
        name = pod.spec.runtime_class_name
        if not name:
            return handlers.DEFAULT
        try:
            found = msgspec.json.decode(await api.get_runtime_class(self._tools.client, name), type=_RuntimeClass).handler
        except NotFound:
            found = None
        return handlers.chosen(name, found, self._tools.settings.runtime_handlers)

    def runnable(self, run: tuple[str, ...], now: float) -> tuple[str, ...]:
        return tuple(name for name in run if name not in self.held or self._held_until <= now)

    def due(self, pod: Pod, facts: PodFacts | None, now: float) -> float | None:
        """When a start is due though no container is: one is held, or a token is to be renewed.

        Tokens of a Pod that another process started are renewed soon: when they expire is not known.
        """
        self._note_change(pod)
        runs = facts is not None and any(container.state is State.RUNNING for container in facts.containers.values())
        if runs and self._refresh_at is None:
            soon = now + random.uniform(0, self._tools.times.adopt)  # noqa: S311  # spreads them, no secret
            self._refresh_at = soon if inputs.changes(pod) else _NEVER
        refresh = self._refresh_at if runs and self._refresh_at is not None else _NEVER
        at = min(refresh, self._held_until if self.held else _NEVER)
        return at if at < _NEVER else None

    def _note_change(self, pod: Pod) -> None:
        """What was made is to be made anew, now: something that it was made from is another."""
        told = self._shown is not None and self._shown != inputs.shown(pod)
        if told or pod.uid in self._tools.objects.changed:
            self._held_until = 0.0
            self._refresh_at = 0.0 if self._refresh_at is not None else None

    async def hosts(self, pod: Pod, pool: Collection[HostName]) -> frozenset[HostName] | None:
        """Those where the volumes of its claims are; None: it has no claims, or there is no pool (yet).

        Refused (FailedMount) where there is no such host.
        """
        if not claims.names(pod) or not pool:
            return None
        found = await self._tools.objects.claims(pod)
        for index, volume in enumerate(pod.spec.volumes or ()):
            if (source := claims.source(pod, volume)) is not None:
                claims.bound(pod, f"spec.volumes[{index}]", volume, found[source.claim_name])
        return claims.hosts([each for each in found.values() if each is not None], pool)

    async def start(
        self,
        pod: Pod,
        facts: PodFacts | None,
        place: Place,
        host: HostFacts,
        run: tuple[str, ...],
        due: Callable[[], tuple[str, ...]],
    ) -> None:
        """Refused where a volume lacks what it must have. Containers that can't be configured are held.

        `due`: which are to start by what is known once all is at hand; another may have begun, or ended, meanwhile.
        """
        handler = await self.handler(pod, facts)
        self._tools.objects.changed.discard(pod.uid)
        self._shown = inputs.shown(pod)
        self._tools.objects.follow(pod)
        fetched = replace(await self._tools.objects.fetch(pod), files=await self._files(pod, facts, place, run))
        made = inputs.resolve(pod, fetched, self._around(pod, place, host), handler)
        self._hold(pod, made)
        still = due()
        await self._tools.provider.sync(pod, place, made, tuple(name for name in run if name in made.containers and name in still))
        self._tools.starts.reached(pod.uid, Phase.MAKE)
        self._refresh_at = made.refresh_at if made.refresh_at is not None else _NEVER

    async def _files(self, pod: Pod, facts: PodFacts | None, place: Place, run: tuple[str, ...]) -> Mapping[FileKey, bytes | None]:
        """What those who start, or were held, must have, and what those who run had."""
        seen = facts.containers if facts is not None else {}
        running = {name for name, container in seen.items() if container.state is not State.STOPPED}
        must, had = env_files.keys(pod, {*run, *self.held}), env_files.keys(pod, running)
        if facts is None or not must | had:
            return dict.fromkeys(must)
        found = await self._tools.provider.read(pod, place.host, must | had)
        return {key: data for key, data in found.items() if key in must or data is not None}

    def _around(self, pod: Pod, place: Place, host: HostFacts) -> Surroundings:
        settings = self._tools.settings
        host_ips, pod_ips = host_network.ips(pod, host, settings.node_address, place.addresses)
        return Surroundings(
            node_name=settings.node_name,
            host_ips=host_ips,
            pod_ips=pod_ips,
            cpu_milli=host.cpu_milli,
            memory_bytes=host.allocatable_bytes,
            storage_bytes=host.storage_bytes,
            cluster_dns=settings.cluster_dns or self._tools.objects.cluster_dns,
            cluster_domain=settings.cluster_domain,
            host_resolv_conf=host.resolv_conf,
            host_name=host.hostname,
            host_hosts=host.hosts,
        )

    def check_limits(self, pod: Pod, host: HostFacts) -> None:
        """Says which limits the host can't enforce; Refused where the configuration says that it must."""
        lacking = happenings.unenforced(pod, host)
        if not lacking:
            return
        message = f"host {host.name} has no cgroup controller for {', '.join(lacking)}"
        if self._tools.settings.strict_limits:
            raise Refused(lacking[0], message, remedy="drop the limit, or set strictLimits: false")
        self._tools.tell(pod, Happening("LimitsNotEnforced", f"{message}: the Pod runs without", warning=True))

    def _hold(self, pod: Pod, made: inputs.Inputs) -> None:
        for name, refusal in made.held.items():
            if str(self.held.get(name)) != str(refusal):
                self._tools.tell(pod, Happening("Failed", f"Error: {refusal}", name, warning=True))
        for note in made.notes:
            if note not in self._noted:
                self._tools.tell(pod, Happening(note.reason, note.message, warning=True))
        self._noted = made.notes
        self.held = made.held
        self._held_until = time.time() + self._tools.times.held
