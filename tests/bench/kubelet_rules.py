"""What a kubelet never says: the statuses of one Pod, in the order in which they were seen -> what is wrong with them. Pure.

`lost`: while hosts are cut off, what is not ready may have no other reason.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

Json = Mapping[str, Any]

_WAITING = set(
    """ContainerCreating PodInitializing CrashLoopBackOff ErrImagePull ImagePullBackOff InvalidImageName CreateContainerConfigError
    CreateContainerError RunContainerError PostStartHookError""".split()
)
_KINDS = ("initContainer", "container", "ephemeralContainer")
_CONDITIONS = {"PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"}
_ENDED = ("Succeeded", "Failed")
_ALL_AGAIN = "RestartingAllContainers"  # told of each container of a Pod where the end of one restarts all


def broken(seen: Sequence[Json], *, lost: bool = False) -> list[str]:
    """Each rule that was broken, once, in words. `seen` are whole Pods, the oldest first."""
    found = [wrong for pod in seen for wrong in _alone(pod, lost=lost)]
    found += [wrong for before, after in pairwise(seen) for wrong in _change(before, after)]
    return list(dict.fromkeys(found))


def containers(status: Json) -> dict[str, Json]:
    """The statuses of all containers, by name."""
    return {each["name"]: each for kind in _KINDS for each in status.get(f"{kind}Statuses") or ()}


def terminated(status: Json) -> list[Json]:
    """The ends that a container's status tells of: of this attempt, and of the one before."""
    ends = (status.get("state", {}).get("terminated"), (status.get("lastState") or {}).get("terminated"))
    return [end for end in ends if end is not None]


# Rules of one status


def _alone(pod: Json, *, lost: bool) -> Iterator[str]:
    status = pod.get("status", {})
    phase = status.get("phase")
    if not status.get("startTime"):
        return  # no kubelet has seen it yet
    if (status.get("podIPs") or [{}])[0].get("ip") != status.get("podIP"):
        yield "podIP is not the first of podIPs"
    if status.get("observedGeneration", 0) > pod["metadata"].get("generation", 0):
        yield "observedGeneration is of the future"
    yield from _conditions(pod)
    rejected = phase == "Failed" and not status.get("containerStatuses")
    if rejected and not (status.get("reason") and status.get("message")):
        yield "rejected without a reason"
    if not rejected:
        yield from _complete(pod)
    yield from _ends(pod)
    yield from _order(pod)
    specs = _specs(pod)
    for name, each in containers(status).items():
        yield from (f"{name}: {wrong}" for wrong in _container(each, together=_together(pod["spec"])))
        if name in specs:
            yield from (f"{name}: {wrong}" for wrong in _readiness(pod, specs[name], each, lost=lost))
    yield from _never(pod)


def _specs(pod: Json) -> dict[str, Json]:
    """Of the containers that can be ready: regular ones and sidecars."""
    sidecars = [each for each in pod["spec"].get("initContainers") or () if each.get("restartPolicy") == "Always"]
    return {each["name"]: each for each in (*pod["spec"]["containers"], *sidecars)}


def _mine(spec: Json) -> list[Json]:
    return [*spec["containers"], *(spec.get("initContainers") or ())]


def _together(spec: Json) -> bool:
    """Whether the end of one container may restart all."""
    return any(rule["action"] == "RestartAllContainers" for each in _mine(spec) for rule in each.get("restartPolicyRules") or ())


def _never(pod: Json) -> Iterator[str]:
    """Of what may not be started again, and of hosts that stay up."""
    spec = pod["spec"]
    never = (each for each in _mine(spec) if each.get("restartPolicy", spec["restartPolicy"]) == "Never")
    once = {each["name"] for each in never if not each.get("restartPolicyRules") and not _together(spec)}
    for name, status in containers(pod["status"]).items():
        if name in once and (status.get("restartCount") or status.get("lastState")):
            yield f"{name}: was restarted under Never"
        if any(end.get("reason") == "ContainerStatusUnknown" for end in terminated(status)):
            yield f"{name}: is lost on a host that is up"


def _conditions(pod: Json) -> Iterator[str]:
    status = pod["status"]
    said = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    if len(said) != len(status.get("conditions") or ()):
        yield "a condition is there twice"
    if status.get("containerStatuses") and (lacking := _CONDITIONS - said.keys()):
        yield f"it lacks the conditions {', '.join(sorted(lacking))}"
    if said.get("Ready") == "True" and (said.get("ContainersReady") != "True" or status.get("phase") != "Running"):
        yield f"Ready with ContainersReady {said.get('ContainersReady')} in phase {status.get('phase')}"
    if said.get("ContainersReady") == "True" and not all(each.get("ready") for each in status.get("containerStatuses") or ()):
        yield "ContainersReady with a container that is not"
    began = any("running" in each.get("state", {}) for each in status.get("containerStatuses") or ())
    if began and said.get("Initialized") == "False":
        yield "a container runs before the Pod is initialized"
    if began and said.get("PodReadyToStartContainers") == "False":
        yield "a container runs in a Pod that is not ready to start containers"
    for each in status.get("conditions") or ():
        if each["status"] == "False" and each["type"] in ("Ready", "ContainersReady", "Initialized") and not each.get("reason"):
            yield f"{each['type']} is False without a reason"


def _complete(pod: Json) -> Iterator[str]:
    for kind, statuses in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
        asked = [each["name"] for each in pod["spec"].get(kind) or ()]
        told = [each["name"] for each in pod["status"].get(statuses) or ()]
        if sorted(asked) != sorted(told):
            yield f"{statuses} are {told}, not {asked}"


def _ends(pod: Json) -> Iterator[str]:
    status, spec = pod["status"], pod["spec"]
    phase = status.get("phase")
    if phase not in _ENDED:
        return
    if any("running" in each.get("state", {}) for each in containers(status).values()):
        yield f"{phase} while a container runs"
    regular = status.get("containerStatuses") or ()
    codes = [end["exitCode"] for each in regular for end in terminated(each)[:1]]
    init = [end["exitCode"] for each in status.get("initContainerStatuses") or () for end in terminated(each)[:1]]
    if phase == "Succeeded" and (any(codes) or len(codes) < len(regular)):
        yield "Succeeded without an exit code 0 of each container"
    leaving = bool(pod["metadata"].get("deletionTimestamp"))
    if phase == "Failed" and not status.get("reason") and not leaving and not any((*codes, *init)):
        yield "Failed, and nothing of it has"
    again = [
        each["name"]
        for each in spec["containers"]
        if each.get("restartPolicy", spec["restartPolicy"]) == "Always" and not each.get("restartPolicyRules")
    ]
    if again and not leaving and not status.get("reason") and not any(init):
        yield f"{phase} with a container that is always restarted"


def _order(pod: Json) -> Iterator[str]:
    """No regular container runs before the init containers are done; no init container before the one before it is."""
    status, together = pod["status"], _together(pod["spec"])  # where it is so, what has ended may be of the round before
    sidecars = {each["name"] for each in pod["spec"].get("initContainers") or () if each.get("restartPolicy") == "Always"}
    told = {each["name"]: each for each in status.get("initContainerStatuses") or ()}
    before = [told[each["name"]] for each in pod["spec"].get("initContainers") or () if each["name"] in told]
    regular = status.get("containerStatuses") or ()
    begun = any("running" in each.get("state", {}) if together else each.get("containerID") for each in regular)
    for each in reversed(before):
        done = bool(each.get("containerID")) if each["name"] in sidecars else _exited(each, 0)
        if begun and not done:
            yield f"{each['name']}: is not done, and what comes after it has begun"
        begun = begun or bool(each.get("containerID"))


def _exited(status: Json, code: int) -> bool:
    return any(end["exitCode"] == code for end in terminated(status))


def _container(status: Json, *, together: bool) -> Iterator[str]:
    state = status.get("state", {})
    if len(state) != 1:
        yield f"its state is {sorted(state)}"
    waits = state.get("waiting", {}).get("reason")
    if "waiting" in state and waits not in _WAITING and not (together and waits == _ALL_AGAIN):
        yield f"waits for {waits!r}"
    if not together and any(end.get("reason") == _ALL_AGAIN for end in terminated(status)):
        yield "was restarted with all others, and no rule says so"
    for ended in terminated(status):
        yield from _ended(ended)
    if status.get("ready") and "waiting" in state:
        yield "ready while it waits"
    if "running" in state and not (status.get("containerID") and state["running"].get("startedAt") and status.get("imageID")):
        yield "runs without an ID, a time or an image's ID"
    if status.get("restartCount", 0) and not status.get("lastState") and "terminated" not in state:
        yield "was restarted from nothing"
    of = state.get("terminated")
    if of is not None and of.get("containerID") and of["containerID"] != status.get("containerID"):
        yield "has ended under another ID"
    last = (status.get("lastState") or {}).get("terminated")
    if last is not None and "running" in state and last.get("containerID") == status.get("containerID"):
        yield "runs under the ID of the attempt before"


def _readiness(pod: Json, spec: Json, status: Json, *, lost: bool) -> Iterator[str]:
    """`started` and `ready`, of those that have them."""
    runs, ready, started = "running" in status.get("state", {}), status.get("ready"), status.get("started")
    if not runs and (ready or started):
        yield "is not running, and ready or started"
    if ready and not started:
        yield "ready before it has started"
    if not runs or lost or pod["metadata"].get("deletionTimestamp"):
        return
    hooked = "postStart" in spec.get("lifecycle", {})
    if not started and "startupProbe" not in spec and not hooked:
        yield "runs, has no startup probe and has not started"
    if started and not ready and "readinessProbe" not in spec:
        yield "has started, has no readiness probe and is not ready"


def _ended(ended: Json) -> Iterator[str]:
    if not ended.get("reason"):
        yield "ended without a reason"
    if (ended.get("reason") == "Completed") != (ended.get("exitCode") == 0):
        yield f"{ended.get('reason')} with {ended.get('exitCode')}"
    if not ended.get("finishedAt"):
        yield "ended at no time"
    if ended.get("startedAt") and ended.get("finishedAt") and ended["finishedAt"] < ended["startedAt"]:
        yield "ended before it began"


# Rules of what comes after what


def _change(before: Json, after: Json) -> Iterator[str]:
    old, new = before.get("status", {}), after.get("status", {})
    if old.get("phase") in _ENDED and new.get("phase") != old["phase"]:
        yield f"{old['phase']} became {new.get('phase')}"
    if old.get("phase") == "Running" and new.get("phase") == "Pending" and not _together(after["spec"]):  # its init runs again
        yield "Running became Pending"
    for field in ("startTime", "podIP", "hostIP", "qosClass"):
        if old.get(field) and new.get(field) != old[field]:
            yield f"{field} changed"
    if old.get("observedGeneration", 0) > new.get("observedGeneration", 0):
        yield "observedGeneration went back"
    yield from _condition_changes(old, new)
    known = containers(old)
    over = after["metadata"].get("deletionTimestamp") or after["spec"].get("activeDeadlineSeconds") or new.get("phase") in _ENDED
    for name, status in containers(new).items():
        if name in known:
            yield from (f"{name}: {wrong}" for wrong in _container_change(known[name], status))
            backs_off = known[name].get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
            if backs_off and not over and "terminated" in status.get("state", {}):
                yield f"{name}: backed off, and has ended again"
    if known.keys() - containers(new).keys():
        yield "a container's status went away"


def _condition_changes(old: Json, new: Json) -> Iterator[str]:
    was = {each["type"]: each for each in old.get("conditions") or () if old.get("startTime")}  # the scheduler's own before that
    for each in new.get("conditions") or ():
        known = was.get(each["type"])
        same = known is not None and known["status"] == each["status"]
        if known is not None and same and known.get("lastTransitionTime") != each.get("lastTransitionTime"):
            yield f"{each['type']} has a new time and the old status"
        back = each["type"] == "Initialized" and known is not None and known["status"] == "True" and each["status"] == "False"
        if back and any(of.get("containerID") for of in old.get("containerStatuses") or ()):
            yield "Initialized was taken back"


def _is_same_end(known: Json, end: Json) -> bool:
    """Messages may become shorter: the containers of a Pod share 12 KiB for them, also an ephemeral one that comes later."""
    if end.get("reason") == _ALL_AGAIN:
        return bool(end.get("exitCode") == 137)  # it counts as if it had not run
    shorter = str(known.get("message", "")).startswith(end.get("message", ""))
    return shorter and {**known, "message": ""} == {**end, "message": ""}


def _container_change(old: Json, new: Json) -> Iterator[str]:
    was, now = old.get("restartCount", 0), new.get("restartCount", 0)
    if now < was:
        yield "restartCount went back"
    began, begins = (of.get("state", {}).get("running") for of in (old, new))
    if now == was and began and begins and began != begins:
        yield "began twice with one restartCount"
    if now == was and "terminated" in old.get("state", {}) and begins:
        yield "came back with the same restartCount"
    one, other = old.get("containerID"), new.get("containerID")
    if now == was and one and other != one:
        yield "has another ID with the same restartCount"
    for end in terminated(new):
        since = (
            min(began["startedAt"], end.get("finishedAt") or "") if began else ""
        )  # it may end before its host says that it runs
        if began and end.get("containerID") == one and end.get("startedAt") != since:
            yield f"ran since {began.get('startedAt')}, and had begun at {end.get('startedAt')} when it was over"
    ends = {end.get("containerID"): end for end in terminated(old)}
    for end in terminated(new):
        known = ends.get(end.get("containerID"))
        if known is not None and not _is_same_end(known, end):
            yield f"an end was told as {_words(known)}, then as {_words(end)}"
    last = (new.get("lastState") or {}).get("terminated", {}).get("containerID")
    if now == was + 1 and one and last != one and not ("waiting" in new.get("state", {}) and last == other):
        yield "the end of the attempt before is not in lastState"
    changed = last != (old.get("lastState") or {}).get("terminated", {}).get("containerID")
    if now == was and changed and last not in (one, other) and "terminated" not in new.get("state", {}):  # `other`: ended unseen
        yield "lastState has changed without a restart"


def _words(end: Json) -> str:
    return " ".join(f"{end.get(key)}" for key in ("reason", "exitCode", "startedAt", "finishedAt"))
