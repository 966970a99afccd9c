"""The Node: registered, kept as it is to be, given its lease. Comes back when somebody deletes it."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from vknix.core import nodestatus
from vknix.core.facts import HostName, HostState
from vknix.core.nodestatus import NodeSettings
from vknix.errors import Conflict, NotFound, Unreachable
from vknix.kube import api, watch
from vknix.kube.client import Client
from vknix.kube.events import Recorder, Reference
from vknix.kube.lease import NodeLease
from vknix.ledger import Ledger
from vknix.provider import Provider

log = logging.getLogger(__name__)

SLICES = "vknix.io/pod-cidrs"  # which host has which piece of the Pod CIDRs: JSON; routes to Pods are made by it
_LOOK_S = 10.0
_STALLED_S = 300.0  # a kubelet's limit
_REPORT_S = 300.0  # a status that says nothing new is still told this often


class Heartbeat:
    """`run` for ever. `changed` is set by whoever learns something new about a host."""

    def __init__(
        self,
        ledger: Ledger,
        client: Client,
        provider: Provider,
        events: Recorder,
        lease: NodeLease,
        settings: NodeSettings,
        pod_cidrs: tuple[str, ...],
        changed: asyncio.Event,
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._provider = provider
        self._events = events
        self._lease = lease
        self._settings = settings
        self._pod_cidrs = pod_cidrs
        self._changed = changed
        self._node: dict[str, Any] | None = None
        self._configured: Mapping[HostName, str] = {}
        self._given_cidrs: tuple[str, ...] = ()
        self._told_at = 0.0
        self._ready: str | None = None
        self._beaten = time.monotonic()

    def stalled(self) -> str:
        """Why the node is not well, as /healthz/syncloop says it; "" where it is."""
        ago_s = time.monotonic() - self._beaten
        return f"the node's loop was last seen {ago_s:.0f} s ago" if ago_s > _STALLED_S else ""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lease.hold())
            tasks.create_task(self._follow())
            while True:
                try:
                    await self._beat()
                except (Unreachable, Conflict, NotFound) as error:
                    log.info("node %s: %s", self._settings.name, error)
                    await asyncio.sleep(1)
                self._beaten = time.monotonic()
                try:
                    async with asyncio.timeout(_LOOK_S):
                        await self._changed.wait()
                except TimeoutError:
                    continue
                self._changed.clear()

    async def _follow(self) -> None:
        """What others do to the Node: a podCIDR, a deletion, a changed label."""
        of = api.node_itself(self._settings.name)
        async with aclosing(watch.follow(self._client, of.path, query=of.query, decode=_decode)) as events:
            async for event in events:
                match event:
                    case watch.Listed(items):
                        self._node = items[0] if items else None
                    case watch.Changed(node):
                        self._node = node
                    case watch.Gone(_):
                        log.warning("node %s was deleted: registering it again", self._settings.name)
                        self._node = None
                    case watch.Lost():
                        continue
                self._changed.set()

    async def _beat(self) -> None:
        if self._node is None:
            await self._register()
        node = self._node
        assert node is not None
        self._lease.own(node["metadata"]["uid"])
        await self._configure(node)
        await self._keep_labels(node)
        await self._tell(node)

    async def _register(self) -> None:
        wanted = nodestatus.new_node(self._settings, self._ledger.hosts.values(), time.time(), self._given_cidrs)
        try:
            self._node = _decode(await api.create_node(self._client, wanted))
            log.info("registered node %s", self._settings.name)
        except Conflict:
            self._node = _decode(await api.get_node(self._client, self._settings.name))
        self._told_at = 0.0
        self._events.record(self._reference(), "Normal", "Starting", "Starting vknix.")

    def _reference(self) -> Reference:
        assert self._node is not None
        return Reference("Node", self._settings.name, "", self._node["metadata"]["uid"])

    async def _configure(self, node: dict[str, Any]) -> None:
        """The pieces of the Pod CIDRs are on the Node before the first Pod is."""
        self._given_cidrs = tuple(node["spec"].get("podCIDRs") or ()) or self._given_cidrs
        cidrs = self._pod_cidrs or self._given_cidrs
        if not cidrs:
            return
        annotations = node["metadata"].get("annotations") or {}
        told = {HostName(host): cidr for host, cidr in json.loads(annotations.get(SLICES, "{}")).items()}
        try:
            made = self._configured or self._provider.configure(cidrs, told)
        except ValueError as error:
            raise Unreachable(str(error)) from error
        if made != told:
            text = json.dumps(dict(sorted(made.items())))
            self._node = _decode(
                await api.patch_node(self._client, self._settings.name, {"metadata": {"annotations": {SLICES: text}}})
            )
        self._configured = made

    async def _keep_labels(self, node: dict[str, Any]) -> None:
        labels = nodestatus.labels(self._settings, self._ledger.hosts.values())
        told = node["metadata"].get("labels") or {}
        lacking = {key: value for key, value in labels.items() if told.get(key) != value}
        if lacking:
            self._node = _decode(await api.patch_node(self._client, self._settings.name, {"metadata": {"labels": lacking}}))

    async def _tell(self, node: dict[str, Any]) -> None:
        hosts = self._ledger.hosts.values()
        told = node.get("status") or {}
        if not self._told_at and not self._all_asked() and nodestatus.is_ready(told):
            return  # a restart of vknix is no reason to say that a node which is ready is not
        wanted = nodestatus.node_status(self._settings, hosts, told, time.time(), networked=bool(self._configured))
        if not nodestatus.differs(told, wanted) and time.monotonic() - self._told_at < _REPORT_S:
            return
        answer = await api.patch_node_status(self._client, self._settings.name, {"status": wanted})
        self._node, self._told_at = _decode(answer), time.monotonic()
        self._say_ready(wanted)

    def _all_asked(self) -> bool:
        """Whether each host has answered, or has not in time."""
        hosts = self._ledger.hosts.values()
        return bool(hosts) and all(facts.state is not HostState.UNKNOWN for facts in hosts)

    def _say_ready(self, status: Mapping[str, Any]) -> None:
        ready = status["conditions"][-1]["status"]
        if ready != self._ready:
            reason = "NodeReady" if ready == "True" else "NodeNotReady"
            self._events.record(self._reference(), "Normal", reason, f"Node {self._settings.name} status is now: {reason}")
            log.info("node %s: %s", self._settings.name, status["conditions"][-1]["message"])
        self._ready = ready


def _decode(raw: bytes) -> dict[str, Any]:
    node: dict[str, Any] = json.loads(raw)
    return node
