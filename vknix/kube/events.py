"""What happened, for `kubectl describe` and `kubectl get events`: recorded at once, sent in the background, repeats counted."""

import asyncio
import logging
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from vknix.errors import Conflict, NotFound, Unreachable, VknixError
from vknix.kube import api
from vknix.kube.client import Client

log = logging.getLogger(__name__)

NORMAL, WARNING = "Normal", "Warning"

SERIES = 4096  # how many different events are remembered, to count their repeats
SERIES_S = 600.0
MESSAGE_CHARS = 1024  # the API's limit


@dataclass(frozen=True, slots=True)
class Reference:
    """What an Event is about. One about a Node is only shown by `kubectl describe node` with the Node's real UID."""

    kind: str
    name: str
    namespace: str
    uid: str
    api_version: str = "v1"
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class _Event:
    regarding: Reference
    type: str
    reason: str
    message: str
    field_path: str
    at: float

    @property
    def key(self) -> tuple[str, ...]:
        return (self.regarding.uid, self.regarding.name, self.type, self.reason, self.message, self.field_path)


@dataclass(frozen=True, slots=True)
class _Series:
    """An Event that is at the API server, and how often it has happened."""

    name: str
    count: int
    last: float


@dataclass(frozen=True, slots=True)
class Limits:
    """As a kubelet has them, and how many events may wait while the API server takes none.

    `linger_s`: an Event waits so long, for what it tells of should not wait for it.
    """

    qps: float = 50.0
    burst: float = 100.0
    retry_s: float = 5.0
    queue: int = 1000
    linger_s: float = 0.25


class Recorder:
    """`record` from anywhere in the loop; `run` in one task."""

    def __init__(self, client: Client, node: str, *, limits: Limits = Limits(), clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._node = node
        self._limits = limits
        self._clock = clock
        self._queue: deque[_Event] = deque()
        self._ready = asyncio.Event()
        self._sent: OrderedDict[tuple[str, ...], _Series] = OrderedDict()
        self.dropped = 0

    def record(self, regarding: Reference, type: str, reason: str, message: str, field_path: str = "") -> None:  # noqa: A002
        """Never blocks, never fails. `field_path` names a container: `spec.containers{web}`."""
        if len(self._queue) >= self._limits.queue:
            self._queue.popleft()
            self.dropped += 1
            if self.dropped.bit_count() == 1:  # 1, 2, 4, 8, ...: a flood of Events must not become one of log lines
                log.warning("%d events dropped, the API server does not take them fast enough", self.dropped)
        self._queue.append(_Event(regarding, type, reason, message[:MESSAGE_CHARS], field_path, self._clock()))
        self._ready.set()

    async def run(self) -> None:
        """Sends what is recorded, at most `qps` a second after a burst, for ever."""
        qps, burst = self._limits.qps, self._limits.burst
        allowance, then = burst, time.monotonic()
        while True:
            await self._ready.wait()
            await self._linger()
            allowance, then = min(burst, allowance + (time.monotonic() - then) * qps), time.monotonic()
            if allowance < 1:
                await asyncio.sleep((1 - allowance) / qps)
                continue
            event = self._queue.popleft()
            if not self._queue:
                self._ready.clear()
            await self._deliver(event)
            allowance -= 1

    async def _linger(self) -> None:
        young_s = self._limits.linger_s - (self._clock() - self._queue[0].at)
        if young_s > 0:
            await asyncio.sleep(young_s)

    async def _deliver(self, event: _Event) -> None:
        """Until the API server has it or refuses it; meanwhile the queue forgets its oldest."""
        name = f"{event.regarding.name[:200]}.{secrets.token_hex(8)}"
        while True:
            try:
                await self._send(event, name)
                return
            except Unreachable as error:
                log.debug("event %s waits: %s", event.reason, error)
                await asyncio.sleep(self._limits.retry_s)
            except Conflict:
                return  # the name is ours alone: an earlier try did arrive
            except VknixError as error:  # its namespace is going, or the identity may not
                log.warning("event %s of %s lost: %s", event.reason, event.regarding.name, error)
                return

    async def _send(self, event: _Event, name: str) -> None:
        namespace = event.regarding.namespace or "default"  # where the API puts Events of cluster-scoped objects
        series = self._sent.get(event.key)
        if series is not None and event.at - series.last < SERIES_S:
            series = replace(series, count=series.count + 1, last=event.at)
            try:
                patch = {"count": series.count, "lastTimestamp": _time(event.at)}
                await api.patch_event(self._client, namespace, series.name, patch)
            except NotFound:  # the API server forgets Events after an hour: this one starts anew
                del self._sent[event.key]
            else:
                self._remember(event, series)
                return
        await api.create_event(self._client, namespace, self._body(event, namespace, name))
        self._remember(event, _Series(name, 1, event.at))

    def _remember(self, event: _Event, series: _Series) -> None:
        self._sent[event.key] = series
        self._sent.move_to_end(event.key)
        if len(self._sent) > SERIES:
            self._sent.popitem(last=False)

    def _body(self, event: _Event, namespace: str, name: str) -> api.Json:
        regarding = {
            "apiVersion": event.regarding.api_version,
            "kind": event.regarding.kind,
            "name": event.regarding.name,
            "namespace": event.regarding.namespace,
            "uid": event.regarding.uid,
            "resourceVersion": event.regarding.resource_version,
            "fieldPath": event.field_path,
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {key: value for key, value in regarding.items() if value},
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "count": 1,
            "firstTimestamp": _time(event.at),
            "lastTimestamp": _time(event.at),
            # The name that tools and tests expect of whatever plays the kubelet on a node.
            "source": {"component": "kubelet", "host": self._node},
            "reportingComponent": "kubelet",
            "reportingInstance": self._node,
        }


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
