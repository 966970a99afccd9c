"""Where one Pod goes: whether it can be had at all, which hosts it fits, and the host that it is bound to or gets now."""

import json
import time
from collections.abc import Mapping

from vknix.core import decide, fields, resize, sysctls
from vknix.core.decide import Row
from vknix.core.facts import HostFacts, HostName, HostState, PodFacts, Uid
from vknix.core.handlers import Handler
from vknix.core.happenings import Happening
from vknix.core.pod import Pod
from vknix.core.resize import Resize
from vknix.core.status import HOST_ANNOTATION
from vknix.errors import Refused
from vknix.ledger import Ledger
from vknix.loops.starting import Starter
from vknix.loops.tools import Tools
from vknix.provider import Place


class Placing:
    """`refused`: the Pod can't be had, for good. `unreadable`: an image name, which can be put right in place."""

    def __init__(self, uid: Uid, ledger: Ledger, tools: Tools, starter: Starter) -> None:
        self._uid = uid
        self._ledger = ledger
        self._tools = tools
        self._starter = starter
        self.refused: Refused | None = None
        self.unreadable: Refused | None = None

    async def handler(self, pod: Pod) -> Handler | None:
        """Of a Pod that no host has shown yet; None where that is not to be had now: its start will say so, and try again."""
        if self._uid in self._ledger.seen:
            return None
        try:
            return await self._starter.handler(pod, None)
        except Refused:
            return None

    async def fit(self, pod: Pod) -> frozenset[HostName] | None:
        """The hosts where its claims can be mounted: none while they are not bound. None: it asks for nothing of that kind."""
        if decide.row(pod, time.time()) is not Row.WANTED:
            self._tools.objects.forget(pod.uid)
            return None
        if self.refused or self._told_place(pod, self._ledger.seen.get(self._uid)) is not None:
            return None
        try:
            return await self._starter.hosts(pod, tuple(self._ledger.hosts))
        except Refused as refusal:
            self._tools.tell(pod, Happening(refusal.reason, str(refusal), warning=True))
            return frozenset()

    def judge(self, pod: Pod, facts: PodFacts | None, handler: Handler | None) -> None:
        if facts is not None or handler is None or decide.row(pod, time.time()) is not Row.WANTED or self.refused is not None:
            return
        record = self._ledger.wanted.get(self._uid)
        if record is None:  # it has gone while its class or its claims were asked for
            return
        unreadable = None
        try:
            spec = json.loads(record.raw)["spec"]
            spec.pop("ephemeralContainers", None)  # each is judged by itself
            fields.check(spec, handler, self._tools.settings.aliases)
            sysctls.check(pod, self._tools.settings.allowed_unsafe_sysctls)
        except Refused as refusal:
            if refusal.reason != "InvalidImageName":
                self._refuse(pod, refusal)
            else:
                unreadable = refusal
                if str(self.unreadable) != str(refusal):
                    self._tools.tell(pod, Happening("Failed", f"Error: {refusal}", warning=True))
        self.unreadable = unreadable

    def place(self, pod: Pod, facts: PodFacts | None, hosts: Mapping[HostName, HostFacts]) -> Place | None:
        """As the Pod itself says, else as its host does, else chosen now; None where it has no place and gets none yet."""
        place = self._told_place(pod, facts)
        if place is not None:
            self._tools.provider.adopt(pod, place)
            return place
        nowhere = self.lost(pod, None) is not None or (not hosts and bool(self._ledger.hosts))
        if decide.row(pod, time.time()) is not Row.WANTED or self.refused or self.unreadable or nowhere:
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

    def lost(self, pod: Pod, place: Place | None) -> str | None:
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

    def is_unasked(self, name: HostName) -> bool:
        hosts = self._ledger.hosts
        return hosts[name].state is HostState.UNKNOWN if name in hosts else not hosts

    def resizing(self, pod: Pod, facts: PodFacts | None, place: Place | None) -> Resize | None:
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

    def _refuse(self, pod: Pod, refusal: Refused) -> None:
        self.refused = refusal
        self._tools.tell(pod, Happening(refusal.reason, str(refusal), warning=True))
