"""What all workers share, and how a worker tells an Event."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from vknix.core.facts import Uid
from vknix.core.happenings import Happening
from vknix.core.image import NONE as NO_ALIASES
from vknix.core.image import Aliases
from vknix.core.late import admitted
from vknix.core.pod import Pod, decode
from vknix.kube.client import Client
from vknix.kube.events import Recorder, Reference
from vknix.loops.objects import Objects
from vknix.loops.starts import Starts
from vknix.provider import Provider
from vknix.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class PodSettings:
    node_name: str
    node_address: str
    cluster_domain: str
    cluster_dns: tuple[str, ...]
    strict_limits: bool
    aliases: Aliases = NO_ALIASES
    runtime_handlers: Mapping[str, str] = field(default_factory=dict)
    allowed_unsafe_sysctls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. `held`: how soon a container that can't be configured is tried again (the kubelet's sync after an error).

    `kill`: what a Pod that was deleted by force still gets. `adopt`: within which a Pod that was taken over gets fresh tokens.
    `told`: how long a host may take to say what came of a step, before the step is taken again.
    """

    backoff: tuple[float, ...] = (0.5, 1, 2, 4, 8, 15, 30)
    held: float = 10.0
    kill: float = 2.0
    adopt: float = 30.0
    told: float = 5.0


@dataclass(slots=True)
class Tools:
    """`inherited`: Pods that were there when this process began, which another may have started."""

    client: Client
    provider: Provider
    objects: Objects
    events: Recorder
    settings: PodSettings
    times: Times = Times()
    inherited: set[Uid] = field(default_factory=set)
    hosts_changed: asyncio.Event = field(default_factory=asyncio.Event)
    telemetry: Telemetry = field(default_factory=Telemetry)
    starts: Starts = field(init=False)

    def __post_init__(self) -> None:
        self.starts = Starts(self.telemetry)

    def decode(self, raw: bytes) -> Pod:
        """As `pod.decode`, with the node's aliases of images, and without the ephemeral containers that can't be had."""
        return admitted(decode(raw, self.settings.aliases), raw)

    def tell(self, pod: Pod, happening: Happening) -> None:
        reference = Reference("Pod", pod.name, pod.namespace, pod.uid, resource_version=pod.metadata.resource_version)
        before = {container.name for container in pod.spec.init_containers or ()}
        beside = {*(container.name for container in pod.spec.ephemeral_containers or ()), *pod.late}
        kind = "initContainers" if happening.container in before else "containers"
        kind = "ephemeralContainers" if happening.container in beside else kind
        path = f"spec.{kind}{{{happening.container}}}" if happening.container else ""
        self.events.record(reference, "Warning" if happening.warning else "Normal", happening.reason, happening.message, path)
