"""What the API server is told of one Pod: its status, and where it goes."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from vknix.core import host_network, resize, status
from vknix.core import pod as pods
from vknix.core.container_status import View
from vknix.core.facts import PodFacts, Uid
from vknix.core.pod import Pod, PodRecord
from vknix.core.resize import Resize
from vknix.errors import NotFound
from vknix.kube import api
from vknix.ledger import Ledger
from vknix.loops.placing import Placing
from vknix.loops.starting import Starter
from vknix.loops.tools import Tools
from vknix.provider import Place


class Reporter:
    """`answered` is told what the API server has said to a write."""

    def __init__(
        self,
        uid: Uid,
        ledger: Ledger,
        tools: Tools,
        starter: Starter,
        placing: Placing,
        answered: Callable[[PodRecord], None],
    ) -> None:
        self._uid = uid
        self._ledger = ledger
        self._tools = tools
        self._starter = starter
        self._placing = placing
        self._answered = answered

    async def report(self, pod: Pod, facts: PodFacts | None, place: Place | None, lost: str | None, resizing: Resize | None) -> Pod:
        """Tells the API server what has changed, and where the Pod goes; answers the Pod as it is there then.

        The place is written and answered before anything is made there: a Pod never has two hosts.
        """
        if lost is not None and (place is None or self._placing.is_unasked(place.host)):
            return pod  # what was told before this process began stays until the host has answered, or has not in time
        held = self._starter.held
        if self._placing.unreadable is not None:
            held = {container.name: self._placing.unreadable for _, container in pods.containers(pod)}
        host = self._ledger.hosts.get(place.host) if place is not None else None
        own = place.addresses if place is not None else ()
        host_ips, pod_ips = host_network.ips(pod, host, self._tools.settings.node_address, own)
        view = View(
            facts=facts,
            now=time.time(),
            lost=lost,
            refused=self._placing.refused,
            held=held,
            host_ips=host_ips,
            pod_ips=pod_ips,
            placed=place is not None,
            resizing=resizing,
        )
        changed = status.patch(pod.status, status.pod_status(resize.in_force(pod, facts), view))
        patch: dict[str, Any] = {"status": changed} if changed else {}
        if place is not None and (pod.metadata.annotations or {}).get(status.HOST_ANNOTATION) != place.host:
            patch["metadata"] = {"annotations": {status.HOST_ANNOTATION: place.host}}
        with self._tools.starts.telling(self._uid, patch):
            return await self._patch(pod, patch) if patch else pod

    async def _patch(self, pod: Pod, patch: dict[str, Any]) -> Pod:
        try:
            answer = await api.patch_pod_status(self._tools.client, pod.namespace, pod.name, pod.uid, patch)
        except NotFound:
            return pod  # the watch will say so
        self._answered(pods.record(answer))
        return self.decode(answer)

    def decode(self, raw: bytes) -> Pod:
        pod, why = self._tools.decode(raw), self._ledger.evicted.get(self._uid)
        return pod if why is None else msgspec.structs.replace(pod, evicted=why)
