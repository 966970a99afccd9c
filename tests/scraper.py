"""What readers of a node's metrics make of them.

`samples` reads as Prometheus does. `batch` and `usage` have the rules of metrics-server 0.9 (pkg/scraper/client/resource/decode.go,
pkg/storage), on which `kubectl top` and autoscalers rest: a node or a Pod that breaks one of them has no numbers there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Samples = Mapping[str, Mapping[Labels, float]]  # by the series' name and labels

_SERIES = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?P<labels>\{.*\})? (?P<value>\S+)(?: (?P<at>-?\d+))?$")


def samples(text: str) -> Samples:
    """Raises ValueError for what is no exposition: a line that can't be read, a family or a series that comes twice."""
    found: dict[str, dict[Labels, float]] = {}
    named = [family.name for family in text_string_to_metric_families(text)]
    if len(named) != len(set(named)):
        raise ValueError(f"families come twice: {sorted(name for name in set(named) if named.count(name) > 1)}")
    for family in text_string_to_metric_families(text):
        if family.type == "unknown" or not family.documentation:
            raise ValueError(f"{family.name} has no TYPE or no HELP")
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            of = found.setdefault(sample.name, {})
            if labels in of:
                raise ValueError(f"{sample.name}{dict(labels)} comes twice")
            of[labels] = sample.value
    return found


def value(of: Samples, name: str, **labels: str) -> float:
    """The sum of all series that have these labels; 0 where there is none."""
    return sum(number for has, number in of.get(name, {}).items() if labels.items() <= dict(has).items())


@dataclass(slots=True)
class Point:
    """`at` and `started` are milliseconds; 0: not told."""

    cpu_ns: int = 0
    memory: int = 0
    at: int = 0
    started: float = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """`pods` by namespace and name, then by container."""

    node: Point | None
    pods: Mapping[tuple[str, str], Mapping[str, Point]] = field(default_factory=dict)


def batch(text: str, now_ms: int) -> Batch:
    """What metrics-server keeps of one scrape: all of a Pod goes where one of its containers has a zero."""
    node, pods = Point(), dict[tuple[str, str], dict[str, Point]]()
    for line in text.splitlines():
        series = _SERIES.match(line) if not line.startswith("#") else None
        if series is None:
            continue
        number, at = float(series["value"]), int(series["at"] or now_ms)
        match series["name"]:
            case "node_cpu_usage_seconds_total":
                node.cpu_ns, node.at = int(number * 1e9), at
            case "node_memory_working_set_bytes":
                node.memory, node.at = int(number), at
            case "container_cpu_usage_seconds_total":
                point = _point(pods, series["labels"])
                point.cpu_ns, point.at = int(number * 1e9), at
            case "container_memory_working_set_bytes":
                point = _point(pods, series["labels"])
                point.memory, point.at = int(number), at
            case "container_start_time_seconds":
                _point(pods, series["labels"]).started = number * 1000
    whole = {name: of for name, of in pods.items() if all(point.cpu_ns and point.memory for point in of.values())}
    return Batch(node if node.cpu_ns and node.memory and node.at else None, whole)


def _point(pods: dict[tuple[str, str], dict[str, Point]], labels: str) -> Point:
    """Labels are looked for by their text, as there: `pod="` is what comes first, also as the end of another's name."""
    container, pod, namespace = (labels.split(f'{name}="', 1)[1].split('"', 1)[0] for name in ("container", "pod", "namespace"))
    return pods.setdefault((namespace, pod), {}).setdefault(container, Point())


@dataclass(frozen=True, slots=True)
class Use:
    """`cores` is on average since the scrape before."""

    cores: float
    memory: int


def usage(last: Point, before: Point) -> Use | None:
    """None where two scrapes give no rate: time has not moved on, the counter has fallen, or the container began anew."""
    if last.at <= before.at or last.cpu_ns < before.cpu_ns or last.started > before.at:
        return None
    return Use((last.cpu_ns - before.cpu_ns) / (last.at - before.at) / 1e6, last.memory)
