"""Wanted Pods and seen facts by UID: the only shared mutable state. Written by loops/pods.py, heartbeat.py and evicting.py."""

from collections.abc import Iterator

from vknix.core.facts import HostFacts, HostName, HostState, PodFacts, Uid
from vknix.core.hooks import Hooked
from vknix.core.pod import PodRecord
from vknix.core.probes import Probed


class Ledger:
    """`wanted` is what the API server says, `seen` what the hosts say; `probed` and `hooks`, by container, what those say.
    `evicted`: why a Pod that is wanted is to fail.

    Reading it takes no lock: there is one event loop.
    """

    def __init__(self) -> None:
        self.wanted: dict[Uid, PodRecord] = {}
        self.seen: dict[Uid, PodFacts] = {}
        self.hosts: dict[HostName, HostFacts] = {}
        self.probed: dict[Uid, dict[str, Probed]] = {}
        self.hooks: dict[Uid, dict[str, Hooked]] = {}
        self.evicted: dict[Uid, str] = {}
        self._names: dict[tuple[str, str], Uid] = {}

    def want(self, record: PodRecord) -> None:
        self.wanted[record.uid] = record
        self._names[record.namespace, record.name] = record.uid

    def unwant(self, uid: Uid) -> None:
        record = self.wanted.pop(uid, None)
        self.evicted.pop(uid, None)
        if record is not None and self._names.get((record.namespace, record.name)) == uid:
            del self._names[record.namespace, record.name]

    def named(self, namespace: str, name: str) -> PodRecord | None:
        """The Pod that the API server calls so now. Two Pods of one name never meet: the UID goes on from here."""
        uid = self._names.get((namespace, name))
        return self.wanted.get(uid) if uid is not None else None

    def uids(self) -> Iterator[Uid]:
        yield from self.wanted
        yield from (uid for uid in self.seen if uid not in self.wanted)

    def on_host(self, host: HostName) -> tuple[Uid, ...]:
        return tuple(uid for uid, facts in self.seen.items() if facts.host == host)

    def host_state(self, host: HostName) -> HostState:
        facts = self.hosts.get(host)
        return facts.state if facts is not None else HostState.UNKNOWN
