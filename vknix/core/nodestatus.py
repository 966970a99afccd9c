"""(settings, facts of the hosts, now) -> the Node. Rules: kubelet_node_status.go, nodestatus/setters.go."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vknix.core import handlers, quantity
from vknix.core.container_status import RUNTIME, stamp
from vknix.core.facts import HostFacts, HostState
from vknix.core.resources import HUGE

KUBELET_VERSION = "v1.36.0"  # the kubelet whose contract is kept: skew checks and feature gates read it


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    effect: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """`address` is the InternalIP at which the kubelet API is served; `features` are status.declaredFeatures.

    `runtime_handlers`: names of the configuration's own, each for one of ours.
    """

    name: str
    address: str
    port: int
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    features: tuple[str, ...]
    version: str  # of vknix
    runtime_handlers: Mapping[str, str] = field(default_factory=dict)


def new_node(settings: NodeSettings, hosts: Iterable[HostFacts], now: float, pod_cidrs: tuple[str, ...] = ()) -> dict[str, Any]:
    """`pod_cidrs` of a Node that comes back: its Pods have addresses in them."""
    facts = list(hosts)
    taints = [
        {"key": taint.key, "effect": taint.effect} | ({"value": taint.value} if taint.value else {}) for taint in settings.taints
    ]
    cidrs = {"podCIDR": pod_cidrs[0], "podCIDRs": list(pod_cidrs)} if pod_cidrs else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": settings.name,
            "labels": labels(settings, facts),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": ({"taints": taints} if taints else {}) | cidrs,
        "status": node_status(settings, facts, {}, now, networked=False),
    }


def labels(settings: NodeSettings, hosts: Iterable[HostFacts]) -> dict[str, str]:
    archs = {facts.arch for facts in hosts if facts.arch}
    arch = archs.pop() if len(archs) == 1 else ""
    of_arch = {"kubernetes.io/arch": arch, "beta.kubernetes.io/arch": arch} if arch else {}
    return {
        "kubernetes.io/hostname": settings.name,
        "kubernetes.io/os": "linux",
        "beta.kubernetes.io/os": "linux",
        "type": "virtual-kubelet",
        **of_arch,
        **settings.labels,
    }


def node_status(
    settings: NodeSettings, hosts: Iterable[HostFacts], told: Mapping[str, Any], now: float, *, networked: bool
) -> dict[str, Any]:
    """`told` is the status that the Node has: transition times are kept from it. `networked`: its Pod CIDRs are known."""
    known = list(hosts)
    listed = [facts for facts in known if facts.state is HostState.LISTED]
    return {
        "addresses": [{"type": "InternalIP", "address": settings.address}, {"type": "Hostname", "address": settings.name}],
        "capacity": _amounts(known),
        "allocatable": _amounts(listed, memory=lambda facts: facts.allocatable_bytes),
        "conditions": _conditions(known, listed, told, now, networked=networked),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": settings.port}},
        "nodeInfo": _info(settings, listed or known),
        "features": {"supplementalGroupsPolicy": True},
        "declaredFeatures": sorted(set(settings.features)) or None,
        "runtimeHandlers": handlers.runtime_handlers(
            settings.runtime_handlers, own_users=all(facts.own_users for facts in listed or known)
        ),
    }


def _amounts(hosts: list[HostFacts], memory: Callable[[HostFacts], int] = lambda facts: facts.memory_bytes) -> dict[str, str]:
    return {
        "cpu": f"{sum(facts.cpu_milli for facts in hosts)}m",
        "memory": f"{sum(map(memory, hosts)) // 1024}Ki",
        "ephemeral-storage": f"{sum(facts.storage_bytes for facts in hosts) // 1024}Ki",
        "pods": str(sum(facts.pods for facts in hosts)),
        **{f"{HUGE}{size}": str(sum(facts.huge.get(size, 0) for facts in hosts)) for facts in hosts for size in facts.huge},
    }


def _info(settings: NodeSettings, hosts: list[HostFacts]) -> dict[str, Any]:
    """Of one host where there is one; of a pool, what all have in common. A changed boot of one host is not one of the node."""

    def common(values: Iterable[str]) -> str:
        distinct = sorted(set(values) - {""})
        return distinct[0] if len(distinct) == 1 else ", ".join(distinct)

    only = hosts[0] if len(hosts) == 1 else None
    return {
        "machineID": only.machine_id if only else settings.name,
        "systemUUID": only.system_uuid if only else settings.name,
        "bootID": only.boot_id if only else settings.name,
        "kernelVersion": common(facts.kernel for facts in hosts),
        "osImage": common(facts.os_image for facts in hosts),
        "containerRuntimeVersion": f"{RUNTIME}://{common(facts.systemd for facts in hosts) or '0'}",
        "kubeletVersion": f"{KUBELET_VERSION}-vknix-{settings.version}",
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": common(facts.arch for facts in hosts) or "amd64",
    }


def _conditions(
    known: list[HostFacts], listed: list[HostFacts], told: Mapping[str, Any], now: float, *, networked: bool
) -> list[dict[str, Any]]:
    """Ready comes last, as in a kubelet's list."""
    return [
        _condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available", told, now),
        _condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure", told, now),
        _condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available", told, now),
        _condition("Ready", *_readiness(known, listed, networked=networked), told, now),
    ]


def _readiness(known: list[HostFacts], listed: list[HostFacts], *, networked: bool) -> tuple[str, str, str]:
    away = [f"{facts.name}: {facts.message or 'not reached yet'}" for facts in known if facts.state is not HostState.LISTED]
    if not listed:
        return "False", "KubeletNotReady", "no host answers: " + "; ".join(away) if away else "no host is configured"
    if not networked:
        return "False", "KubeletNotReady", "the Pod network is not ready: the Node has no podCIDR yet; set nodes[].podCIDRs"
    if away:
        return (
            "True",
            "KubeletReady",
            f"kubelet is posting ready status; {len(away)} of {len(known)} hosts away: " + "; ".join(away),
        )
    return "True", "KubeletReady", "kubelet is posting ready status"


def _condition(kind: str, status: str, reason: str, message: str, told: Mapping[str, Any], now: float) -> dict[str, Any]:
    before: dict[str, Any] = next((old for old in told.get("conditions") or () if old.get("type") == kind), {})
    since = before.get("lastTransitionTime") if before.get("status") == status else None
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": stamp(now),
        "lastTransitionTime": since or stamp(now),
    }


def is_ready(told: Mapping[str, Any]) -> bool:
    return any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in told.get("conditions") or ())


def differs(told: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether more than heartbeat times has changed. Quantities are compared, not their texts: the API server writes 4000m as 4."""

    def timeless(status: Mapping[str, Any]) -> dict[str, Any]:
        conditions = [{**condition, "lastHeartbeatTime": None} for condition in status.get("conditions") or ()]
        amounts = {
            kind: {name: quantity.parse(text) for name, text in (status.get(kind) or {}).items()}
            for kind in ("capacity", "allocatable")
        }
        return {**status, **amounts, "conditions": sorted(conditions, key=lambda condition: str(condition["type"]))}

    before = timeless({key: told.get(key) for key in wanted})
    return before != timeless(wanted)
