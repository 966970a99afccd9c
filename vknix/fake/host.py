"""A host in memory. It outlives each provider that talks to it, runs a few programs (true, false, echo, test -e, cat, sleep, init,
`nc ... PORT ... cat`, which says what it hears), restarts what has ended as a host's systemd does, and can be lost, healed and
rebooted.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from vknix.core import inputs as needed
from vknix.core import pod as pods
from vknix.core import resources, restart
from vknix.core.facts import (
    ContainerFacts,
    Exit,
    HostFacts,
    HostName,
    HostState,
    ImageFacts,
    ImageState,
    PodFacts,
    Reason,
    State,
    StorePath,
    Uid,
)
from vknix.core.fetched import FileKey
from vknix.core.handlers import DEFAULT, Handler
from vknix.core.inputs import Inputs
from vknix.core.pod import Member, Pod
from vknix.errors import Refused
from vknix.provider import HostSeen, Listed, Place, PodGone, PodSeen, Seen

Answer = Callable[[bytes], bytes]  # what a program that listens says to each piece that it is sent


@dataclass(slots=True)
class Wire:
    """A connection to such a program. It is at its end when all that was answered has been read."""

    answer: Answer
    pending: bytes = b""

    async def read(self, limit: int) -> bytes:
        piece, self.pending = self.pending[:limit], self.pending[limit:]
        return piece

    async def write(self, data: bytes) -> None:
        self.pending += self.answer(data) if data else b""


class Forward:
    """provider.Duplex to such a program, which ends when its client does."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._pending = b""
        self._ended = False
        self._news = asyncio.Event()

    async def read(self, limit: int) -> bytes:
        while not self._pending and not self._ended:
            self._news.clear()
            await self._news.wait()
        piece, self._pending = self._pending[:limit], self._pending[limit:]
        return piece

    async def write(self, data: bytes) -> None:
        self._pending += self._answer(data)
        self._news.set()

    async def end(self) -> None:
        self._ended = True
        self._news.set()


@dataclass(slots=True)
class Container:
    """`timer` is of the next restart while it is stopped, of the kill while it is stopping. Each attempt has its own `files`."""

    name: str
    member: Member
    stdin: bool = False
    stdin_once: bool = False
    argv: tuple[str, ...] = ()
    state: State = State.STOPPED
    id: str = ""
    started: float | None = None
    exits: list[Exit] = field(default_factory=list)
    logs: list[list[tuple[float, bytes]]] = field(default_factory=list)  # by attempt: lines with their times
    timer: asyncio.TimerHandle | None = None
    files: set[str] = field(default_factory=set)
    ports: dict[int, Answer] = field(default_factory=dict)
    resources: Mapping[str, Any] | None = None

    @property
    def runs(self) -> bool:
        return self.state in (State.RUNNING, State.STOPPING)

    def facts(self) -> ContainerFacts:
        stopped = self.state is State.STOPPED
        return ContainerFacts(
            name=self.name,
            state=self.state,
            attempt=len(self.logs) - 1,
            id="" if stopped else self.id,
            started=None if stopped else self.started,
            exits=tuple(self.exits[-2:]),
            streak=restart.streak(tuple(self.exits)),
            host_restarts=stopped and self.timer is not None,
            image=self.member.container.image if not stopped or self.timer is not None else "",
            resources=self.resources,
        )

    def set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer


@dataclass(slots=True)
class _Pod:
    uid: Uid
    namespace: str
    name: str
    roots: tuple[StorePath, ...]
    addresses: tuple[str, ...] = ()
    containers: dict[str, Container] = field(default_factory=dict)
    since: float = inf
    handler: Handler = DEFAULT


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
        self.missing = {StorePath(path) for path in missing}
        self.fetch_s = fetch_s
        self.epoch = 0
        self.booted = time.time()
        self.volumes: dict[tuple[Uid, FileKey], bytes] = {}
        self.filled: dict[Uid, dict[str, int]] = {}
        self.news = asyncio.Event()  # set at the next change, and then replaced
        self._ladder_s = ladder_s
        self._retry_s = retry_s
        self._pods: dict[Uid, _Pod] = {}
        self._images: dict[StorePath, ImageFacts] = {}
        self._told: dict[Uid, PodFacts] = {}
        self._followers: list[Callable[[Seen], None]] = []

    # What befalls it

    def end(self, uid: Uid, container: str, code: int, *, signal: int = 0, message: str = "") -> None:
        """A container that runs ends by itself."""
        of = self._pods[uid]
        self._end(of, of.containers[container], code, signal=signal, message=message)

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
                    self._end(of, container, 137, reason=Reason.UNKNOWN, message="the host went down while it ran")
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
        of = self._pods.setdefault(pod.uid, _Pod(pod.uid, pod.namespace, pod.name, needed.closures(pod), handler=inputs.handler))
        lacking = [root for root in of.roots if not self._has(root)]
        for root in lacking:
            self._fetch(root)
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
                self._start(of, of.containers[name])
        self._tell(self._seen(of))

    def stop(self, uid: Uid, containers: tuple[str, ...], after_s: float) -> None:
        of = self._pods.get(uid)
        for container in of.containers.values() if of is not None else ():
            if of is not None and container.name in (containers or of.containers):
                self._stop(of, container, after_s)

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
        for of in self._pods.values():
            for container in of.containers.values() if address in (of.addresses or (self.facts.address,)) else ():
                if port in container.ports and container.state in (State.RUNNING, State.STOPPING):
                    return Wire(container.ports[port])
        raise Refused("", f"dial tcp {address}:{port}: connection refused")

    def forward(self, uid: Uid, port: int) -> Forward:
        """The same on the Pod's localhost."""
        of = self._pods.get(uid)
        for container in of.containers.values() if of is not None else ():
            if container.runs and port in container.ports:
                return Forward(container.ports[port])
            if container.runs and container.argv[0].endswith("nc") and str(port) in container.argv:
                return Forward(lambda data: data)
        raise Refused("", f"dial tcp4 127.0.0.1:{port}: connect: connection refused")

    # How it goes about it

    def _list(self, tell: Callable[[Seen], None]) -> None:
        for of in self._pods.values():
            tell(self._seen(of))
        tell(Listed(self.facts.name))
        tell(HostSeen(self.facts))

    def _seen(self, of: _Pod) -> PodSeen:
        containers = {name: each.facts() for name, each in of.containers.items() if each.logs}
        images = {root: self._images[root] for root in of.roots if root in self._images}
        about = (of.uid, self.facts.name, of.namespace, of.name, of.addresses)
        return PodSeen(PodFacts(*about, containers, images, of.since, of.handler))

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

    def _has(self, root: StorePath) -> bool:
        return root in self._images and self._images[root].state is ImageState.PRESENT

    def _fetch(self, root: StorePath) -> None:
        """Unless that is under way, or failed a moment ago."""
        known = self._images.get(root)
        if known is None or (known.state is ImageState.FAILED and (known.retry_at or 0) <= time.time()):
            self._images[root] = ImageFacts(root, ImageState.PULLING)
            asyncio.get_running_loop().call_later(self.fetch_s, self._fetched, root)

    def _fetched(self, root: StorePath) -> None:
        if root in self.missing:
            message = f"no such store path anywhere: {root}"
            self._images[root] = ImageFacts(root, ImageState.FAILED, message, retry_at=time.time() + self._retry_s)
        else:
            self._images[root] = ImageFacts(root, ImageState.PRESENT, took_s=self.fetch_s)
        for of in self._pods.values():
            if root in of.roots:
                self._tell(self._seen(of))

    def _start(self, of: _Pod, container: Container) -> None:
        """Never disturbs an attempt that is there."""
        if container.state is State.STOPPED:
            container.set_timer(None)
            container.state, container.id, container.started = State.PREPARING, uuid.uuid4().hex, None
            container.logs.append([])
            container.files.clear()
            self._tell(self._seen(of))
            asyncio.get_running_loop().call_soon(self._begin, of, container, container.id)

    def _begin(self, of: _Pod, container: Container, attempt: str) -> None:
        if container.id != attempt or container.state is not State.PREPARING:
            return
        try:
            output, code = output_of(container.argv, container.files)
        except Refused as refusal:
            self._end(of, container, 128, reason=Reason.START_ERROR, message=str(refusal))
            return
        container.state, container.started = State.RUNNING, time.time()
        container.logs[-1] += [(container.started, output)] if output else []
        self._tell(self._seen(of))
        if code is not None:
            self._end(of, container, code)

    def _end(
        self, of: _Pod, container: Container, code: int, *, signal: int = 0, reason: Reason | None = None, message: str = ""
    ) -> None:
        asked = container.state is State.STOPPING
        number, why = len(container.logs) - 1, reason or (Reason.ERROR if code else Reason.COMPLETED)
        container.exits.append(Exit(number, container.id, code, signal, why, container.started, time.time(), message))
        container.state = State.STOPPED
        container.set_timer(None)
        if not asked and container.member.host_policy != "Never" and restart.may_restart(container.member, code):
            wait_s = self._ladder_s[min(restart.streak(tuple(container.exits)), len(self._ladder_s)) - 1]
            container.timer = asyncio.get_running_loop().call_later(wait_s, self._start, of, container)
        self._tell(self._seen(of))

    def _stop(self, of: _Pod, container: Container, after_s: float) -> None:
        """`cat` heeds SIGTERM; `sleep` is deaf to it, as any process 1 without a handler."""
        loop = asyncio.get_running_loop()
        if container.state is State.STOPPED:
            container.set_timer(None)
        elif after_s <= 0:
            container.state = State.STOPPING
            self._end(of, container, 137, signal=9)
        elif container.state is not State.STOPPING or (container.timer and container.timer.when() > loop.time() + after_s):
            container.state = State.STOPPING
            container.set_timer(loop.call_later(after_s, self._stop, of, container, 0.0))
            if container.argv[0].endswith("cat"):
                loop.call_soon(self._heed, of, container, container.id)
        self._tell(self._seen(of))

    def _heed(self, of: _Pod, container: Container, attempt: str) -> None:
        if container.id == attempt and container.state is State.STOPPING:
            self._end(of, container, 143, signal=15)


def output_of(argv: tuple[str, ...], files: Collection[str]) -> tuple[bytes, int | None]:
    """What a program prints, and its exit code; None: it runs until somebody ends it. Refused where there is no such program."""
    match argv[0].rpartition("/")[2], *argv[1:]:
        case "true", *_:
            return b"", 0
        case "false", *_:
            return b"", 1
        case "echo", *words:
            return f"{' '.join(words)}\n".encode(), 0
        case "test", "-e", path:
            return b"", int(path not in files)
        case "test", "!", "-e", path:
            return b"", int(path in files)
        case (("cat" | "sleep" | "init" | "nc"), *_):
            return b"", None
    raise Refused("", f'exec: "{argv[0]}": executable file not found in $PATH')
