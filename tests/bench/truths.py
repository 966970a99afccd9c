"""What random Pods did, and what was told of it: the ends of programs that are known, the starts that hosts have seen. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from tests.bench.kubelet_rules import containers, terminated
from tests.bench.making import Reaches
from tests.bench.programs import Truth

Json = Mapping[str, Any]
LATE_S = 4.0  # a start that was on its way when its Pod was deleted


def broken(seen: Sequence[Json], truths: Mapping[str, Truth], *, away: bool) -> list[str]:
    """`away`: vknix was not there, or not heard by its hosts, for a while."""
    found = [wrong for pod in seen for wrong in (*_ends(pod, truths), *(() if away else _after_deletion(pod)))]
    return list(dict.fromkeys(found))


def _ends(pod: Json, truths: Mapping[str, Truth]) -> Iterator[str]:
    leaving = bool(pod["metadata"].get("deletionTimestamp"))
    failed = pod.get("status", {}).get("phase") == "Failed"
    for name, status in containers(pod.get("status", {})).items():
        truth = truths[name]
        stopped = leaving or truth.disturbed or failed  # a failed init container ends its Pod
        possible = truth.codes | truth.stopped if stopped else truth.codes
        for end in terminated(status):
            if end["exitCode"] not in possible:
                why = " though nothing has stopped it" if not stopped else ""
                yield f"{name}: ended with {end['exitCode']} ({end.get('reason')}) of {sorted(possible)}{why}"
        if not stopped and not truth.codes and status.get("restartCount"):
            yield f"{name}: was restarted though nothing has ended it"


def _after_deletion(pod: Json) -> Iterator[str]:
    """Nothing starts in a Pod that is to go."""
    since = pod["metadata"].get("deletionTimestamp")
    if not since:
        return
    asked = _seconds(since) - pod["metadata"].get("deletionGracePeriodSeconds", 0)
    for name, status in containers(pod.get("status", {})).items():
        began = status.get("state", {}).get("running", {}).get("startedAt")
        if began and _seconds(began) > asked + LATE_S:
            yield f"{name}: began {_seconds(began) - asked:.0f} s after its Pod was deleted"


def was_forced(seen: Sequence[Json], *, forced: bool) -> bool:
    """Whether it went without waiting for its end: so does one that the API server reads before it is bound."""
    graces = [of["metadata"]["deletionGracePeriodSeconds"] for of in seen if of["metadata"].get("deletionTimestamp")]
    return forced or graces[:1] == [0]


def last_word(seen: Sequence[Json], *, forced: bool) -> list[str]:
    """Of a Pod that is gone: unless it was taken away by force, or nothing of it was made, it had ended first."""
    last = seen[-1].get("status", {})
    if was_forced(seen, forced=forced) or last.get("phase") in ("Succeeded", "Failed") or not last.get("startTime"):
        return []
    return [f"gone in phase {last.get('phase')}"]


def starts(
    pod: Json, truths: Mapping[str, Truth], seen: Mapping[str, Mapping[str, int]], *, forced: bool, cut: bool = False
) -> Iterator[str]:
    """`seen`: by host, how often each container of the Pod began there by the host's own word.

    `cut`: a host that was cut off may have started again by itself what is in a Pod that was deleted meanwhile.
    """
    for name, truth in truths.items():
        on = {host: count for host, by_name in seen.items() if (count := by_name.get(name, 0))}
        if len(on) > 1:
            yield f"{name}: began on {' and '.join(sorted(on))}"
        began, told = sum(on.values()), attempts(pod, name)
        if began > told and not forced and (truth.once or not cut):
            yield f"{name}: began {began} times, and {told} were told"
        lacking = told - began
        if truth.witnessed and lacking > 0 and not truth.disturbed and truth.codes and not _was_stopped(pod, name, truth):
            yield f"{name}: {told} attempts were told, and it began {began} times"


def attempts(pod: Json, name: str) -> int:
    """How many attempts a status tells of."""
    status = containers(pod.get("status", {})).get(name, {})
    begun = bool(status.get("containerID") or terminated(status))
    return int(status.get("restartCount", 0)) + begun


def _was_stopped(pod: Json, name: str, truth: Truth) -> bool:
    """Perhaps before its first line."""
    ends = terminated(containers(pod["status"])[name])
    return any(end["exitCode"] in truth.stopped - truth.codes or end["exitCode"] == 137 for end in ends)


def reached(pod: Json, reaches: Reaches) -> bool:
    """Whether a Pod has come as far as it will by itself."""
    status = pod.get("status", {})
    if status.get("phase") in ("Succeeded", "Failed"):
        return True
    if reaches is Reaches.REFUSED:
        return False
    if reaches is Reaches.HELD:
        return bool(status.get("startTime"))
    if reaches is Reaches.BEGUN:
        return any(each.get("containerID") or terminated(each) for each in containers(status).values())
    regular = status.get("containerStatuses") or ()
    return bool(regular) and all(each.get("containerID") or terminated(each) for each in regular)


def held_back(seen: Sequence[Json], reaches: Reaches) -> list[str]:
    """How a Pod that can't be had is told so."""
    phases = {pod.get("status", {}).get("phase") for pod in seen}
    if reaches is Reaches.REFUSED and not phases & {"Failed"}:
        return [f"is to be refused, and was {sorted(str(phase) for phase in phases)}"]
    reasons = [pod["status"]["reason"] for pod in seen if pod.get("status", {}).get("reason")]
    if reaches is not Reaches.REFUSED and any(reason not in ("DeadlineExceeded",) for reason in reasons):
        return [f"was refused: {reasons[-1]}"]
    return []


def over_grace_s(seen: Sequence[Json], gone_at: float) -> float:
    """How long after its grace it was gone."""
    marks = [pod["metadata"]["deletionTimestamp"] for pod in seen if pod["metadata"].get("deletionTimestamp")]
    return gone_at - _seconds(marks[-1]) if marks else 0.0


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
