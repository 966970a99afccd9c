"""What a backend may report: facts about hosts, Pods and containers, in systemd's words. Times are seconds since the epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NewType

from vknix.core.accounts import Accounts
from vknix.core.handlers import DEFAULT, Handler

Uid = NewType("Uid", str)  # metadata.uid, with dashes
HostName = NewType("HostName", str)
StorePath = NewType("StorePath", str)  # /nix/store/<hash>-<name>
Keys = Sequence[tuple[str, int]]  # containers and their attempts


class State(Enum):
    """A container on its host: systemd's ActiveState, with *failed* and *exited* both counted as stopped."""

    PREPARING = "activating"
    RUNNING = "active"
    STOPPING = "deactivating"
    STOPPED = "inactive"


class Reason(Enum):
    """Why an attempt ended: the runtime's words that kubectl and controllers know."""

    COMPLETED = "Completed"
    ERROR = "Error"
    OOM_KILLED = "OOMKilled"
    START_ERROR = "StartError"
    UNKNOWN = "ContainerStatusUnknown"


@dataclass(frozen=True, slots=True)
class Exit:
    """One attempt that has ended. `code` is 128 + n after signal n, `signal` is 0 without one. `again`: it was stopped so that the
    container starts again.
    """

    attempt: int
    id: str
    code: int
    signal: int
    reason: Reason
    started: float | None
    finished: float
    message: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """`attempt` counts from 0: the one that runs now, or the last one. `exits` are the last two at most, oldest first.

    `streak` counts the ends in a row since an attempt that ran for 10 minutes. `host_restarts`: the host's systemd is waiting to
    start it again by itself. `image`: the name that its Pod gave for what runs; empty where that is not known.

    What probes and hooks say of an attempt is added by core/probes.py and core/hooks.py: `up` (its startup probe has passed),
    `ready`, `hooking` (its postStart hook has not passed), `hook_error`, and `doomed`, a sentence, where it is to be killed and
    started again, with `grace_s` if a probe has a grace of its own. `redefined`: its Pod has another image for it by now.
    `resources` are the limits and requests in force, in the Pod's words (None: not known); `resize_error`: why others are not.
    """

    name: str
    state: State
    attempt: int
    id: str = ""
    started: float | None = None
    exits: tuple[Exit, ...] = ()
    streak: int = 0
    host_restarts: bool = False
    image: str = ""
    up: bool = True
    ready: bool = True
    hooking: bool = False
    hook_error: str = ""
    doomed: str = ""
    grace_s: int | None = None
    redefined: bool = False
    resources: Mapping[str, Any] | None = None
    resize_error: str = ""

    @property
    def last_exit(self) -> Exit | None:
        return self.exits[-1] if self.exits else None


class ImageState(Enum):
    PULLING = "pulling"
    PRESENT = "present"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A closure on the Pod's host. `took_s` is None where it was there already; `retry_at` where a fetch failed.

    `accounts` are those in its own /etc; None where they are not known.
    """

    path: StorePath
    state: ImageState
    message: str = ""
    took_s: float | None = None
    size_bytes: int | None = None
    retry_at: float | None = None
    accounts: Accounts | None = None


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What one host has of one Pod. No containers and no images: only its sandbox (or what is left of it).

    `since`: when the sandbox (its network) was made, infinite while there is none; what ended before ran in another, that a
    reboot took. `handler`: what kind of machine its containers are.
    """

    uid: Uid
    host: HostName
    namespace: str
    name: str
    addresses: tuple[str, ...] = ()
    containers: Mapping[str, ContainerFacts] = field(default_factory=dict)
    images: Mapping[StorePath, ImageFacts] = field(default_factory=dict)
    since: float = 0.0
    handler: Handler = DEFAULT


class HostState(Enum):
    UNKNOWN = "unknown"  # not listed since the connection came up: says nothing about what runs there
    LISTED = "listed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One NixOS host. Amounts are what it has for Pods; `problems` are sentences for a person, each with its remedy.

    `own_users`: it can give a Pod users of its own.
    """

    name: HostName
    state: HostState
    address: str
    message: str = ""
    boot_id: str = ""
    machine_id: str = ""
    system_uuid: str = ""
    kernel: str = ""
    os_image: str = ""
    systemd: str = ""
    nix: str = ""
    arch: str = ""  # Kubernetes' word: amd64, arm64
    cpu_milli: int = 0
    memory_bytes: int = 0
    storage_bytes: int = 0
    pods: int = 0
    huge: Mapping[str, int] = field(default_factory=dict)  # bytes of huge pages by their size, such as 2Mi; also of none
    own_users: bool = True
    controllers: frozenset[str] = frozenset()  # cgroup controllers that can be enforced: cpu, memory, pids, ...
    resolv_conf: str = ""  # of the host itself, for dnsPolicy Default
    hostname: str = ""
    hosts: str = ""  # its /etc/hosts
    problems: tuple[str, ...] = ()

    @property
    def allocatable_bytes(self) -> int:
        """The memory that Pods can have: what is kept as huge pages is nobody's else."""
        return max(0, self.memory_bytes - sum(self.huge.values()))
