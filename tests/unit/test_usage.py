"""What `vktool usage` prints, as it is understood; and what is told of it."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vknix.core import measured, metrics
from vknix.core.facts import ContainerFacts, HostName, PodFacts, State, Uid
from vknix.core.measured import Measured, Odometer, Reading
from vknix.core.summary import summary
from vknix.core.usage import Filesystem, HostUsage, Interface, PodUsage, Pressure, Throttling, Usage
from vknix.errors import HostFailed
from vknix.exposition import Family, Sample, number, render
from vknix.nspawn import usage as usages

UID = Uid("6f0c2f5e-1111-4222-8333-444455556666")
UID32 = UID.replace("-", "")
HOST = """at 1795581672208396637
of host
ticks.cpu 80252 7154 19804 33848 412 0 210 186 0 0
ticks.btime 1795580960
hertz 100
memory.MemTotal 24684092 kB
memory.MemFree 16147976 kB
memory.Inactive(file) 3700836 kB
memory.SwapTotal 0 kB
memory.SwapFree 0 kB
memory.AnonPages 884432 kB
memory.pgfault 38302280
memory.pgmajfault 2187
load 12.58 7.60 3.46 14/148 597
pid_max 32768
psi.cpu.some avg10=97.38 avg60=97.10 avg300=72.17 total=412104179
fs node 1000 400 100 50
net eth0 10 1 20 2
"""
CONTAINER = f"""of container {UID32} main
cpu.usage_usec 1500
cpu.nr_periods 4
cpu.nr_throttled 2
cpu.throttled_usec 7
memory 5000
memory.anon 3000
memory.file 2000
memory.inactive_file 1200
memory.pgfault 9
memory.pgmajfault 1
memory.max 8000
swap 0
swap.max max
processes 2
resident 99999
faults 7 0
logs 4096 1
"""
POD = f"""of pod {UID32}
cpu.usage_usec 2500
processes 3
resident 7000
faults 8 2
net host0 1 2 3 4
"""
END = "that was all\n"


def test_a_cgroup_with_controllers_says_all() -> None:
    read = usages.parse("red", HOST + CONTAINER + POD + END)
    assert read.at == pytest.approx(1795581672.208)
    assert (read.boot, read.memory, read.processes) == (1795580960.0, 24684092 * 1024, (148, 32768))
    assert read.filesystems == {"node": Filesystem(1000, 400, 100, 50)}
    assert read.whole.cpu_ns == (80252 + 7154 + 19804 + 0 + 210 + 186) * 10**7
    assert read.whole.working_set == (24684092 - 16147976 - 3700836) * 1024
    assert read.whole.interfaces == (Interface("eth0", 10, 1, 20, 2),)
    assert read.whole.stalls["cpu"].some == Pressure(97.38, 97.10, 72.17, 412104179)
    main = read.pods[UID].containers["main"]
    assert main == Usage(1500_000, 3800, 5000, 3000, 8000, 9, 1, 0, None, 2, Throttling(4, 2, 7000), (4096, 1))


def test_without_the_memory_controller_processes_are_counted() -> None:
    whole = usages.parse("red", HOST + CONTAINER + POD + END).pods[UID].whole
    assert (whole.working_set, whole.memory, whole.rss, whole.page_faults, whole.major_page_faults) == (7000, 7000, 7000, 8, 2)
    assert (whole.cpu_ns, whole.processes, whole.limit, whole.swap) == (2500_000, 3, None, None)
    assert whole.interfaces == (Interface("host0", 1, 2, 3, 4),)


def test_a_cgroup_without_a_process_has_no_memory_that_is_known() -> None:
    empty = POD.replace("processes 3", "processes 0").replace("resident 7000", "resident 0")
    assert usages.parse("red", HOST + empty + END).pods[UID].whole.working_set is None


@pytest.mark.parametrize(
    "text",
    ["", END, HOST, HOST + POD, HOST.replace("hertz 100\n", "") + END, HOST + POD.replace("processes 3", "processes x") + END],
)
def test_an_answer_that_is_not_whole_is_none(text: str) -> None:
    with pytest.raises(HostFailed, match="host red"):
        usages.parse("red", text)


@given(st.integers(0, len(HOST + CONTAINER + POD + END)))
def test_an_answer_that_breaks_off_is_none(cut: int) -> None:
    text = HOST + CONTAINER + POD + END
    if cut < len(text):
        with pytest.raises(HostFailed):
            usages.parse("red", text[:cut])


def pod(uid: str = UID, *containers: ContainerFacts, host: str = "red", name: str = "p") -> PodFacts:
    return PodFacts(Uid(uid), HostName(host), "ns", name, containers={each.name: each for each in containers}, since=50.0)


RUNNING = ContainerFacts("main", State.RUNNING, 0, id="abc", started=60.0, image="busybox")
USED = Usage(cpu_ns=10**9, working_set=1 << 20, memory=2 << 20, rss=1 << 20, processes=1)


def host(pods: Mapping[str, PodUsage] | None = None, *, at: float = 100.0, cpu_ns: int = 10**12) -> HostUsage:
    whole = Usage(cpu_ns=cpu_ns, working_set=4 << 20, memory=5 << 20, rss=1, page_faults=3, major_page_faults=1, swap=0)
    disk = Filesystem(1000, 400, 100, 50)
    of = {Uid(uid): used for uid, used in (pods or {}).items()}
    return HostUsage(at, 0.0, whole, 8 << 20, 0, (10, 100), {"node": disk, "image": disk}, of)


def measure(readings: dict[str, Reading], *seen: PodFacts, current: str = UID, silent: tuple[str, ...] = ()) -> Measured:
    of = {HostName(name): reading for name, reading in readings.items()}
    names = tuple(HostName(name) for name in silent)
    return Measured("node", of, measured.pods(of, seen, lambda *_: Uid(current)), 10**12, names)


def samples(of: Measured) -> list[str]:
    return [line for line in render(metrics.resource(of)).splitlines() if not line.startswith("#")]


def test_the_resource_metrics_are_a_kubelet_s() -> None:
    used = PodUsage(replace(USED, cpu_ns=2 * 10**9), {"main": USED})
    assert samples(measure({"red": Reading(host({UID: used}))}, pod(UID, RUNNING))) == [
        "node_cpu_usage_seconds_total 1000 100000",
        "node_memory_working_set_bytes 4194304 100000",
        "node_swap_usage_bytes 0 100000",
        'container_start_time_seconds{container="main",pod="p",namespace="ns"} 60',
        'container_cpu_usage_seconds_total{container="main",pod="p",namespace="ns"} 1 100000',
        'container_memory_working_set_bytes{container="main",pod="p",namespace="ns"} 1048576 100000',
        'pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 2 100000',
        'pod_memory_working_set_bytes{namespace="ns",pod="p"} 1048576 100000',
        "resource_scrape_error 0",
    ]


def test_an_idle_container_is_not_zero() -> None:
    idle = PodUsage(USED, {"main": replace(USED, cpu_ns=0)})
    text = "\n".join(samples(measure({"red": Reading(host({UID: idle}))}, pod(UID, RUNNING))))
    assert 'container_cpu_usage_seconds_total{container="main",pod="p",namespace="ns"} 1e-09 100000' in text


@pytest.mark.parametrize(
    "container",
    [
        pytest.param(replace(RUNNING, state=State.STOPPED, started=None), id="stopped"),
        pytest.param(replace(RUNNING, state=State.PREPARING, started=None), id="about-to-start"),
        pytest.param(replace(RUNNING, name="other"), id="without-a-cgroup"),
    ],
)
def test_what_does_not_run_is_not_told(container: ContainerFacts) -> None:
    used = PodUsage(USED, {"main": USED})
    assert measure({"red": Reading(host({UID: used}))}, pod(UID, container)).pods == ()


def test_a_container_whose_memory_is_unknown_does_not_take_its_pod_away() -> None:
    other = replace(RUNNING, name="other")
    used = PodUsage(USED, {"main": USED, "other": replace(USED, working_set=None)})
    of = measure({"red": Reading(host({UID: used}))}, pod(UID, RUNNING, other))
    assert [each.facts.name for each in of.pods[0].containers] == ["main"]


def test_of_a_host_that_is_silent_nothing_is_told() -> None:
    of = measure({}, pod(UID, RUNNING), silent=("red",))
    assert samples(of) == ["resource_scrape_error 1"]
    told = summary(of, 100.0, only_cpu_and_memory=False)
    assert told == {"node": {"nodeName": "node", "startTime": "1970-01-01T00:01:40Z"}, "pods": []}


def test_of_two_pods_of_one_name_the_api_server_s_is_told() -> None:
    old = "0" * 8 + UID[8:]
    used = {UID: PodUsage(USED, {"main": USED}), old: PodUsage(USED, {"main": USED})}
    for seen in ((pod(UID, RUNNING), pod(old, RUNNING)), (pod(old, RUNNING), pod(UID, RUNNING))):
        assert [each.facts.uid for each in measure({"red": Reading(host(used))}, *seen).pods] == [UID]


def test_cpu_of_late_is_known_from_the_second_reading_of_a_run_on() -> None:
    now, before = PodUsage(USED, {"main": USED}), PodUsage(replace(USED, cpu_ns=0), {"main": replace(USED, cpu_ns=0)})
    readings = {"red": Reading(host({UID: now}), host({UID: before}, at=90.0, cpu_ns=10**12 - 10**10))}
    told = summary(measure(readings, pod(UID, RUNNING)), 100.0, only_cpu_and_memory=True)
    assert told["node"]["cpu"]["usageNanoCores"] == 10**9
    assert told["pods"][0]["containers"][0]["cpu"]["usageNanoCores"] == 10**8
    restarted = replace(RUNNING, started=95.0)
    told = summary(measure(readings, pod(UID, restarted)), 100.0, only_cpu_and_memory=True)
    assert "usageNanoCores" not in told["pods"][0]["containers"][0]["cpu"]


def test_the_whole_summary_is_a_kubelet_s() -> None:
    used = PodUsage(
        replace(USED, interfaces=(Interface("host0", 1, 2, 3, 4),)), {"main": replace(USED, limit=3 << 20, logs=(512, 1))}
    )
    of = measure({"red": Reading(host({UID: used})), "blue": Reading(host())}, pod(UID, RUNNING))
    told = summary(of, 100.0, only_cpu_and_memory=False)
    at = "1970-01-01T00:01:40Z"
    network = {"name": "host0", "rxBytes": 1, "rxErrors": 2, "txBytes": 3, "txErrors": 4}
    room = {"time": at, "availableBytes": 400, "capacityBytes": 1000, "inodesFree": 50, "inodes": 100}
    assert told["pods"] == [
        {
            "podRef": {"name": "p", "namespace": "ns", "uid": UID},
            "startTime": "1970-01-01T00:00:50Z",
            "containers": [
                {
                    "name": "main",
                    "startTime": "1970-01-01T00:01:00Z",
                    "cpu": {"time": at, "usageCoreNanoSeconds": 10**9},
                    "memory": {
                        "time": at,
                        "availableBytes": 2 << 20,
                        "usageBytes": 2 << 20,
                        "workingSetBytes": 1 << 20,
                        "rssBytes": 1 << 20,
                    },
                    "swap": {"time": at},
                    "rootfs": room,
                    "logs": room | {"usedBytes": 512, "inodesUsed": 1},
                }
            ],
            "cpu": {"time": at, "usageCoreNanoSeconds": 10**9},
            "memory": {"time": at, "usageBytes": 2 << 20, "workingSetBytes": 1 << 20, "rssBytes": 1 << 20},
            "swap": {"time": at},
            "network": {"time": at, **network, "interfaces": [network]},
            "process_stats": {"process_count": 1},
            "ephemeral-storage": room,
        }
    ]
    node = told["node"]
    assert (node["memory"]["workingSetBytes"], node["memory"]["availableBytes"]) == (8 << 20, 8 << 20)
    assert node["rlimit"] == {"time": at, "curproc": 20, "maxpid": 200}
    assert node["fs"]["usedBytes"] == 1200


def test_cadvisor_s_names_are_there_for_a_pod_and_each_container() -> None:
    used = PodUsage(
        replace(USED, interfaces=(Interface("host0", 1, 2, 3, 4),)), {"main": replace(USED, throttling=Throttling(4, 2, 10**9))}
    )
    text = render(metrics.cadvisor(measure({"red": Reading(host({UID: used}))}, pod(UID, RUNNING)), 2.0))
    whole = f'container="",id="/pod{UID}",image="",name="",namespace="ns",pod="p"'
    main = f'container="main",id="/pod{UID}/main",image="busybox",name="abc",namespace="ns",pod="p"'
    for line in (
        "machine_cpu_cores 2",
        f'container_cpu_usage_seconds_total{{{whole},cpu="total"}} 1 100000',
        f'container_cpu_usage_seconds_total{{{main},cpu="total"}} 1 100000',
        f"container_memory_working_set_bytes{{{main}}} 1048576 100000",
        f"container_cpu_cfs_throttled_seconds_total{{{main}}} 1 100000",
        f'container_network_receive_bytes_total{{{whole},interface="host0"}} 1 100000',
    ):
        assert f"{line}\n" in text


STEPS = st.lists(st.dictionaries(st.sampled_from(("red", "blue", "green")), st.integers(0, 1000)), max_size=12)


@given(STEPS)
def test_the_node_s_cpu_time_never_falls_and_never_jumps(steps: list[dict[str, int]]) -> None:
    """By no more than what a host that was known before has used since, or since it was booted again."""
    odometer, last, known = Odometer(), 0, dict[str, int]()
    for index, step in enumerate(steps):
        now = odometer.read({HostName(name): host(cpu_ns=cpu_ns) for name, cpu_ns in step.items()})
        grown = {name: cpu_ns - known[name] if cpu_ns >= known[name] else cpu_ns for name, cpu_ns in step.items() if name in known}
        if known or not step:
            assert now - last == sum(grown.values()), index
        known |= step
        last = now


def test_text_is_escaped_and_numbers_are_go_s() -> None:
    odd = Sample((("a", 'x"\\\ny'),), 1.5, 2.0)
    assert (
        render([Family("n", "gauge", "one\ntwo\\", (odd,))])
        == '# HELP n one\\ntwo\\\\\n# TYPE n gauge\nn{a="x\\"\\\\\\ny"} 1.5 2000\n'
    )
    assert [number(value) for value in (float("inf"), float("-inf"), float("nan"), 3.0, 2**63, 1e-9)] == [
        *("+Inf", "-Inf", "NaN", "3", "9223372036854775808", "1e-09")
    ]
    assert render([Family("n", "gauge", "none", ())]) == ""
