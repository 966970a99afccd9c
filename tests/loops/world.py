"""A cluster over real HTTP, hosts in memory, and vknix's own loops between them, as often as a test starts them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from tests.fakes.cluster import Cluster, Object, Request, until
from vknix.core.facts import HostFacts, HostName, Keys, Uid
from vknix.core.inputs import Inputs
from vknix.core.nodestatus import NodeSettings
from vknix.core.pod import Pod
from vknix.fake.host import FakeHost
from vknix.fake.provider import FakeProvider
from vknix.kube.client import Client
from vknix.kube.events import Recorder
from vknix.kube.lease import NodeLease
from vknix.ledger import Ledger
from vknix.loops.evicting import Evicting
from vknix.loops.heartbeat import Heartbeat
from vknix.loops.objects import Objects
from vknix.loops.pods import Pods
from vknix.loops.tools import PodSettings, Times, Tools
from vknix.provider import ExecRequest, Place, Streams

NODE = "pool"
IMAGE = f"nix:0/nix/store/{'0' * 32}-busybox"
MISSING = f"/nix/store/{'1' * 32}-nowhere"
QUICK = Times(backoff=(0.02,), held=0.05, kill=0.1, adopt=0.05)


def pod(name: str, *command: str, image: str = IMAGE, container: Object | None = None, **spec: Any) -> Object:
    """On the node; runs `cat`, which ends when it is asked to."""
    main = {"name": "main", "image": image, "command": list(command or ("cat",)), **(container or {})}
    metadata = {"name": name, "namespace": "default", "generation": 1}
    return {"metadata": metadata, "spec": {"nodeName": NODE, "containers": [main], **spec}}


@dataclass(frozen=True, slots=True)
class Call:
    """What a provider was asked, and how the API server showed the Pod at that moment."""

    method: str
    pod: str
    run: tuple[str, ...] = ()
    deadline: float = 0.0
    containers: tuple[str, ...] = ()
    shown: Object | None = None


class Noting(FakeProvider):
    """Notes each call before it is carried out. `before` may hold a call up, or fail in its place; `after` may lose its answer."""

    def __init__(self, cluster: Cluster, *hosts: FakeHost, epoch: int) -> None:
        super().__init__(*hosts, epoch=epoch)
        self.calls: list[Call] = []
        self.tried: list[ExecRequest] = []  # also what could not be carried out
        self.before: Callable[[Call], Awaitable[None]] | None = None
        self.after: Callable[[Pod], Awaitable[None]] | None = None
        self.placing: Callable[[Pod], None] | None = None
        self._cluster = cluster
        self._names: dict[Uid, str] = {}

    def place(self, pod: Pod, hosts: Mapping[HostName, HostFacts]) -> Place:
        if self.placing is not None:
            self.placing(pod)
        return super().place(pod, hosts)

    async def _note(self, method: str, uid: Uid, **more: Any) -> None:
        shown = next((of for of in self._cluster.objects.values() if of["metadata"]["uid"] == uid), None)
        if shown is not None:
            self._names[uid] = shown["metadata"]["name"]
        call = Call(method, self._names.get(uid, str(uid)), shown=shown, **more)
        self.calls.append(call)
        if self.before is not None:
            await self.before(call)

    async def sync(self, pod: Pod, place: Place, inputs: Inputs, run: tuple[str, ...]) -> None:
        await self._note("sync", pod.uid, run=run)
        await super().sync(pod, place, inputs, run)
        if self.after is not None:
            await self.after(pod)

    async def stop(
        self, uid: Uid, host: HostName, containers: tuple[str, ...], deadline: float, grace_s: float, again: Keys = ()
    ) -> None:
        await self._note("stop", uid, deadline=deadline, containers=containers)
        await super().stop(uid, host, containers, deadline, grace_s, again)

    async def clean(self, uid: Uid, host: HostName) -> None:
        await self._note("clean", uid)
        await super().clean(uid, host)

    async def exec(self, request: ExecRequest, host: HostName, streams: Streams) -> int:
        self.tried.append(request)
        return await super().exec(request, host, streams)

    def asked(self, method: str, name: str = "") -> list[Call]:
        return [call for call in self.calls if call.method == method and name in (call.pod, "")]


@dataclass(slots=True)
class Process:
    ledger: Ledger
    provider: Noting
    pods: Pods


@dataclass(slots=True)
class World:
    cluster: Cluster
    client: Client
    hosts: dict[str, FakeHost]
    strict_limits: bool = False
    times: Times = QUICK
    epochs: "count[int]" = field(default_factory=lambda: count(1))

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Process]:
        """vknix, as long as the block lasts; then it is killed. What ends it by itself is raised from the block."""
        lease = NodeLease(self.client, NODE)
        epoch = await lease.acquire(f"process {next(self.epochs)}", "this machine")
        ledger, objects, events = Ledger(), Objects(self.client), Recorder(self.client, NODE)
        provider = Noting(self.cluster, *self.hosts.values(), epoch=epoch)
        settings = PodSettings(NODE, "192.0.2.1", "cluster.local", (), self.strict_limits)
        tools = Tools(self.client, provider, objects, events, settings, self.times)
        node = NodeSettings(NODE, "192.0.2.1", 10250, {"shape": "fake"}, (), (), "0")
        heartbeat = Heartbeat(ledger, self.client, provider, events, lease, node, ("10.1.0.0/16",), tools.hosts_changed)
        made = Process(ledger, provider, Pods(ledger, tools))
        evicting = Evicting(ledger, provider, made.pods.wake, period_s=0.05)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each.run()) for each in (events, objects, heartbeat, made.pods, evicting)]
            try:
                yield made
            finally:
                for task in running:
                    task.cancel()

    # The cluster, as a user has it

    def put(self, of: Object) -> Uid:
        return Uid(self.cluster.put("pods", of)["metadata"]["uid"])

    def pod(self, name: str) -> Object:
        return self.cluster.get("pods", "default", name)

    def has(self, name: str) -> bool:
        return ("pods", "default", name) in self.cluster.objects

    def uid(self, name: str) -> Uid:
        return Uid(self.pod(name)["metadata"]["uid"])

    def host_of(self, name: str) -> FakeHost:
        return self.hosts[self.pod(name)["metadata"]["annotations"]["vknix.io/host"]]

    def delete(self, name: str, grace_s: float = 30) -> None:
        """As the API server takes a graceful deletion: the Pod stays, with a mark."""
        of = self.pod(name)
        at = datetime.fromtimestamp(time.time() + grace_s, UTC).isoformat()
        marks = {"deletionTimestamp": at, "deletionGracePeriodSeconds": int(grace_s)}
        self.cluster.put("pods", {**of, "metadata": {**of["metadata"], **marks}})

    def status(self, name: str) -> Object:
        return dict(self.pod(name).get("status", {}))

    def phase(self, name: str) -> str:
        return str(self.status(name).get("phase", "Pending"))

    def container(self, name: str) -> Object:
        """The status of the one container; empty before there is one."""
        return next((dict(of) for of in self.status(name).get("containerStatuses", ())), {})

    def member(self, name: str, container: str) -> Object:
        """The status of any of its containers; empty before there is one."""
        told = self.status(name)
        every = (*told.get("initContainerStatuses", ()), *told.get("containerStatuses", ()))
        return next((dict(of) for of in every if of["name"] == container), {})

    def state(self, name: str, container: str) -> str:
        return next(iter(self.member(name, container).get("state", {})), "")

    def waits_for(self, name: str) -> str:
        return str(self.container(name).get("state", {}).get("waiting", {}).get("reason", ""))

    def condition(self, name: str, kind: str) -> Object:
        return next((dict(of) for of in self.status(name).get("conditions", ()) if of["type"] == kind), {})

    def ready(self, name: str) -> bool:
        return self.condition(name, "Ready").get("status") == "True"

    def writes(self, name: str) -> list[Request]:
        return [request for request in self.cluster.requests if request.method != "GET" and f"/pods/{name}" in request.path]

    def events(self, name: str) -> list[tuple[str, str]]:
        """Reasons and messages of the Events about a Pod, in their order."""
        found = [of for (kind, _, _), of in self.cluster.objects.items() if kind == "events"]
        return [(of["reason"], of["message"]) for of in found if of["involvedObject"]["name"] == name]

    def reasons(self, name: str) -> list[str]:
        return [reason for reason, _ in self.events(name)]

    def node(self) -> Object:
        return self.cluster.objects.get(("nodes", "", NODE), {})

    async def runs(self, *names: str) -> None:
        await until(lambda: all(self.phase(name) == "Running" and self.ready(name) for name in names))

    async def settled(self) -> None:
        """What could be done by now is done: a Pod that came later than all else runs, and is gone again."""
        name = f"last-{len(self.cluster.requests)}"
        self.put(pod(name))
        await self.runs(name)
        self.delete(name)
        await until(lambda: not self.has(name))
