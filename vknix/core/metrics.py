"""What is measured -> the families of /metrics/resource and /metrics/cadvisor.

Names, labels and timestamps are the kubelet's (metrics/collectors/resource_metrics.go) and cadvisor's. metrics-server looks for
labels by their text, drops a Pod that has a zero in it, and needs timestamps that move on.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from vknix.core import measured
from vknix.core.measured import Container, Measured, MeasuredPod, total
from vknix.core.usage import Interface, Usage
from vknix.exposition import Family, Labels, Sample

_Value = Callable[[Usage], float | None]
_Kind = Literal["counter", "gauge"]


def resource(of: Measured) -> Iterator[Family]:
    """`resource_scrape_error` is 1 where a host of the pool gave no answer."""
    wholes = [host.whole for host in of.nows]
    at = max((host.at for host in of.nows), default=None)
    node: list[tuple[str, _Kind, str, float | None]] = [
        ("node_cpu_usage_seconds_total", "counter", "cpu time consumed by the node in core-seconds", max(1, of.cpu_ns) / 1e9),
        ("node_memory_working_set_bytes", "gauge", "working set of the node in bytes", total(each.working_set for each in wholes)),
        ("node_swap_usage_bytes", "gauge", "swap usage of the node in bytes", total(each.swap for each in wholes)),
    ]
    for name, kind, what, value in node if wholes else ():
        yield Family(name, kind, _told(kind, what), (Sample((), value, at),) if value is not None else ())
    began = tuple(Sample(_container(pod, each), each.started) for pod in of.pods for each in pod.containers)
    yield Family("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds", began)
    for name, kind, what, read in _USED:
        samples = ((pod, _container(pod, each), each.usage) for pod in of.pods for each in pod.containers)
        yield Family(f"container_{name}", kind, _told(kind, what.format("container")), _read(samples, read))
    for name, kind, what, read in _USED:
        if name != "swap_limit_bytes":
            samples = ((pod, (("namespace", pod.facts.namespace), ("pod", pod.facts.name)), pod.usage) for pod in of.pods)
            yield Family(f"pod_{name}", kind, _told(kind, what.format("pod")), _read(samples, read))
    told = "1 if there was an error while getting container metrics, 0 otherwise"
    yield Family("resource_scrape_error", "gauge", told, (Sample((), int(bool(of.silent))),))


def _told(kind: _Kind, what: str) -> str:
    return f"{'Cumulative' if kind == 'counter' else 'Current'} {what}"


def _container(pod: MeasuredPod, of: Container) -> Labels:
    return ("container", of.facts.name), ("pod", pod.facts.name), ("namespace", pod.facts.namespace)


def _read(of: Iterable[tuple[MeasuredPod, Labels, Usage]], value: _Value) -> tuple[Sample, ...]:
    read = ((labels, value(usage), pod.at) for pod, labels, usage in of)
    return tuple(Sample(labels, found, at) for labels, found, at in read if found is not None)


def _cpu_s(usage: Usage) -> float | None:
    return measured.cpu_ns(usage) / 1e9 if usage.cpu_ns is not None else None


_USED: tuple[tuple[str, _Kind, str, _Value], ...] = (
    ("cpu_usage_seconds_total", "counter", "cpu time consumed by the {} in core-seconds", _cpu_s),
    ("memory_working_set_bytes", "gauge", "working set of the {} in bytes", lambda usage: usage.working_set),
    ("swap_usage_bytes", "gauge", "swap usage of the {} in bytes", lambda usage: usage.swap),
    ("swap_limit_bytes", "gauge", "swap limit of the {} in bytes", lambda usage: usage.swap_limit),
)


def cadvisor(of: Measured, cores: float) -> Iterator[Family]:
    """What common dashboards read. A Pod as a whole has an empty `container`; `cores` are those of the hosts that answered."""
    if of.hosts:
        yield Family("machine_cpu_cores", "gauge", "Number of logical CPU cores.", (Sample((), cores),))
        memory = sum(host.memory for host in of.nows)
        yield Family("machine_memory_bytes", "gauge", "Amount of memory installed.", (Sample((), memory),))
    for name, kind, told, read in _CADVISOR:
        more: Labels = (("cpu", "total"),) if name == "cpu_usage_seconds_total" else ()
        yield Family(f"container_{name}", kind, told, _read(_all(of, more), read))
    began = tuple(Sample(_of(pod, each), each.started, pod.at) for pod in of.pods for each in pod.containers)
    yield Family("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.", began)
    for name, told, count in _NETWORK:
        samples = tuple(
            Sample((*_of(pod, None), ("interface", each.name)), count(each), pod.at)
            for pod in of.pods
            for each in pod.usage.interfaces
        )
        yield Family(f"container_network_{name}_total", "counter", told, samples)


def _all(of: Measured, more: Labels) -> Iterator[tuple[MeasuredPod, Labels, Usage]]:
    for pod in of.pods:
        yield pod, (*_of(pod, None), *more), pod.usage
        for each in pod.containers:
            yield pod, (*_of(pod, each), *more), each.usage


def _of(pod: MeasuredPod, container: Container | None) -> Labels:
    facts = container.facts if container is not None else None
    return (
        ("container", facts.name if facts else ""),
        ("id", f"/pod{pod.facts.uid}" + (f"/{facts.name}" if facts else "")),
        ("image", facts.image if facts else ""),
        ("name", facts.id if facts else ""),
        ("namespace", pod.facts.namespace),
        ("pod", pod.facts.name),
    )


def _throttled(part: Callable[[tuple[int, int, int]], float]) -> _Value:
    def read(usage: Usage) -> float | None:
        of = usage.throttling
        return part((of.periods, of.throttled, of.throttled_ns)) if of is not None else None

    return read


def _cache(usage: Usage) -> float | None:
    return max(0, usage.memory - usage.rss) if usage.memory is not None and usage.rss is not None else None


def _waited(kind: str, *, all_of_them: bool) -> _Value:
    def read(usage: Usage) -> float | None:
        of = usage.stalls.get(kind)
        return (of.full if all_of_them else of.some).total_us / 1e6 if of is not None else None

    return read


_CADVISOR: tuple[tuple[str, _Kind, str, _Value], ...] = (
    ("cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", _cpu_s),
    ("cpu_cfs_periods_total", "counter", "Number of elapsed enforcement period intervals.", _throttled(lambda of: of[0])),
    ("cpu_cfs_throttled_periods_total", "counter", "Number of throttled period intervals.", _throttled(lambda of: of[1])),
    (
        "cpu_cfs_throttled_seconds_total",
        "counter",
        "Total time duration it has been throttled.",
        _throttled(lambda of: of[2] / 1e9),
    ),
    ("memory_working_set_bytes", "gauge", "Current working set in bytes.", lambda usage: usage.working_set),
    ("memory_usage_bytes", "gauge", "Current memory usage in bytes, with all memory.", lambda usage: usage.memory),
    ("memory_rss", "gauge", "Size of RSS in bytes.", lambda usage: usage.rss),
    ("memory_cache", "gauge", "Number of bytes of page cache memory.", _cache),
    ("memory_swap", "gauge", "Container swap usage in bytes.", lambda usage: usage.swap),
    ("spec_memory_limit_bytes", "gauge", "Memory limit for the container.", lambda usage: usage.limit),
    ("processes", "gauge", "Number of processes running inside the container.", lambda usage: usage.processes),
    ("pressure_cpu_waiting_seconds_total", "counter", "Time that tasks waited for the CPU.", _waited("cpu", all_of_them=False)),
    (
        "pressure_memory_waiting_seconds_total",
        "counter",
        "Time that tasks waited for memory.",
        _waited("memory", all_of_them=False),
    ),
    ("pressure_memory_stalled_seconds_total", "counter", "Time that all waited for memory.", _waited("memory", all_of_them=True)),
    (
        "pressure_io_waiting_seconds_total",
        "counter",
        "Time that tasks waited for input and output.",
        _waited("io", all_of_them=False),
    ),
    ("pressure_io_stalled_seconds_total", "counter", "Time that all waited for input and output.", _waited("io", all_of_them=True)),
)

_NETWORK: tuple[tuple[str, str, Callable[[Interface], int]], ...] = (
    ("receive_bytes", "Cumulative count of bytes received.", lambda of: of.rx_bytes),
    ("receive_errors", "Cumulative count of errors encountered while receiving.", lambda of: of.rx_errors),
    ("transmit_bytes", "Cumulative count of bytes transmitted.", lambda of: of.tx_bytes),
    ("transmit_errors", "Cumulative count of errors encountered while transmitting.", lambda of: of.tx_errors),
)
