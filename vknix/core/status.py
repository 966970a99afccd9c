"""(Pod, facts, what was last told, now) -> the Pod's status as the API server is to have it. Terminal phases never un-happen.

Rules: kubelet_pods.go (getPhase, generateAPIPodStatus, convertToAPIContainerStatuses), status/generate.go.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from vknix.core import late, resize, rounds
from vknix.core import pod as pods
from vknix.core.container_status import ContainerView, View, container_status, mark_lost, stamp
from vknix.core.decide import Row, failed_init, row
from vknix.core.failing import failing
from vknix.core.pod import Kind, Member, Pod
from vknix.core.restart import is_alive

HOST_ANNOTATION = "vknix.io/host"


def pod_status(pod: Pod, view: View) -> dict[str, Any]:
    """The whole status that vknix owns: keys that it does not name are not its own."""
    if pod.ended:
        return _ended(pod, view)
    if view.refused is not None and view.facts is None:
        return _rejected(pod, view)
    if view.lost is not None:
        return _lost(pod, view)
    each = [ContainerView(pod, member, view) for member in pods.members(pod)]
    regular = [of for of in each if of.member.kind is Kind.REGULAR]
    statuses = [container_status(of) for of in regular]
    before = [(of.member, container_status(of)) for of in each if of.member.kind in (Kind.INIT, Kind.SIDECAR)]
    beside = [container_status(of) for of in each if of.member.kind is Kind.EPHEMERAL]
    again = any(of.comes_again for of in regular) or (row(pod, view.now) is Row.WANTED and rounds.is_ending(pod, view.facts))
    fails = failing(pod, view.now)
    phase = "Failed" if fails is not None and not _is_alive(view) else _phase(pod, view, statuses, before, again=again)
    if phase in ("Succeeded", "Failed") and any("running" in status["state"] for status in beside):
        phase = "Running"  # they are about to be stopped, and what is told of an ended Pod is told for ever
    failed = fails if phase == "Failed" else None
    return {
        "phase": phase,
        "reason": failed.reason if failed is not None else None,
        "message": failed.message if failed is not None else None,
        **_addresses(pod, view),
        "startTime": pod.status.get("startTime") or stamp(view.now),
        "observedGeneration": pod.metadata.generation,
        "containerStatuses": sorted(statuses, key=lambda status: str(status["name"])),
        "initContainerStatuses": [status for _, status in before],
        "ephemeralContainerStatuses": [*beside, *late.statuses(pod)],
        "conditions": [*_conditions(pod, view, phase, statuses, before), *_resizing(pod, view)],
    }


def _ended(pod: Pod, view: View) -> dict[str, Any]:
    """What was told stays; only the generation moves on."""
    conditions = [{**told, "observedGeneration": pod.metadata.generation} for told in pod.status.get("conditions") or ()]
    owned = [condition for condition in conditions if condition["type"] in OWNED]
    return {"phase": pod.phase, "observedGeneration": pod.metadata.generation, "conditions": owned}


def _rejected(pod: Pod, view: View) -> dict[str, Any]:
    assert view.refused is not None
    return {
        "phase": "Failed",
        "reason": view.refused.reason,
        "message": f"Pod was rejected: {view.refused}",
        "startTime": pod.status.get("startTime") or stamp(view.now),
        "observedGeneration": pod.metadata.generation,
    }


def _lost(pod: Pod, view: View) -> dict[str, Any]:
    """Unknown is not absent: the phase and the containers stay as last told, and none of them counts as ready."""
    told = [mark_lost(status) for status in pod.status.get("containerStatuses") or ()]
    sidecars = {member.name for member in pods.members(pod) if member.kind is Kind.SIDECAR}
    before = pod.status.get("initContainerStatuses") or ()
    told_before = [mark_lost(status) if status["name"] in sidecars else status for status in before]
    not_ready = {"reason": "HostUnreachable", "message": view.lost}
    conditions = [
        _condition(pod, view, kind, ok=False, **not_ready)
        for kind in ("ContainersReady", "Ready")
        if told or _told(pod, kind).get("status") == "True"
    ]
    status: dict[str, Any] = {"phase": pod.phase, "observedGeneration": pod.metadata.generation, "conditions": conditions}
    status |= {"containerStatuses": told} if told else {}
    return status | ({"initContainerStatuses": told_before} if told_before else {})


def _addresses(pod: Pod, view: View) -> dict[str, Any]:
    if not view.placed:
        return {}
    of: dict[str, Any] = {}
    if view.host_ips:
        of |= {"hostIP": view.host_ips[0], "hostIPs": [{"ip": ip} for ip in view.host_ips]}
    if view.pod_ips:
        of |= {"podIP": view.pod_ips[0], "podIPs": [{"ip": ip} for ip in view.pod_ips]}
    return of


Before = list[tuple[Member, dict[str, Any]]]


def _is_alive(view: View) -> bool:
    """Something of it runs, or is about to."""
    return view.facts is not None and any(is_alive(seen) for seen in view.facts.containers.values())


def _phase(pod: Pod, view: View, statuses: list[dict[str, Any]], before: Before, *, again: bool) -> str:
    """getPhase: a container that waits after it has run counts as stopped, so a crash loop is Running. Not so while init runs.

    It is over once nothing of it runs, or is about to: what is told of it then is told for ever. A leaving Pod of which its host
    has nothing is over, also where a container never ran: that one has failed.
    """
    leaving = row(pod, view.now) is Row.LEAVING
    sidecars = [status for member, status in before if member.kind is Kind.SIDECAR]
    running = sum("running" in status["state"] for status in (*statuses, *sidecars)) + _hooking(view)
    waiting = sum(_waits(status) for status in statuses)
    waiting += sum(_waits(status) or "running" in status["state"] for member, status in before if member.kind is Kind.INIT)
    alive = _is_alive(view)
    if failed_init(pod, view.facts) and not alive:
        return "Failed"
    if waiting:
        return "Failed" if leaving and not alive and (view.facts is None or view.facts.containers) else "Pending"
    if running:
        return "Running"
    codes = [end["exitCode"] for status in statuses if (end := _terminated(status)) is not None]
    if alive or (again and not leaving):
        return "Running"
    return "Succeeded" if not any(codes) else "Failed"


def _resizing(pod: Pod, view: View) -> Iterator[dict[str, Any]]:
    """Those that do not hold any more are taken away."""
    now = resize.conditions(pod, view.resizing)
    for kind in (resize.PENDING, resize.IN_PROGRESS):
        if kind in now:
            reason, message = now[kind]
            yield _condition(pod, view, kind, ok=True, reason=reason or None, message=message or None)
        elif _told(pod, kind):
            yield {"type": kind, "$patch": "delete"}


def _hooking(view: View) -> int:
    """Containers that run, and are told to wait for their postStart hook."""
    return sum(seen.hooking and is_alive(seen) for seen in view.facts.containers.values()) if view.facts is not None else 0


def _waits(status: dict[str, Any]) -> bool:
    return "waiting" in status["state"] and not status.get("lastState")


def _terminated(status: dict[str, Any]) -> dict[str, Any] | None:
    end = status["state"].get("terminated") or status.get("lastState", {}).get("terminated")
    return dict(end) if end else None


OWNED = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled", rounds.CONDITION)


def _conditions(pod: Pod, view: View, phase: str, statuses: list[dict[str, Any]], before: Before) -> list[dict[str, Any]]:
    each = [*statuses, *(status for _, status in before)]
    sandbox = any("waiting" not in status["state"] or status.get("lastState") for status in each)
    ready = _ready(phase, [*statuses, *(status for member, status in before if member.kind is Kind.SIDECAR)])
    return [
        _condition(pod, view, "PodReadyToStartContainers", ok=sandbox and phase not in ("Succeeded", "Failed")),
        _condition(pod, view, "Initialized", **_initialized(pod, view, phase, before)),
        _condition(pod, view, "Ready", **(_gates(pod) if ready["ok"] else ready)),
        _condition(pod, view, "ContainersReady", **ready),
        _condition(pod, view, "PodScheduled", ok=True),
        *([_condition(pod, view, rounds.CONDITION, **_restarting(pod, view, phase))] if pod.together else ()),
    ]


def _restarting(pod: Pod, view: View, phase: str) -> dict[str, Any]:
    if phase in ("Succeeded", "Failed"):
        return {"ok": False, "reason": "PodCompleted" if phase == "Succeeded" else "PodFailed"}
    if rounds.is_ending(pod, view.facts) and not rounds.is_over(pod, view.facts):
        return {"ok": True, "reason": rounds.STARTED, "message": rounds.WHY}
    return {"ok": False}


def _initialized(pod: Pod, view: View, phase: str, before: Before) -> dict[str, Any]:
    """Stays true once a regular container has started; an init container is complete once it exited 0, a sidecar once up."""
    if phase == "Succeeded":
        return {"ok": True, "reason": "PodCompleted"}
    if phase == "Failed" and _told(pod, "Initialized").get("status") == "True":
        return {"ok": True}  # a sidecar that has ended since takes nothing back
    lacking = [status["name"] for member, status in before if not status["ready" if member.kind is Kind.INIT else "started"]]
    if not lacking or view.initialised(pod) or (pod.together and _told(pod, "Initialized").get("status") == "True"):
        return {"ok": True}
    message = f"containers with incomplete status: [{' '.join(lacking)}]"
    return {"ok": False, "reason": "ContainersNotInitialized", "message": message}


def _ready(phase: str, statuses: list[dict[str, Any]]) -> dict[str, Any]:
    if phase == "Succeeded":
        return {"ok": False, "reason": "PodCompleted"}
    if phase == "Failed":
        return {"ok": False, "reason": "PodFailed"}
    unready = [status["name"] for status in statuses if not status["ready"]]
    if unready:
        return {"ok": False, "reason": "ContainersNotReady", "message": f"containers with unready status: [{' '.join(unready)}]"}
    return {"ok": True}


def _gates(pod: Pod) -> dict[str, Any]:
    lacking = []
    for gate in pod.spec.readiness_gates or ():
        told = _told(pod, gate.condition_type)
        if not told:
            lacking.append(f'corresponding condition of pod readiness gate "{gate.condition_type}" does not exist.')
        elif told.get("status") != "True":
            lacking.append(f'the status of pod readiness gate "{gate.condition_type}" is not "True", but {told.get("status")}')
    return {"ok": False, "reason": "ReadinessGatesNotReady", "message": ", ".join(lacking)} if lacking else {"ok": True}


def _told(pod: Pod, kind: str) -> dict[str, Any]:
    return next((dict(told) for told in pod.status.get("conditions") or () if told.get("type") == kind), {})


def _condition(
    pod: Pod, view: View, kind: str, *, ok: bool, reason: str | None = None, message: str | None = None
) -> dict[str, Any]:
    """lastTransitionTime moves only with the status."""
    told, status = _told(pod, kind), "True" if ok else "False"
    since = told.get("lastTransitionTime") if told.get("status") == status else None
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastProbeTime": None,
        "lastTransitionTime": since or stamp(view.now),
        "observedGeneration": pod.metadata.generation,
    }


def patch(told: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The strategic merge patch that makes `told` into `wanted`, in the keys of `wanted`; empty: nothing to tell."""
    changed = {key: value for key, value in wanted.items() if key != "conditions" and not _same(told.get(key), value)}
    for key in ("podIPs", "hostIPs"):
        if key in changed and told.get(key):  # their merge key is the address: the old one would stay
            changed[key] = [{"$patch": "replace"}, *changed[key]]
    known = {condition["type"]: condition for condition in told.get("conditions") or ()}
    conditions = [condition for condition in wanted.get("conditions") or () if not _same(known.get(condition["type"]), condition)]
    return {**changed, "conditions": conditions} if conditions else changed


def _same(told: Any, wanted: Any) -> bool:
    """Equal, where null, absent and empty are one: the API server leaves out what is empty."""
    if isinstance(told, dict) and isinstance(wanted, dict):
        return all(_same(told.get(key), wanted.get(key)) for key in told.keys() | wanted.keys())
    if isinstance(told, list) and isinstance(wanted, list):
        return len(told) == len(wanted) and all(_same(one, other) for one, other in zip(told, wanted, strict=True))
    return told == wanted or (_empty(told) and _empty(wanted))


def _empty(value: Any) -> bool:
    return value is None or value == "" or value in ({}, [])
