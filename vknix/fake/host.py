"""A host in memory. It outlives each provider that talks to it, runs a few programs (true, false, echo, test -e, cat, sleep, init,
`nc ... PORT ... cat`, which says what it hears), restarts what has ended as a host's systemd does, and can be lost, healed and
rebooted.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf

from vknix.core import inputs as needed
from vknix.core import pod as pods
from vknix.core import resources, restart
from vknix.core.facts import (
    HostFacts,
    HostName,
    HostState,
    Keys,
    PodFacts,
    Reason,
    State,
    StorePath,
    Uid,
)
from vknix.core.fetched import FileKey
from vknix.core.inputs import Inputs
from vknix.core.pod import Pod
from vknix.errors import Refused
from vknix.fake.attempts import Attempts
from vknix.fake.container import Answer, Container, Forward, Images, PodThere, Wire
from vknix.provider import HostSeen, Listed, Place, PodGone, PodSeen, Seen


class FakeHost:
    """`missing` are store paths that can't be had; all others are, in `fetch_s`. `ladder_s`: after how long it restarts."""

    def __init__(
        self,
        name: str,
        *,
        missing: tuple[str, ...] = (),
        ladder_s: tuple[float, ...] = restart.LADDER_S[1:],
        retry_s: float = 10.0,
        fetch_s: float = 0.0,
        cpu_milli: int = 4000,
        pods: int = 110,
    ) -> None:
        self.facts = HostFacts(
            name=HostName(name),
            state=HostState.LISTED,
            address="127.0.0.1",
            boot_id=str(uuid.uuid4()),
            arch="amd64",
            systemd="0",
            cpu_milli=cpu_milli,
            memory_bytes=8 << 30,
            storage_bytes=100 << 30,
            pods=pods,
            controllers=frozenset({"cpu", "memory", "pids"}),
        )
        self.images = Images({StorePath(path) for path in missing}, fetch_s, retry_s, self._fetched)
        self.epoch = 0
        self.booted = time.time()
        self.volumes: dict[tuple[Uid, FileKey], bytes] = {}
        self.filled: dict[Uid, dict[str, int]] = {}
        self.news = asyncio.Event()  # set at the next change, and then replaced
        self._attempts = Attempts(ladder_s, lambda of: self._tell(self._seen(of)))
        self._pods: dict[Uid, PodThere] = {}
        self._told: dict[Uid, PodFacts] = {}
        self._followers: list[Callable[[Seen], None]] = []

    # What befalls it

    def end(self, uid: Uid, container: str, code: int, *, signal: int = 0, message: str = "") -> None:
        """A container that runs ends by itself."""
        of = self._pods[uid]
        self._attempts.end(of, of.containers[container], code, signal=signal, message=message)

    def write(self, uid: Uid, container: str, line: bytes) -> None:
        """A container that runs writes a line."""
        self._pods[uid].containers[container].logs[-1].append((time.time(), line))
        self._tell()

    def put(self, uid: Uid, volume: str, path: str, data: bytes) -> None:
        """A file in an emptyDir."""
        self.volumes[uid, FileKey(volume, path)] = data

    def fill(self, uid: Uid, name: str, size: int) -> None:
        """So much is on disk in a volume, or in a container that runs."""
        self.filled.setdefault(uid, {})[name] = size

    def touch(self, uid: Uid, container: str, path: str) -> None:
        """Makes a file that `test -e` finds until the attempt has ended."""
        self._pods[uid].containers[container].files.add(path)

    def remove(self, uid: Uid, container: str, path: str) -> None:
        self._pods[uid].containers[container].files.discard(path)

    def listen(self, uid: Uid, container: str, port: int, answer: Answer) -> None:
        """Whenever the container runs, it answers on this port."""
        self._pods[uid].containers[container].ports[port] = answer

    def lose(self, message: str = "the link was lost") -> None:
        """The host runs on, but nobody reaches it."""
        self.facts = replace(self.facts, state=HostState.LOST, message=message)
        self._tell(HostSeen(self.facts))

    def heal(self) -> None:
        self.facts = replace(self.facts, state=HostState.LISTED, message="")
        for tell in self._followers:
            self._list(tell)
        self._tell()

    def reboot(self) -> None:
        """It is back at once; nothing that ran runs, and nobody noted how it ended."""
        self.lose("it reboots")
        self.facts = replace(self.facts, boot_id=str(uuid.uuid4()))
        self.booted = time.time()
        for of in self._pods.values():
            of.addresses, of.since = (), inf
            for container in of.containers.values():
                if container.state is not State.STOPPED:
                    container.state = State.STOPPING  # it is not its turn to restart it
                    self._attempts.end(of, container, 137, reason=Reason.UNKNOWN, message="the host went down while it ran")
                container.set_timer(None)
        self.heal()

    # What vknix asks of it

    @contextmanager
    def linked(self, epoch: int, tell: Callable[[Seen], None]) -> Iterator[None]:
        """Tells all that it has, and what changes from then on. Older epochs can do nothing from here on."""
        self.epoch = max(self.epoch, epoch)
        tell(HostSeen(replace(self.facts, state=HostState.UNKNOWN)))
        if self.facts.state is HostState.LISTED:
            self._list(tell)
        else:
            tell(HostSeen(self.facts))
        self._followers.append(tell)
        try:
            yield
        finally:
            self._followers.remove(tell)

    def sync(self, pod: Pod, place: Place, inputs: Inputs, run: tuple[str, ...]) -> None:
        new = PodThere(pod.uid, pod.namespace, pod.name, needed.closures(pod), handler=inputs.handler)
        of = self._pods.setdefault(pod.uid, new)
        lacking = [root for root in of.roots if not self.images.has(root)]
        for root in lacking:
            self.images.fetch(root)
        if not lacking:
            of.addresses, of.since = place.addresses, min(of.since, time.time())
            members = {member.name: member for member in pods.members(pod)}
            for name, made in inputs.containers.items():
                asked = members[name].container
                fresh = Container(name, members[name], bool(asked.stdin), bool(asked.stdin and asked.stdin_once))
                kept = of.containers.setdefault(name, fresh)
                kept.argv, kept.resources = made.argv, resources.told(asked.resources)
            for name in run:
                if of.containers[name].state is State.STOPPED:
                    of.containers[name].member = members[name]
                self._attempts.start(of, of.containers[name])
        self._tell(self._seen(of))

    def stop(self, uid: Uid, containers: tuple[str, ...], after_s: float, again: Keys) -> None:
        of = self._pods.get(uid)
        for name, attempt in again:
            if of is not None and name in of.containers:
                of.containers[name].again.add(attempt)
        for container in of.containers.values() if of is not None else ():
            if of is not None and container.name in (containers or of.containers):
                self._attempts.stop(of, container, after_s)

    def clean(self, uid: Uid) -> None:
        of = self._pods.pop(uid, None)
        for container in of.containers.values() if of is not None else ():
            container.state = State.STOPPED
            container.set_timer(None)
        self._tell(PodGone(uid, self.facts.name))

    def has(self, uid: Uid) -> bool:
        return uid in self._pods

    def container(self, uid: Uid, name: str) -> Container | None:
        of = self._pods.get(uid)
        return of.containers.get(name) if of is not None else None

    def seen(self, uid: Uid) -> PodFacts:
        """What it has of a Pod."""
        return self._seen(self._pods[uid]).facts

    def all_seen(self) -> dict[Uid, PodFacts]:
        return {uid: self._seen(of).facts for uid, of in self._pods.items()}

    def connect(self, address: str, port: int) -> Wire:
        """Refused where no container that runs listens there."""
        there = (of for of in self._pods.values() if address in (of.addresses or (self.facts.address,)))
        answers = [answer for of in there if (answer := of.listens(port)) is not None]
        if not answers:
            raise Refused("", f"dial tcp {address}:{port}: connection refused")
        return Wire(answers[0])

    def forward(self, uid: Uid, port: int) -> Forward:
        """The same on the Pod's localhost."""
        answer = self._pods[uid].listens(port) if uid in self._pods else None
        if answer is None:
            raise Refused("", f"dial tcp4 127.0.0.1:{port}: connect: connection refused")
        return Forward(answer)

    # How it goes about it

    def _list(self, tell: Callable[[Seen], None]) -> None:
        for of in self._pods.values():
            tell(self._seen(of))
        tell(Listed(self.facts.name))
        tell(HostSeen(self.facts))

    def _seen(self, of: PodThere) -> PodSeen:
        containers = {name: each.facts() for name, each in of.containers.items() if each.logs}
        about = (of.uid, self.facts.name, of.namespace, of.name, of.addresses)
        return PodSeen(PodFacts(*about, containers, self.images.of(of.roots), of.since, of.handler))

    def _tell(self, seen: Seen | None = None) -> None:
        """A host that is lost says nothing, but that it is lost. Of a Pod it says what has changed."""
        match seen:
            case PodSeen(facts) if self._told.get(facts.uid) == facts:
                seen = None
            case PodSeen(facts):
                self._told[facts.uid] = facts
            case PodGone(uid):
                self._told.pop(uid, None)
            case HostSeen():
                self._told.clear()
            case _:
                pass
        if seen is not None and (self.facts.state is HostState.LISTED or isinstance(seen, HostSeen)):
            for tell in self._followers:
                tell(seen)
        self.news.set()
        self.news = asyncio.Event()

    def _fetched(self, root: StorePath) -> None:
        for of in self._pods.values():
            if root in of.roots:
                self._tell(self._seen(of))
