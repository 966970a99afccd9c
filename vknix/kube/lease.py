"""The node's Lease: its heartbeat, and in an annotation which vknix process leads the node, under which epoch.

One object for both, since a node's identity may own only the Lease of its own name. Every write names the resourceVersion
that was read, so of two processes that want to lead one wins and the other is told.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from vknix.errors import Conflict, Deposed, NotFound, Unreachable, VknixError
from vknix.kube import api
from vknix.kube.client import Client

log = logging.getLogger(__name__)

LEADER = "vknix.io/leader"
TRIES = 5


@dataclass(frozen=True, slots=True)
class Times:
    """As a kubelet has them: 40 s is what the node controller expects."""

    duration_s: float = 40.0
    renew_s: float = 10.0
    retry_s: float = 0.5
    call_s: float = 5.0


class Leader(msgspec.Struct, frozen=True):
    """The annotation. `id` is one process and empty once released; `name` is one installation, the same after a restart."""

    id: str
    name: str
    epoch: int
    renewed: float


class _Metadata(msgspec.Struct):
    resourceVersion: str = ""  # noqa: N815 - the API's word
    annotations: dict[str, str] | None = None


class _Lease(msgspec.Struct):
    metadata: _Metadata


class NodeLease:
    """`acquire`, then `hold` in a task, then `release`. One for each node; not for use by two tasks at once."""

    def __init__(
        self,
        client: Client,
        node: str,
        *,
        times: Times = Times(),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._node = node
        self._times = times
        self._clock = clock
        self._wall = wall
        self._owner: str | None = None
        self._version = ""
        self._leader = Leader("", "", 0, 0.0)

    @property
    def epoch(self) -> int:
        return self._leader.epoch

    def own(self, node_uid: str) -> None:
        """The Node object is there (again): from the next renewal on, the Lease goes with it."""
        self._owner = node_uid

    async def acquire(self, identity: str, stable_name: str) -> int:
        """Waits until this process leads, and returns its epoch: higher than each one before.

        At once where nobody leads, the leader has released, or it was of this installation (`stable_name`); else when the
        leader's record has not changed for the Lease's duration, by this process's own clock: the others' may be wrong.
        """
        seen: Leader | None = None
        since = self._clock()
        while True:
            try:
                leader = await self._read()
                if leader != seen:
                    seen, since = leader, self._clock()
                    if leader is not None and leader.id and leader.name != stable_name:
                        log.info("node %s is led by %s, waiting", self._node, leader.id)
                if self._is_free(leader, stable_name) or self._clock() - since >= self._times.duration_s:
                    await self._take(leader, identity, stable_name)
                    return self.epoch
            except Conflict:
                continue  # somebody else wrote: read who
            except Unreachable as error:
                log.warning("lease of node %s: %s", self._node, error)
            await asyncio.sleep(self._times.retry_s)

    async def hold(self) -> None:
        """Renews for ever. A cluster that can't be reached is waited for. Raises Deposed."""
        while True:
            await asyncio.sleep(self._times.renew_s)
            try:
                await self.renew()
            except Unreachable as error:
                log.warning("lease of node %s not renewed, trying again: %s", self._node, error)

    async def renew(self) -> None:
        """One heartbeat, tried a few times in quick succession. Raises Deposed where another process leads."""
        for left in range(TRIES - 1, -1, -1):
            try:
                return await self._write(self._leader)
            except NotFound:
                self._version = ""  # it went with a deleted Node: the next try makes it again
            except Conflict:
                await self._check_still_leading()
            except Unreachable:
                if not left:
                    raise
                await asyncio.sleep(self._times.retry_s)
        raise Unreachable(f"the lease of node {self._node} changes faster than it can be written")

    async def release(self) -> None:
        """On a graceful stop: the next process need not wait. Keeps the epoch, which must never go back."""
        try:
            await self._write(Leader("", "", self.epoch, 0.0))
        except VknixError as error:
            log.info("lease of node %s not released, the next vknix waits for it to expire: %s", self._node, error)

    def _is_free(self, leader: Leader | None, stable_name: str) -> bool:
        return leader is None or not leader.id or leader.name == stable_name

    async def _take(self, before: Leader | None, identity: str, stable_name: str) -> None:
        # Without a record (a deleted Node takes its Lease along) the time stands in, so that hosts never see an epoch go back.
        epoch = before.epoch + 1 if before is not None else int(self._wall())
        await self._write(Leader(identity, stable_name, epoch, 0.0))
        log.info("leading node %s, epoch %d", self._node, epoch)

    async def _check_still_leading(self) -> None:
        try:
            leader = await self._read()
        except NotFound:
            return
        if leader is not None and leader.id != self._leader.id:
            raise Deposed(f"node {self._node} is led by {leader.id or 'nobody'} now, epoch {leader.epoch}; this vknix must stop")

    async def _read(self) -> Leader | None:
        """Who leads; keeps the version for the next write."""
        try:
            lease = msgspec.json.decode(await api.get_lease(self._client, self._node, timeout_s=self._times.call_s), type=_Lease)
        except NotFound:
            self._version = ""
            return None
        self._version = lease.metadata.resourceVersion
        return _leader((lease.metadata.annotations or {}).get(LEADER, ""))

    async def _write(self, leader: Leader) -> None:
        now = self._wall()
        leader = msgspec.structs.replace(leader, renewed=round(now, 3))
        body = self._body(leader, now)
        if self._version:
            answer = await api.update_lease(self._client, self._node, body, timeout_s=self._times.call_s)
        else:
            answer = await api.create_lease(self._client, body, timeout_s=self._times.call_s)
        self._version = msgspec.json.decode(answer, type=_Lease).metadata.resourceVersion
        self._leader = leader

    def _body(self, leader: Leader, now: float) -> api.Json:
        metadata: dict[str, object] = {
            "name": self._node,
            "namespace": "kube-node-lease",
            "annotations": {LEADER: msgspec.json.encode(leader).decode()},
        }
        if self._version:
            metadata["resourceVersion"] = self._version
        if self._owner is not None:
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": self._owner}
            metadata["ownerReferences"] = [owner]
        spec = {
            "holderIdentity": self._node,
            "leaseDurationSeconds": max(1, round(self._times.duration_s)),
            "renewTime": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _leader(annotation: str) -> Leader | None:
    """None where there is no record, or one that no vknix wrote."""
    try:
        return msgspec.json.decode(annotation, type=Leader)
    except msgspec.DecodeError:
        return None
