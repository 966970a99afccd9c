"""What the contract is tried on: a backend's Bench, and a Process, which is a vknix with nothing in it but the seam."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from vknix.core import inputs as needed
from vknix.core import pod as pods
from vknix.core.container import Resources
from vknix.core.facts import ContainerFacts, HostFacts, HostName, HostState, ImageState, PodFacts, State, Uid
from vknix.core.fetched import Fetched, Surroundings
from vknix.core.inputs import Inputs
from vknix.core.pod import Pod
from vknix.provider import ExecRequest, HostSeen, Listed, Place, PodGone, PodSeen, Provider, Seen, Size

T = TypeVar("T")
NAME = "main"  # of the container of each Pod here
FOREVER = ("sleep", "1000000")
UNUSED_PORT = 9


@dataclass(frozen=True, slots=True)
class Bench:
    """What a backend brings. `image` has true, false, echo, cat and sleep, found by name; nobody has the store path `missing`.

    `provider` makes one as a new vknix process does, over the same hosts. `lose` cuts a host off while it runs on, `heal` brings
    it back. `within_s` is how long anything may take.
    """

    provider: Callable[[], Provider]
    image: str
    missing: str
    pod_cidrs: tuple[str, ...]
    lose: Callable[[HostName], Awaitable[None]]
    heal: Callable[[HostName], Awaitable[None]]
    within_s: float = 30.0


@dataclass(slots=True)
class Client:
    """The streams of an exec or attach: sends `stdin`, keeps what comes. `stays`: its stdin has no end."""

    stdin: list[bytes] = field(default_factory=list)
    stays: bool = False
    stdout: bytes = b""
    stderr: bytes = b""

    async def read_stdin(self) -> bytes:
        if self.stays and not self.stdin:
            await asyncio.Event().wait()
        return self.stdin.pop(0) if self.stdin else b""

    async def write_stdout(self, data: bytes) -> None:
        self.stdout += data

    async def write_stderr(self, data: bytes) -> None:
        self.stderr += data

    async def next_size(self) -> Size | None:
        return None


class Process:
    """One provider and what it has told. Made by `process`."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.provider = bench.provider()
        self.hosts: dict[HostName, HostFacts] = {}
        self.pods: dict[Uid, PodFacts] = {}
        self.gone: set[Uid] = set()
        self._named: dict[HostName, set[Uid]] = {}
        self._news = asyncio.Event()

    async def follow(self) -> None:
        async with aclosing(self.provider.watch()) as seen:
            async for each in seen:
                self._take(each)
                self._news.set()
                self._news = asyncio.Event()

    def _take(self, each: Seen) -> None:
        match each:
            case PodSeen(facts):
                self.pods[facts.uid] = facts
                self._named.setdefault(facts.host, set()).add(facts.uid)
            case PodGone(uid, _):
                self.gone.add(uid)
                self.pods.pop(uid, None)
            case Listed(host):
                for uid in [uid for uid, facts in self.pods.items() if facts.host == host and uid not in self._named.get(host, ())]:
                    self.gone.add(uid)
                    del self.pods[uid]
            case HostSeen(facts):
                self.hosts[facts.name] = facts
                if facts.state is HostState.LOST:
                    self._named[facts.name] = set()

    async def until(self, found: Callable[[], T | None], what: str) -> T:
        """What `found` answers once that is more than None or False. AssertionError where it takes too long."""
        try:
            async with asyncio.timeout(self.bench.within_s):
                while True:
                    news, answer = self._news, found()
                    if answer is not None and answer is not False:
                        return answer
                    await news.wait()
        except TimeoutError:
            raise AssertionError(f"not told within {self.bench.within_s:g} s: {what}; told was {self.pods}") from None

    def listed(self) -> bool:
        return bool(self.hosts) and all(facts.state is HostState.LISTED for facts in self.hosts.values())

    def container(self, pod: Pod) -> ContainerFacts | None:
        facts = self.pods.get(pod.uid)
        return facts.containers.get(NAME) if facts is not None else None

    async def state(self, pod: Pod, *states: State, attempt: int = 0) -> ContainerFacts:
        """The container once it is in one of `states`, in that attempt or a later one."""

        def found() -> ContainerFacts | None:
            seen = self.container(pod)
            return seen if seen is not None and seen.state in states and seen.attempt >= attempt else None

        return await self.until(found, f"{pod.name} is {' or '.join(state.value for state in states)}, attempt {attempt}")

    async def image(self, pod: Pod, *states: ImageState) -> PodFacts:
        def found() -> PodFacts | None:
            facts = self.pods.get(pod.uid)
            return facts if facts and facts.images and all(image.state in states for image in facts.images.values()) else None

        return await self.until(found, f"the image of {pod.name} is {' or '.join(state.value for state in states)}")

    def inputs(self, pod: Pod, place: Place) -> Inputs:
        host = self.hosts[place.host]
        around = Surroundings(
            node_name="node",
            host_ips=("192.0.2.1",),
            pod_ips=place.addresses,
            cpu_milli=host.cpu_milli,
            memory_bytes=host.allocatable_bytes,
            storage_bytes=host.storage_bytes,
            cluster_dns=(),
            cluster_domain="cluster.local",
            host_resolv_conf=host.resolv_conf,
            host_name=host.hostname,
            host_hosts=host.hosts,
        )
        return needed.resolve(pod, Fetched(), around)

    async def sync(self, pod: Pod, *, start: bool = True) -> Place:
        """One call."""
        place = self.provider.place(pod, self.hosts)
        await self.provider.sync(pod, place, self.inputs(pod, place), (NAME,) if start else ())
        return place

    async def run(self, pod: Pod) -> Place:
        """As vknix does: a first call, and where that had to fetch the closure one more."""
        place = await self.sync(pod)

        def begun_or_fetched() -> bool:
            facts = self.pods.get(pod.uid)
            fetched = facts and facts.images and all(image.state is ImageState.PRESENT for image in facts.images.values())
            return bool(fetched) or self.container(pod) is not None

        await self.until(begun_or_fetched, f"the image of {pod.name} is there")
        if self.container(pod) is None:
            await self.sync(pod)
        await self.until(lambda: self.container(pod), f"{pod.name} has begun")
        return place

    async def stop(self, pod: Pod, *, in_s: float) -> None:
        facts = self.pods[pod.uid]
        await self.provider.stop(pod.uid, facts.host, (), time.time() + in_s, pod.spec.grace_s)

    async def remove(self, uid: Uid) -> None:
        """Kills and cleans what is left of a Pod."""
        facts = self.pods[uid]
        await self.provider.stop(uid, facts.host, (), time.time(), 1)

        def stopped() -> bool:
            return uid not in self.pods or all(each.state is State.STOPPED for each in self.pods[uid].containers.values())

        await self.until(stopped, f"{uid} has stopped")
        await self.provider.clean(uid, facts.host)
        await self.until(lambda: uid in self.gone, f"{uid} is gone")
        self.provider.release(uid)

    def pod(self, *command: str, restart: str = "Always", image: str = "", grace_s: int = 30, cpu: str = "0", **fields: Any) -> Pod:
        """One that this bench can run. `fields` are the container's, as the API names them."""
        container: dict[str, Any] = {"name": NAME, "image": image or self.bench.image, "command": list(command), **fields}
        container["resources"] = {"requests": {"cpu": cpu}}
        uid = str(uuid.uuid4())
        metadata = {"name": f"pod-{uid[:8]}", "namespace": "contract", "uid": uid}
        spec = {"containers": [container], "restartPolicy": restart, "terminationGracePeriodSeconds": grace_s}
        return pods.decode(json.dumps({"metadata": metadata, "spec": spec}).encode())

    def asks(self, pod: Pod, *argv: str, stdin: bool = False) -> ExecRequest:
        return ExecRequest(pod.uid, NAME, argv, stdin=stdin, stdout=True, stderr=True, tty=False)


@asynccontextmanager
async def process(bench: Bench, *, tidy: bool = True) -> AsyncIterator[Process]:
    """A process whose hosts are all listed. `tidy`: what its hosts have goes at the end."""
    made = Process(bench)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(made.follow())
        try:
            await made.until(made.listed, "all hosts are listed")
            made.provider.configure(bench.pod_cidrs, {})
            yield made
        finally:
            for uid in list(made.pods) if tidy and made.listed() else ():
                await made.remove(uid)
            following.cancel()


async def run_to_its_end(of: Process, *command: str, restart: str = "Never") -> tuple[Pod, ContainerFacts]:
    pod = of.pod(*command, restart=restart)
    await of.run(pod)
    return pod, await of.state(pod, State.STOPPED)


async def raises(kind: type[Exception], asked: Awaitable[object]) -> None:
    try:
        await asked
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was to be raised")


def asking(pod: Pod, cpu: str) -> Pod:
    """The same Pod with another request."""
    container = msgspec.structs.replace(pod.spec.containers[0], resources=Resources(requests={"cpu": cpu}))
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, containers=[container]))


async def dial(of: Process, pod: Pod, host: HostName) -> None:
    address = next(iter(of.pods[pod.uid].addresses), "127.0.0.1")
    async with of.provider.dial(pod.uid, host, address, UNUSED_PORT):
        pass
