"""What a kubelet never says: the statuses of one Pod, in the order in which they were seen -> what is wrong with them. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

Json = Mapping[str, Any]

_WAITING = set(
    """ContainerCreating PodInitializing CrashLoopBackOff ErrImagePull ImagePullBackOff InvalidImageName CreateContainerConfigError
    CreateContainerError RunContainerError PostStartHookError""".split()
)
_KINDS = ("initContainer", "container", "ephemeralContainer")


def broken(seen: Sequence[Json]) -> list[str]:
    """Each rule that was broken, once, in words. `seen` are whole Pods, the oldest first."""
    found = [wrong for pod in seen for wrong in _alone(pod)]
    found += [wrong for before, after in pairwise(seen) for wrong in _change(before, after)]
    return list(dict.fromkeys(found))


def _alone(pod: Json) -> Iterator[str]:
    """Rules of one status."""
    status = pod.get("status", {})
    phase = status.get("phase")
    if not status.get("startTime"):
        return  # no kubelet has seen it yet
    if (status.get("podIPs") or [{}])[0].get("ip") != status.get("podIP"):
        yield "podIP is not the first of podIPs"
    if status.get("observedGeneration", 0) > pod["metadata"].get("generation", 0):
        yield "observedGeneration is of the future"
    yield from _conditions(status)
    rejected = phase == "Failed" and not status.get("containerStatuses")
    if rejected and not status.get("reason"):
        yield "rejected without a reason"
    if not rejected:
        yield from _complete(pod)
    yield from _ends(pod)
    for name, each in _containers(status).items():
        yield from (f"{name}: {wrong}" for wrong in _container(each))
    yield from _never(pod)


def _never(pod: Json) -> Iterator[str]:
    """Of what may not be started again, and of hosts that stay up."""
    spec = pod["spec"]
    mine = [*spec["containers"], *(spec.get("initContainers") or ())]
    once = {
        each["name"]
        for each in mine
        if each.get("restartPolicy", spec["restartPolicy"]) == "Never" and not each.get("restartPolicyRules")
    }
    for name, status in _containers(pod["status"]).items():
        if name in once and (status.get("restartCount") or status.get("lastState")):
            yield f"{name}: was restarted under Never"
        for of in (status.get("state", {}), status.get("lastState") or {}):
            if of.get("terminated", {}).get("reason") == "ContainerStatusUnknown":
                yield f"{name}: is lost on a host that is up"


def _conditions(status: Json) -> Iterator[str]:
    said = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    if len(said) != len(status.get("conditions") or ()):
        yield "a condition is there twice"
    if said.get("Ready") == "True" and (said.get("ContainersReady") != "True" or status.get("phase") != "Running"):
        yield f"Ready with ContainersReady {said.get('ContainersReady')} in phase {status.get('phase')}"
    if said.get("ContainersReady") == "True" and not all(each.get("ready") for each in status.get("containerStatuses") or ()):
        yield "ContainersReady with a container that is not"
    began = any("running" in each.get("state", {}) for each in status.get("containerStatuses") or ())
    if began and said.get("Initialized") == "False":
        yield "a container runs before the Pod is initialized"


def _complete(pod: Json) -> Iterator[str]:
    for kind, statuses in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
        asked = [each["name"] for each in pod["spec"].get(kind) or ()]
        told = [each["name"] for each in pod["status"].get(statuses) or ()]
        if sorted(asked) != sorted(told):
            yield f"{statuses} are {told}, not {asked}"


def _ends(pod: Json) -> Iterator[str]:
    status = pod["status"]
    regular = [each.get("state", {}) for each in status.get("containerStatuses") or ()]
    every = [*regular, *(each.get("state", {}) for each in status.get("initContainerStatuses") or ())]
    if status.get("phase") not in ("Succeeded", "Failed"):
        return
    if any("running" in state for state in every):
        yield f"{status['phase']} while a container runs"
    codes = [state["terminated"]["exitCode"] for state in regular if "terminated" in state]
    if status["phase"] == "Succeeded" and (any(codes) or len(codes) < len(regular)):
        yield "Succeeded without an exit code 0 of each container"


def _container(status: Json) -> Iterator[str]:
    state = status.get("state", {})
    if len(state) != 1:
        yield f"its state is {sorted(state)}"
    if "waiting" in state and state["waiting"].get("reason") not in _WAITING:
        yield f"waits for {state['waiting'].get('reason')!r}"
    for ended in (state.get("terminated"), status.get("lastState", {}).get("terminated")):
        if ended is not None:
            yield from _ended(ended)
    if status.get("ready") and "waiting" in state:
        yield "ready while it waits"
    if "running" in state and not status.get("containerID"):
        yield "runs without an ID"
    if status.get("restartCount", 0) and not status.get("lastState") and "terminated" not in state:
        yield "was restarted from nothing"


def _ended(ended: Json) -> Iterator[str]:
    if not ended.get("reason"):
        yield "ended without a reason"
    if ended.get("reason") == "Completed" and ended.get("exitCode") != 0:
        yield f"Completed with {ended.get('exitCode')}"
    if ended.get("startedAt") and ended.get("finishedAt") and ended["finishedAt"] < ended["startedAt"]:
        yield "ended before it began"


def _change(before: Json, after: Json) -> Iterator[str]:
    """Rules of what comes after what."""
    old, new = before.get("status", {}), after.get("status", {})
    if old.get("phase") in ("Succeeded", "Failed") and new.get("phase") != old["phase"]:
        yield f"{old['phase']} became {new.get('phase')}"
    if old.get("phase") == "Running" and new.get("phase") == "Pending":
        yield "Running became Pending"
    for field in ("startTime", "podIP", "hostIP"):
        if old.get(field) and new.get(field) != old[field]:
            yield f"{field} changed"
    if old.get("observedGeneration", 0) > new.get("observedGeneration", 0):
        yield "observedGeneration went back"
    yield from _condition_changes(old, new)
    known = _containers(old)
    for name, status in _containers(new).items():
        if name in known:
            yield from (f"{name}: {wrong}" for wrong in _container_change(known[name], status))


def _condition_changes(old: Json, new: Json) -> Iterator[str]:
    was = {each["type"]: each for each in old.get("conditions") or ()}
    for each in new.get("conditions") or ():
        known = was.get(each["type"])
        same = known is not None and known["status"] == each["status"]
        if known is not None and same and known.get("lastTransitionTime") != each.get("lastTransitionTime"):
            yield f"{each['type']} has a new time and the old status"


def _container_change(old: Json, new: Json) -> Iterator[str]:
    was, now = old.get("restartCount", 0), new.get("restartCount", 0)
    if now < was:
        yield "restartCount went back"
    began, begins = old.get("state", {}).get("running"), new.get("state", {}).get("running")
    if now == was and began and begins and began != begins:
        yield "began twice with one restartCount"
    if now == was and "terminated" in old.get("state", {}) and begins:
        yield "came back with the same restartCount"


def _containers(status: Json) -> dict[str, Json]:
    return {each["name"]: each for kind in _KINDS for each in status.get(f"{kind}Statuses") or ()}


def last_word(seen: Sequence[Json], *, forced: bool) -> list[str]:
    """Of a Pod that is gone: unless it was taken away by force, or nothing of it was made, it had ended first.

    The API server takes a Pod at once, whatever grace was asked for, that it reads before it is bound to a node.
    """
    last = seen[-1].get("status", {})
    graces = [of["metadata"]["deletionGracePeriodSeconds"] for of in seen if of["metadata"].get("deletionTimestamp")]
    if forced or graces[:1] == [0] or last.get("phase") in ("Succeeded", "Failed") or not last.get("startTime"):
        return []
    return [f"gone in phase {last.get('phase')}"]
