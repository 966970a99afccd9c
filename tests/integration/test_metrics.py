"""What the node tells of use: held against what the kernel says of the same programs; read as metrics-server and Prometheus do."""

import json
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests import scraper
from tests.integration import callers
from tests.integration.build import Json, Space, container, is_ready, pod, seconds, status
from tests.integration.callers import Caller
from tests.lab.layout import CHECKOUT
from tests.lab.shell import wait_for
from tests.lab.vknixproc import KUBELET_PORT
from tests.scraper import Samples, value
from vknix.kubelet.views import METRICS
from vknix.loops.usages import FRESH_S

pytestmark = pytest.mark.lab

MIB = 1 << 20
HELD, SENT = 48 * MIB, 8 * MIB
HOLD = f'x=$(head -c {HELD} /dev/zero | tr "\\0" x); touch /tmp/held; sleep 3600 & wait'
SERVE = f"head -c {SENT} /dev/zero > /tmp/zeros; exec httpd -f -p 8080 -h /tmp"
HERTZ = 100


@dataclass(frozen=True, slots=True)
class Scene:
    """`before`: what /metrics said when none of the Pods was there."""

    space: Space
    caller: Caller
    before: Samples
    pods: dict[str, Json]

    def scrape(self, path: str) -> Samples:
        return scraper.samples(self.caller.get(path))

    def summary(self, query: str = "") -> Json:
        told: Json = json.loads(self.caller.get(f"/stats/summary{query}"))
        return told

    def told(self, name: str) -> Json:
        """Of one Pod, by the summary."""
        refs = {(of["podRef"]["namespace"], of["podRef"]["name"]): of for of in self.summary()["pods"]}
        return dict(refs[self.space.name, name])

    def labels(self, name: str) -> dict[str, str]:
        return {"namespace": self.space.name, "pod": name}

    def cpu_s(self, name: str) -> float:
        """Of a container's first process, by the kernel; it waits for its children."""
        fields = self.space.exec(name, "cat", "/proc/1/stat").rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / HERTZ

    def rss(self, name: str) -> int:
        (line,) = [line for line in self.space.exec(name, "cat", "/proc/1/status").splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def scene(shared: Space) -> Scene:
    caller, image = callers.api_server(shared.lab), shared.lab.image_busybox
    before = scraper.samples(caller.get("/metrics"))
    held = {"exec": {"command": ["test", "-e", "/tmp/held"]}, "periodSeconds": 1}
    shared.create(
        pod("burns", container(image, "while :; do :; done")),
        pod("holds", container(image, HOLD, readinessProbe=held), container(image, name="idle")),
        pod("serves", container(image, SERVE)),
    )
    made = shared.wait(is_ready, "burns", "holds", "serves")
    return Scene(shared, caller, before, made)


def fresh(scene: Scene) -> None:
    """Until a scrape reads the hosts again, and not the answer of one before."""
    time.sleep(FRESH_S + 0.1)


def test_cpu_is_what_the_kernel_says(scene: Scene) -> None:
    fresh(scene)
    least = scene.cpu_s("burns")
    resource = scene.scrape("/metrics/resource")
    summary = scene.told("burns")
    most = scene.cpu_s("burns")
    assert most > 0.5  # it burns
    (of_container,) = summary["containers"]
    tolerance = 0.3  # supervisor and accounting by ticks
    for told in (
        value(resource, "container_cpu_usage_seconds_total", container="main", **scene.labels("burns")),
        value(resource, "pod_cpu_usage_seconds_total", **scene.labels("burns")),
        of_container["cpu"]["usageCoreNanoSeconds"] / 1e9,
        summary["cpu"]["usageCoreNanoSeconds"] / 1e9,
    ):
        assert least - tolerance <= told <= most + tolerance


def test_memory_is_what_the_kernel_says(scene: Scene) -> None:
    fresh(scene)
    rss = scene.rss("holds")
    assert rss > HELD
    resource, summary = scene.scrape("/metrics/resource"), scene.told("holds")
    containers = {of["name"]: of for of in summary["containers"]}
    told = value(resource, "container_memory_working_set_bytes", container="main", **scene.labels("holds"))
    assert 0.9 * rss <= told <= rss + 24 * MIB
    assert containers["main"]["memory"]["workingSetBytes"] == told
    assert 0 < containers["idle"]["memory"]["workingSetBytes"] < 24 * MIB
    assert summary["memory"]["workingSetBytes"] >= told
    node = value(resource, "node_memory_working_set_bytes")
    assert node > told


def test_network_bytes_are_those_that_went_over_it(scene: Scene) -> None:
    address = scene.pods["serves"]["status"]["podIP"]
    fresh(scene)
    before = scene.told("serves")["network"]
    with urllib.request.urlopen(f"http://{address}:8080/zeros", timeout=30) as answer:
        assert len(answer.read()) == SENT
    fresh(scene)
    after, cadvisor = scene.told("serves")["network"], scene.scrape("/metrics/cadvisor")
    assert SENT <= after["txBytes"] - before["txBytes"] <= 1.2 * SENT
    assert 0 < after["rxBytes"] - before["rxBytes"] < SENT / 4
    name = after["name"]
    told = value(cadvisor, "container_network_transmit_bytes_total", interface=name, **scene.labels("serves"))
    assert told == after["txBytes"]


def test_the_summary_names_what_runs_and_since_when(scene: Scene) -> None:
    fresh(scene)
    summary = scene.summary()
    assert summary["node"]["nodeName"] == "vknix"
    assert summary["node"]["fs"]["capacityBytes"] > summary["node"]["fs"]["availableBytes"] > 0
    mine = {of["podRef"]["name"]: of for of in summary["pods"] if of["podRef"]["namespace"] == scene.space.name}
    assert {name: of["podRef"]["uid"] for name, of in mine.items()} == {
        name: of["metadata"]["uid"] for name, of in scene.pods.items()
    }
    for name, of in mine.items():
        for each in of["containers"]:
            started = status(scene.pods[name], each["name"])["state"]["running"]["startedAt"]
            assert abs(seconds(each["startTime"]) - seconds(started)) <= 1
            assert each["logs"]["usedBytes"] >= 0
    brief = scene.summary("?only_cpu_and_memory=true")
    assert set(brief["node"]) == {"nodeName", "startTime", "cpu", "memory", "swap"}
    assert all("network" not in of for of in brief["pods"])


def test_hosts_are_read_once_for_all_who_scrape_at_a_time(scene: Scene) -> None:
    """Each scrape that read for itself would be a command at each host."""
    fresh(scene)
    paths = ["/metrics/resource", "/metrics/cadvisor", "/stats/summary", "/stats/summary?only_cpu_and_memory=true"] * 10
    before = scene.scrape("/metrics")
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(scene.caller.get, paths))
    rounds = 1 + (time.monotonic() - began) // FRESH_S
    after = scene.scrape("/metrics")
    for host in scene.space.lab.hosts:
        name = "vknix_ssh_command_duration_seconds_count"
        asked = value(after, name, host=host.name) - value(before, name, host=host.name)
        assert 1 <= asked <= rounds + 4  # the node looks after its hosts meanwhile


def test_metrics_server_finds_each_pod_and_its_use(scene: Scene) -> None:
    """Two scrapes, by the rules on which `kubectl top` rests."""
    batches, kernel = [], []
    for _ in range(2):
        fresh(scene)
        kernel.append(scene.cpu_s("burns"))
        batches.append(scraper.batch(scene.caller.get("/metrics/resource"), time.time_ns() // 10**6))
    first, second = batches
    assert first.node is not None
    assert second.node is not None
    of_node = scraper.usage(second.node, first.node)
    assert of_node is not None
    uses = {}
    for name in scene.pods:
        points = second.pods[scene.space.name, name]
        assert set(points) == {each["name"] for each in scene.pods[name]["spec"]["containers"]}
        uses[name] = {each: scraper.usage(point, first.pods[scene.space.name, name][each]) for each, point in points.items()}
        assert None not in uses[name].values()
    burns, holds = uses["burns"]["main"], uses["holds"]["main"]
    assert burns is not None
    assert holds is not None
    spent = burns.cores * (second.pods[scene.space.name, "burns"]["main"].at - first.pods[scene.space.name, "burns"]["main"].at)
    assert abs(spent / 1000 - (kernel[1] - kernel[0])) < 1
    assert of_node.cores > burns.cores / 2
    assert holds.memory > HELD


@pytest.mark.parametrize("path", METRICS)
def test_prometheus_can_read_what_is_served(scene: Scene, path: str) -> None:
    assert scene.scrape(path)
    through = scene.space.lab.kubectl("get", "--raw", f"/api/v1/nodes/vknix/proxy{path}").stdout
    assert scraper.samples(through)


@pytest.fixture
def prometheus(scene: Scene) -> Iterator[Caller]:
    """With the token that docs/metrics.md tells to make."""
    kubectl, manifest = scene.space.lab.kubectl, str(CHECKOUT / "manifests/monitoring.yaml")
    kubectl("create", "namespace", "vknix")
    try:
        kubectl("apply", "--filename", manifest)
        yield Caller(scene.space.lab, token=kubectl("create", "token", "vknix-metrics", "--namespace=vknix").stdout.strip())
    finally:
        kubectl("delete", "--filename", manifest, "--ignore-not-found")
        kubectl("delete", "namespace", "vknix", "--wait=false")


def test_prometheus_reads_metrics_and_nothing_else(scene: Scene, prometheus: Caller) -> None:
    """At the address by which it finds a node: role `node` of its service discovery."""
    node = json.loads(scene.space.lab.kubectl("get", "node", "vknix", "--output=json").stdout)
    (address,) = [each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP"]
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    assert (address, port) == (scene.space.lab.address, KUBELET_PORT)
    assert node["metadata"]["labels"]["type"] == "virtual-kubelet"
    for path in METRICS:
        assert scraper.samples(prometheus.get(path))
    for path in ("/pods", "/stats/summary", f"/containerLogs/{scene.space.name}/serves/main", "/configz"):
        assert prometheus.ask("GET", path).status == 403


def test_what_vknix_does_is_counted(scene: Scene) -> None:
    now = scene.scrape("/metrics")

    def moved(name: str, **labels: str) -> float:
        return value(now, name, **labels) - value(scene.before, name, **labels)

    assert moved("kubelet_pod_start_duration_seconds_count") >= 3
    for phase in ("place", "make", "run", "tell"):
        assert moved("vknix_pod_start_phase_duration_seconds_count", phase=phase) >= 3
        assert moved("vknix_pod_start_phase_duration_seconds_sum", phase=phase) >= 0
    assert moved("vknix_pod_queue_duration_seconds_count") >= 3
    assert moved("vknix_pod_turn_duration_seconds_count") >= 3
    assert moved("rest_client_request_duration_seconds_count") >= 3
    assert moved("rest_client_requests_total", method="PATCH", code="200") >= 3
    assert moved("kubelet_running_pods") >= 3
    assert moved("process_cpu_seconds_total") > 0
    for host in scene.space.lab.hosts:
        assert moved("vknix_ssh_command_duration_seconds_sum", host=host.name) > 0
        assert value(now, "vknix_host_up", host=host.name) == 1
        assert value(now, "vknix_host_connections_total", host=host.name, result="up") >= 1
    probes = scene.scrape("/metrics/probes")
    told = {"container": "main", "probe_type": "Readiness", "result": "successful"}
    assert value(probes, "prober_probe_total", **told, **scene.labels("holds")) >= 1


def test_a_host_that_is_away_is_told_and_the_rest_goes_on(scene: Scene) -> None:
    """Last: it cuts a host off."""
    away = scene.space.lab.hosts[0]
    away.cut()
    try:
        wait_for(lambda: value(scene.scrape("/metrics"), "vknix_host_up", host=away.name) == 0, "the host is missed", timeout_s=60)
        resource = scene.scrape("/metrics/resource")
        assert value(resource, "resource_scrape_error") == 1
        assert value(resource, "node_cpu_usage_seconds_total") > 0
    finally:
        away.heal()
    wait_for(lambda: value(scene.scrape("/metrics"), "vknix_host_up", host=away.name) == 1, "it is back", timeout_s=60)
