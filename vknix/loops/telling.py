"""What a node tells of itself to whoever may ask: numbers, and lists of Pods. Documents are core's."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

import msgspec

from vknix import exposition
from vknix.core import metrics, own_metrics
from vknix.core.facts import HostState
from vknix.core.running import running_pods
from vknix.core.summary import summary
from vknix.exposition import Family
from vknix.ledger import Ledger
from vknix.loops.usages import Usages
from vknix.telemetry import Telemetry, gauge

Document = Callable[[], Awaitable[str]]


class Telling:
    """`stalled` says why the node is not well, or "" where it is."""

    def __init__(self, node: str, ledger: Ledger, usages: Usages, telemetry: Telemetry, stalled: Callable[[], str]) -> None:
        self._node = node
        self._ledger = ledger
        self._usages = usages
        self._telemetry = telemetry
        self._stalled = stalled

    @property
    def metrics(self) -> Mapping[str, Document]:
        """By the path of each."""
        return {
            "/metrics": partial(self._render, self._own),
            "/metrics/cadvisor": self._cadvisor,
            "/metrics/probes": partial(self._render, self._telemetry.probed),
            "/metrics/resource": self._resource,
            "/metrics/slis": partial(self._render, self._slis),
        }

    def pods(self) -> bytes:
        """A v1.PodList of what is wanted here, each as the API server has it."""
        items = b",".join(record.raw for record in self._ledger.wanted.values())
        return b'{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[' + items + b"]}"

    def running_pods(self) -> bytes:
        return msgspec.json.encode(running_pods(self._ledger.seen.values()))

    async def summary(self, *, only_cpu_and_memory: bool) -> bytes:
        measured = await self._usages.read()
        return msgspec.json.encode(summary(measured, time.time(), only_cpu_and_memory=only_cpu_and_memory))

    async def _resource(self) -> str:
        return exposition.render(metrics.resource(await self._usages.read()))

    async def _cadvisor(self) -> str:
        measured = await self._usages.read()
        cores = sum(self._ledger.hosts[name].cpu_milli for name in measured.hosts if name in self._ledger.hosts) / 1000
        return exposition.render(metrics.cadvisor(measured, cores))

    async def _render(self, families: Callable[[], Iterable[Family]]) -> str:
        return exposition.render(families())

    def _own(self) -> Iterable[Family]:
        hosts, seen = self._ledger.hosts.values(), self._ledger.seen.values()
        yield from own_metrics.gauges(self._node, hosts, seen, len(self._ledger.wanted))
        yield from self._telemetry.families()

    def _slis(self) -> Iterable[Family]:
        away = any(facts.state is not HostState.LISTED for facts in self._ledger.hosts.values())
        checks = (("ping", True), ("log", True), ("syncloop", not self._stalled()), ("hosts", not away))
        told = "This metric records the result of a single healthcheck."
        yield gauge("kubernetes_healthcheck", told, *(((("name", name), ("type", "healthz")), int(good)) for name, good in checks))
