"""vknix's own numbers: counted where things happen, told at /metrics. Labels have few values: hosts, verbs, codes, never Pods."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vknix.exposition import Family, Labels, Sample, number

QUICK_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SLOW_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Counter:
    """A number for each value of its labels; it only grows."""

    def __init__(self, name: str, told: str, *labels: str) -> None:
        self._name, self._told, self._labels = name, told, labels
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, *values: str, by: float = 1.0) -> None:
        self._values[values] = self._values.get(values, 0.0) + by

    @property
    def values(self) -> tuple[tuple[str, ...], ...]:
        return tuple(self._values)

    def forget(self, found: Callable[[tuple[str, ...]], bool]) -> None:
        for values in [values for values in self._values if found(values)]:
            del self._values[values]

    def family(self) -> Family:
        samples = (Sample(_labelled(self._labels, values), count) for values, count in sorted(self._values.items()))
        return Family(self._name, "counter", self._told, tuple(samples))


class Histogram:
    """How long things took, in seconds, for each value of its labels."""

    def __init__(self, name: str, told: str, *labels: str, bounds: tuple[float, ...] = QUICK_S) -> None:
        self._name, self._told, self._labels, self._bounds = name, told, labels, bounds
        self._values: dict[tuple[str, ...], tuple[list[int], float]] = {}

    def observe(self, took_s: float, *values: str) -> None:
        counts, so_far = self._values.get(values) or ([0] * (len(self._bounds) + 1), 0.0)
        counts[bisect_left(self._bounds, took_s)] += 1
        self._values[values] = counts, so_far + took_s

    @contextmanager
    def timing(self, *values: str) -> Iterator[None]:
        """Also where the block fails."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.observe(time.monotonic() - began, *values)

    def forget(self, found: Callable[[tuple[str, ...]], bool]) -> None:
        for values in [values for values in self._values if found(values)]:
            del self._values[values]

    def family(self) -> Family:
        return Family(self._name, "histogram", self._told, tuple(self._samples()))

    def _samples(self) -> Iterator[Sample]:
        for values, (counts, so_far) in sorted(self._values.items()):
            labels, upto = _labelled(self._labels, values), 0
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
                upto += count
                yield Sample((*labels, ("le", number(bound))), upto, suffix="_bucket")
            yield Sample(labels, so_far, suffix="_sum")
            yield Sample(labels, upto, suffix="_count")


def _labelled(names: tuple[str, ...], values: tuple[str, ...]) -> Labels:
    return tuple(zip(names, values, strict=True))


def gauge(name: str, told: str, *samples: tuple[Labels, float]) -> Family:
    return Family(name, "gauge", told, tuple(Sample(labels, value) for labels, value in samples))


class Telemetry:
    """Of one node."""

    def __init__(self) -> None:
        self.api = Histogram("rest_client_request_duration_seconds", "Request latency of the API server in seconds.", "verb")
        self.api_calls = Counter(
            "rest_client_requests_total", "Number of requests to the API server, by method and code.", "method", "code"
        )
        self.ssh = Histogram("vknix_ssh_command_duration_seconds", "How long a host took for one command over SSH.", "host")
        self.ssh_failures = Counter(
            "vknix_ssh_failures_total", "Commands whose outcome is unknown: the link to the host died.", "host"
        )
        self.connects = Counter("vknix_host_connections_total", "Links to a host, by whether they came up.", "host", "result")
        self.waits = Histogram("vknix_pod_queue_duration_seconds", "How long a Pod waited for its turn after something was new.")
        self.turns = Histogram("vknix_pod_turn_duration_seconds", "How long one turn of work on a Pod took.", "result")
        self.starts = Histogram(
            "vknix_pod_start_phase_duration_seconds",
            "Start of a Pod by phase: place (until it has a host), make (until its host was asked to start it), run (until all of "
            "it runs), tell (until the API server knows).",
            "phase",
            bounds=SLOW_S,
        )
        self.whole_starts = Histogram(
            "kubelet_pod_start_duration_seconds", "Seconds from seeing a Pod for the first time to it running.", bounds=SLOW_S
        )
        self.probes = Counter(
            "prober_probe_total",
            "Cumulative number of a liveness, readiness or startup probe for a container by result.",
            *("container", "namespace", "pod", "pod_uid", "probe_type", "result"),
        )
        self.probe_times = Histogram(
            "prober_probe_duration_seconds",
            "Duration in seconds for a probe response.",
            "container",
            "namespace",
            "pod",
            "probe_type",
        )

    def families(self) -> Iterator[Family]:
        """All but the probes, which have a route of their own."""
        counted: tuple[Counter | Histogram, ...] = (self.api, self.api_calls, self.ssh, self.ssh_failures, self.connects)
        counted += (self.waits, self.turns, self.starts, self.whole_starts)
        yield from (each.family() for each in counted)
        yield from _process()

    def probed(self) -> Iterator[Family]:
        yield from (self.probes.family(), self.probe_times.family())

    def forget_probes(self, uid: str) -> None:
        """Of a Pod that is gone."""
        named = {values[:3] for values in self.probes.values if values[3] == uid}
        self.probes.forget(lambda values: values[3] == uid)
        if named:
            self.probe_times.forget(lambda values: values[:3] in named)


def _process() -> Iterator[Family]:
    """This process, in the names that dashboards know."""
    told = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    used = Sample((), time.process_time())
    yield Family("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", (used,))
    yield gauge("process_resident_memory_bytes", "Resident memory size in bytes.", ((), pages * 4096))
    yield gauge("process_threads", "Number of threads.", ((), int(told[17])))
    yield gauge("process_open_fds", "Number of open file descriptors.", ((), len(list(Path("/proc/self/fd").iterdir()))))
