"""One Pod, and what a test holds of the server that knows it."""

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.kubelet.pki import Authority, Files
from tests.kubelet.programs import Programs
from vknix.core import pod as core_pod
from vknix.core.facts import ContainerFacts, HostName, PodFacts, Uid
from vknix.kubelet.auth import Guard, User
from vknix.kubelet.server import KubeletServer
from vknix.kubelet.target import Target
from vknix.kubelet.views import METRICS, Views

UID = Uid("6f0c2f5e-1111-4222-8333-444455556666")


def pod(*containers: str, init: tuple[str, ...] = ()) -> core_pod.Pod:
    spec = {"containers": [{"name": name} for name in containers], "initContainers": [{"name": name} for name in init]}
    return core_pod.decode(json.dumps({"metadata": {"name": "p", "namespace": "ns", "uid": UID}, "spec": spec}).encode())


def facts(*containers: ContainerFacts) -> PodFacts:
    return PodFacts(UID, HostName("red"), "ns", "p", containers={each.name: each for each in containers})


def views(stalled: Callable[[], str]) -> Views:
    async def summary(*, only_cpu_and_memory: bool) -> bytes:
        return json.dumps({"node": {"nodeName": "node"}, "brief": only_cpu_and_memory}).encode()

    async def metric() -> str:
        return "up 1\n"

    return Views(
        pods=lambda: b'{"kind":"PodList","items":[]}',
        running_pods=lambda: b'{"kind":"PodList","items":["runs"]}',
        configz=lambda: b'{"kubeletconfig":{}}',
        summary=summary,
        metrics=dict.fromkeys(METRICS, metric),
        stalled=stalled,
        hosts=lambda: [HostName("red"), HostName("blue")],
    )


@dataclass(slots=True)
class Kubelet:
    """A server with its surroundings; `client` is an ssl context with the API server's certificate."""

    port: int
    server: KubeletServer
    provider: Programs
    client: ssl.SSLContext
    anonymous: ssl.SSLContext
    guard: Guard
    targets: dict[tuple[str, str], Target] = field(default_factory=dict)
    stalled: str = ""
    allowed: frozenset[tuple[str, str]] | None = None  # verbs and subresources; None: all
    asked: list[User] = field(default_factory=list)  # whose rights were

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"


@dataclass(frozen=True, slots=True)
class Keys:
    authority: Authority
    server: Files
    api_server: Files
