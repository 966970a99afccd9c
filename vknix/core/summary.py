"""What is measured -> the Summary of /stats/summary (k8s.io/kubelet/pkg/apis/stats/v1alpha1)."""

from collections.abc import Mapping
from typing import Any

from vknix.core import measured
from vknix.core.container_status import stamp
from vknix.core.measured import Container, Measured, MeasuredPod, total
from vknix.core.usage import Filesystem, Interface, Pressure, Stalls, Usage

Json = dict[str, Any]


def summary(of: Measured, now: float, *, only_cpu_and_memory: bool) -> Json:
    """`now` stands for the node's times: its hosts were read within a moment of it."""
    return {"node": _node(of, now, brief=only_cpu_and_memory), "pods": [_pod(pod, brief=only_cpu_and_memory) for pod in of.pods]}


def _node(of: Measured, now: float, *, brief: bool) -> Json:
    """Of a pool: the sums of those of its hosts that answered."""
    if not of.hosts:
        return {"nodeName": of.node, "startTime": stamp(now)}
    hosts, at = of.nows, stamp(now)
    wholes = [host.whole for host in hosts]
    used = total(whole.working_set for whole in wholes) or 0
    rates = [measured.nano_cores(each.now.whole, each.before.whole if each.before else None, each) for each in of.hosts.values()]
    only = wholes[0] if len(wholes) == 1 else None
    node: Json = {
        "nodeName": of.node,
        "startTime": stamp(min(host.boot for host in hosts)),
        "cpu": _some(
            time=at,
            usageNanoCores=total(rates) if None not in rates else None,
            usageCoreNanoSeconds=max(1, of.cpu_ns),
            psi=_stalls(only, "cpu"),
        ),
        "memory": _some(
            time=at,
            availableBytes=max(0, sum(host.memory for host in hosts) - used),
            usageBytes=total(whole.memory for whole in wholes),
            workingSetBytes=used,
            rssBytes=total(whole.rss for whole in wholes),
            pageFaults=total(whole.page_faults for whole in wholes),
            majorPageFaults=total(whole.major_page_faults for whole in wholes),
            psi=_stalls(only, "memory"),
        ),
        "swap": _some(
            time=at,
            swapAvailableBytes=total(host.swap_available for host in hosts),
            swapUsageBytes=total(whole.swap for whole in wholes),
        ),
    }
    if brief:
        return node
    several = len(of.hosts) > 1
    interfaces = [
        (f"{name}/{each.name}" if several else each.name, each)
        for name, reading in of.hosts.items()
        for each in reading.now.whole.interfaces
    ]
    processes = [host.processes for host in hosts if host.processes is not None]
    if only is not None and "io" in only.stalls:
        node["io"] = {"time": at, "psi": _stalls(only, "io")}
    node["network"] = _network(at, interfaces)
    node["fs"] = _filesystems(of, "node", at)
    node["runtime"] = {"imageFs": _filesystems(of, "image", at), "containerFs": node["fs"]}
    if processes:
        node["rlimit"] = {"time": at, "curproc": sum(own[0] for own in processes), "maxpid": sum(own[1] for own in processes)}
    return node


def _filesystems(of: Measured, which: str, at: str) -> Json:
    found = [host.filesystems[which] for host in of.nows if which in host.filesystems]
    whole = Filesystem(
        sum(each.capacity for each in found),
        sum(each.available for each in found),
        sum(each.inodes for each in found),
        sum(each.inodes_free for each in found),
    )
    return _room(whole, at) | {"usedBytes": whole.capacity - whole.available, "inodesUsed": whole.inodes - whole.inodes_free}


def _pod(pod: MeasuredPod, *, brief: bool) -> Json:
    at, facts, usage = stamp(pod.at), pod.facts, pod.usage
    made: Json = {
        "podRef": {"name": facts.name, "namespace": facts.namespace, "uid": facts.uid},
        "startTime": stamp(min((facts.since, *(each.started for each in pod.containers)))),
        "containers": [_container(pod, each, at, brief=brief) for each in pod.containers],
        "cpu": _cpu(usage, pod.nano_cores, at),
        "memory": _memory(usage, at),
        "swap": _swap(usage, at),
    }
    if brief:
        return made
    if usage.interfaces:
        made["network"] = _network(at, [(each.name, each) for each in usage.interfaces])
    if "io" in usage.stalls:
        made["io"] = {"time": at, "psi": _stalls(usage, "io")}
    if usage.processes is not None:
        made["process_stats"] = {"process_count": usage.processes}
    if "node" in pod.host.filesystems:
        made["ephemeral-storage"] = _room(pod.host.filesystems["node"], at)
    return made


def _container(pod: MeasuredPod, of: Container, at: str, *, brief: bool) -> Json:
    made: Json = {
        "name": of.facts.name,
        "startTime": stamp(of.started),
        "cpu": _cpu(of.usage, of.nano_cores, at),
        "memory": _memory(of.usage, at),
        "swap": _swap(of.usage, at),
    }
    if brief:
        return made
    disk = pod.host.filesystems.get("node")
    if "io" in of.usage.stalls:
        made["io"] = {"time": at, "psi": _stalls(of.usage, "io")}
    if disk is not None:
        made["rootfs"] = _room(disk, at)
        if of.usage.logs is not None:
            made["logs"] = _room(disk, at) | {"usedBytes": of.usage.logs[0], "inodesUsed": of.usage.logs[1]}
    return made


def _cpu(usage: Usage, nano_cores: int | None, at: str) -> Json:
    used = measured.cpu_ns(usage) if usage.cpu_ns is not None else None
    return _some(time=at, usageNanoCores=nano_cores, usageCoreNanoSeconds=used, psi=_stalls(usage, "cpu"))


def _memory(usage: Usage, at: str) -> Json:
    free = max(0, usage.limit - usage.working_set) if usage.limit is not None and usage.working_set is not None else None
    return _some(
        time=at,
        availableBytes=free,
        usageBytes=usage.memory,
        workingSetBytes=usage.working_set,
        rssBytes=usage.rss,
        pageFaults=usage.page_faults,
        majorPageFaults=usage.major_page_faults,
        psi=_stalls(usage, "memory"),
    )


def _swap(usage: Usage, at: str) -> Json:
    free = max(0, usage.swap_limit - (usage.swap or 0)) if usage.swap_limit is not None else None
    return _some(time=at, swapAvailableBytes=free, swapUsageBytes=usage.swap)


def _network(at: str, interfaces: list[tuple[str, Interface]]) -> Json:
    """The first interface is the default one."""
    each = [_interface(name, of) for name, of in interfaces]
    return {"time": at, **(each[0] if each else {"name": ""}), "interfaces": each}


def _interface(name: str, of: Interface) -> Json:
    return {
        "name": name,
        "rxBytes": of.rx_bytes,
        "rxErrors": of.rx_errors,
        "txBytes": of.tx_bytes,
        "txErrors": of.tx_errors,
    }


def _room(of: Filesystem, at: str) -> Json:
    return {
        "time": at,
        "availableBytes": of.available,
        "capacityBytes": of.capacity,
        "inodesFree": of.inodes_free,
        "inodes": of.inodes,
    }


def _stalls(usage: Usage | None, kind: str) -> Json | None:
    found = usage.stalls.get(kind) if usage is not None else None
    return _both(found) if found is not None else None


def _both(of: Stalls) -> Json:
    return {"full": _pressure(of.full), "some": _pressure(of.some)}


def _pressure(of: Pressure) -> Json:
    return {"total": of.total_us * 1000, "avg10": of.avg10, "avg60": of.avg60, "avg300": of.avg300}


def _some(**fields: Any) -> Json:
    found: Mapping[str, Any] = fields
    return {name: value for name, value in found.items() if value is not None}
