"""What a host, its Pods and their containers use at one moment, as a backend reports it. None: the host can't say."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vknix.core.facts import Uid


@dataclass(frozen=True, slots=True)
class Pressure:
    """Of the kernel's pressure stall information: shares of the last 10, 60 and 300 s in percent, and all since the beginning."""

    avg10: float
    avg60: float
    avg300: float
    total_us: int


@dataclass(frozen=True, slots=True)
class Stalls:
    """`some`: at least one task waited; `full`: all did."""

    some: Pressure
    full: Pressure


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    rx_bytes: int
    rx_errors: int
    tx_bytes: int
    tx_errors: int


@dataclass(frozen=True, slots=True)
class Filesystem:
    """Bytes and inodes."""

    capacity: int
    available: int
    inodes: int
    inodes_free: int


@dataclass(frozen=True, slots=True)
class Throttling:
    """By its CPU limit: periods in all, those in which it was held back, and for how long."""

    periods: int
    throttled: int
    throttled_ns: int


@dataclass(frozen=True, slots=True)
class Usage:
    """`cpu_ns` counts from its beginning, as faults do; `working_set` is memory that the kernel can't take back at once.

    `limit` and `swap_limit` are None without one. `logs` are bytes and number of a container's log files. `stalls` by resource.
    """

    cpu_ns: int | None = None
    working_set: int | None = None
    memory: int | None = None
    rss: int | None = None
    limit: int | None = None
    page_faults: int | None = None
    major_page_faults: int | None = None
    swap: int | None = None
    swap_limit: int | None = None
    processes: int | None = None
    throttling: Throttling | None = None
    logs: tuple[int, int] | None = None
    interfaces: tuple[Interface, ...] = ()
    stalls: Mapping[str, Stalls] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodUsage:
    """`whole` is the Pod's; containers that do not run are not among `containers`."""

    whole: Usage
    containers: Mapping[str, Usage] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodDisk:
    """Bytes on disk: of each emptyDir there, and of each container that runs what it has written to its root and its logs."""

    empty: Mapping[str, int] = field(default_factory=dict)
    roots: Mapping[str, int] = field(default_factory=dict)
    logs: Mapping[str, int] = field(default_factory=dict)

    def written(self, container: str) -> int:
        return self.roots.get(container, 0) + self.logs.get(container, 0)

    @property
    def total(self) -> int:
        return sum(sum(of.values()) for of in (self.empty, self.roots, self.logs))


@dataclass(frozen=True, slots=True)
class HostUsage:
    """All of one host, read at one moment. Times are seconds since the epoch; `memory` is all that it has.

    `filesystems`: `node`, where Pods write, and `image`, where closures are.
    """

    at: float
    boot: float
    whole: Usage
    memory: int
    swap_available: int | None = None
    processes: tuple[int, int] | None = None  # now, and at most
    filesystems: Mapping[str, Filesystem] = field(default_factory=dict)
    pods: Mapping[Uid, PodUsage] = field(default_factory=dict)
