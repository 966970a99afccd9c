"""manifests/dashboard.json and the scrape configuration of the docs: they ask for what vknix serves."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scraper import samples
from vknix import exposition
from vknix.core import metrics, own_metrics
from vknix.core.facts import ContainerFacts, HostFacts, HostName, HostState, PodFacts, State, Uid
from vknix.core.measured import Container, Measured, MeasuredPod, Reading
from vknix.core.usage import HostUsage, Interface, Pressure, Stalls, Throttling, Usage
from vknix.kubelet.views import METRICS
from vknix.telemetry import Counter, Histogram, Telemetry

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "manifests/dashboard.json").read_text())
OF_PROMETHEUS = {"instance", "job"}


def measured() -> Measured:
    """One of everything."""
    stalls = dict.fromkeys(("cpu", "memory", "io"), Stalls(Pressure(0, 0, 0, 1), Pressure(0, 0, 0, 1)))
    usage = Usage(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, Throttling(1, 1, 1), (1, 1), (Interface("host0", 1, 1, 1, 1),), stalls)
    facts = ContainerFacts("main", State.RUNNING, 0, started=1.0)
    host = HostUsage(2.0, 1.0, usage, 1 << 30)
    pod = PodFacts(Uid("uid"), HostName("red"), "ns", "p", containers={"main": facts})
    of_pod = MeasuredPod(pod, host, usage, 1, (Container(facts, 1.0, usage, 1),))
    return Measured("node", {HostName("red"): Reading(host)}, (of_pod,), 1)


def moved() -> Telemetry:
    """Each number has been counted once."""
    telemetry = Telemetry()
    for each in vars(telemetry).values():
        labels = [f"a {name}" for name in each._labels]
        if isinstance(each, Counter):
            each.add(*labels)
        elif isinstance(each, Histogram):
            each.observe(1.0, *labels)
    return telemetry


def served() -> dict[str, set[str]]:
    """Each series with its labels' names."""
    of, telemetry = measured(), moved()
    host = HostFacts(HostName("red"), HostState.LISTED, "")
    seen = [pod.facts for pod in of.pods]
    families = [
        *metrics.resource(of),
        *telemetry.families(),
        *telemetry.probed(),
        *own_metrics.gauges("node", [host], seen, 1),
    ]
    names: dict[str, set[str]] = {}
    for text in (exposition.render(families), exposition.render(metrics.cadvisor(of, 1))):
        for name, series in samples(text).items():
            names.setdefault(name, set()).update(label for labels in series for label, _ in labels)
    return names


SERVED = served()


def queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in DASHBOARD["templating"]["list"]:
        query = variable["query"]
        if isinstance(query, dict):
            yield query["query"]


QUERIES = sorted(set(queries()))
METRIC = re.compile(r"(?<![\w\"$])([a-z][a-z0-9]*(?:_[a-z0-9]+)+)(?=[{,\[)]|$)")


def named(query: str) -> list[str]:
    """The series that a query reads: words with an underscore that are no function and no label."""
    bare = re.sub(r"by \([^)]*\)|\{[^}]*\}", lambda match: "" if match[0].startswith("by") else "{", query)
    return [name for name in METRIC.findall(bare) if name not in ("histogram_quantile", "label_values")]


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_reads_what_is_served(query: str) -> None:
    names = named(query)
    assert names
    assert set(names) <= SERVED.keys()
    for name, matchers in re.findall(r"([a-z]\w+)\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)(?:=~|!=|!~|=)", matchers)) <= SERVED[name] | OF_PROMETHEUS
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(",")}
    assert all(grouped <= SERVED[name] | OF_PROMETHEUS for name in names)


@pytest.mark.parametrize("query", QUERIES)
def test_counters_are_rates_and_brackets_match(query: str) -> None:
    assert all(query.count(opening) == query.count(closing) for opening, closing in ("()", "[]", "{}"))
    for name in named(query):
        if name.endswith(("_total", "_bucket", "_count")):
            assert re.search(rf"rate\({name}\{{[^}}]*\}}\[", query), name


def test_panels_have_their_places_and_say_what_they_show() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for at in (panel["gridPos"],)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert all(panel["description"] and panel["targets"] for panel in panels if panel["type"] != "row")


SHOWN = ("start_phase", "queue", "ssh_command", "rest_client_request", "host_up", "host_pods", "pod_cpu", "pod_memory")


@pytest.mark.parametrize("what", SHOWN)
def test_it_shows(what: str) -> None:
    assert any(what in name for query in QUERIES for name in named(query))


def scrapes() -> list[dict[str, Any]]:
    (text,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", (ROOT / "docs/metrics.md").read_text(), re.DOTALL)
    configs: list[dict[str, Any]] = yaml.safe_load(text)["scrape_configs"]
    return configs


def test_the_scrape_configuration_in_the_docs_names_what_is_served() -> None:
    configs = scrapes()
    assert {each["metrics_path"] for each in configs} <= set(METRICS)
    assert len({each["job_name"] for each in configs}) == len(configs)
    needed = {"/metrics", "/metrics/resource", "/metrics/cadvisor", "/metrics/probes"}
    assert {each["metrics_path"] for each in configs} == needed  # of the dashboard's series
    for each in configs:
        assert each["scheme"] == "https"
        (found,) = each["kubernetes_sd_configs"]
        assert found["role"] == "node"
        assert {"tls_config", "authorization"} <= each.keys()


def test_each_route_of_metrics_is_in_the_docs() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    assert all(f"| `{path}` |" in text for path in METRICS)
