"""vknix's own numbers, as they are told."""

from tests.unit.test_usage import RUNNING, pod
from vknix.core.facts import HostFacts, HostName, HostState, Uid
from vknix.core.own_metrics import gauges
from vknix.exposition import render
from vknix.loops.starts import Phase, Starts
from vknix.telemetry import Counter, Histogram, Telemetry


def test_a_histogram_counts_upwards() -> None:
    of = Histogram("h", "how long", "host", bounds=(0.1, 1.0))
    for took in (0.05, 0.1, 0.5, 7.0):
        of.observe(took, "red")
    lines = render([of.family()]).splitlines()
    assert lines[2:] == [
        'h_bucket{host="red",le="0.1"} 2',
        'h_bucket{host="red",le="1"} 3',
        'h_bucket{host="red",le="+Inf"} 4',
        'h_sum{host="red"} 7.65',
        'h_count{host="red"} 4',
    ]


def test_a_counter_begins_at_zero_where_it_has_no_labels() -> None:
    assert render([Counter("c", "how many").family()]).endswith("c 0\n")
    assert render([Counter("c", "how many", "host").family()]) == ""


def test_probes_of_a_pod_that_is_gone_are_forgotten() -> None:
    of = Telemetry()
    of.probes.add("main", "ns", "p", "uid-1", "Liveness", "successful")
    of.probe_times.observe(0.1, "main", "ns", "p", "Liveness")
    of.probes.add("main", "ns", "q", "uid-2", "Liveness", "failed")
    of.forget_probes("uid-1")
    text = render(of.probed())
    named = 'container="main",namespace="ns",pod="q",pod_uid="uid-2",probe_type="Liveness",result="failed"'
    assert text.endswith(f"prober_probe_total{{{named}}} 1\n")
    assert "uid-1" not in text


def test_phases_of_a_start_are_told_apart_and_counted_once() -> None:
    of, now = Telemetry(), iter((0.0, 1.0, 3.0, 3.5, 6.0, 7.0, 9.0, 9.0))
    starts = Starts(of, lambda: next(now))
    starts.begin(Uid("one"))
    for phase in (Phase.PLACE, Phase.MAKE, Phase.MAKE, Phase.RUN, Phase.TELL, Phase.RUN):
        starts.reached(Uid("one"), phase)
    starts.reached(Uid("before this process"), Phase.RUN)
    lines = render([of.starts.family(), of.whole_starts.family()]).splitlines()
    sums = {line.partition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if "_sum" in line}
    assert sums == {
        'vknix_pod_start_phase_duration_seconds_sum{phase="place"}': 1.0,
        'vknix_pod_start_phase_duration_seconds_sum{phase="make"}': 2.0,
        'vknix_pod_start_phase_duration_seconds_sum{phase="run"}': 3.0,
        'vknix_pod_start_phase_duration_seconds_sum{phase="tell"}': 1.0,
        "kubelet_pod_start_duration_seconds_sum": 6.0,
    }


def test_hosts_that_are_away_are_told_as_such() -> None:
    hosts = [HostFacts(HostName("red"), HostState.LISTED, "10.0.0.1"), HostFacts(HostName("blue"), HostState.LOST, "10.0.0.2")]
    text = render(gauges("node", hosts, [pod("u", RUNNING)], 2))
    for line in (
        'kubelet_node_name{node="node"} 1',
        "kubelet_running_pods 1",
        'kubelet_running_containers{container_state="running"} 1',
        'vknix_host_up{host="red"} 1',
        'vknix_host_up{host="blue"} 0',
        'vknix_host_pods{host="red"} 1',
    ):
        assert f"{line}\n" in text


def test_the_process_itself_is_told() -> None:
    text = render(Telemetry().families())
    assert "process_resident_memory_bytes " in text
    assert "process_cpu_seconds_total " in text
