"""Pods that are to fail though they run: past their activeDeadlineSeconds, or evicted. Pure."""

from dataclasses import dataclass
from datetime import datetime

from vknix.core.pod import Pod

_EVICTED_S = 1  # what an evicted Pod's containers still get, whatever its own grace


@dataclass(frozen=True, slots=True)
class Failing:
    """`grace_s`: what its containers still get. `warning`: as which kind of Event it is told."""

    reason: str
    message: str
    grace_s: float
    warning: bool


def failing(pod: Pod, now: float) -> Failing | None:
    """Why and how; None: it is not to fail. Not one that leaves, or has ended: what is to come of those is decided."""
    if pod.leaving or pod.ended:
        return None
    if pod.evicted:
        return Failing("Evicted", pod.evicted, min(_EVICTED_S, pod.spec.grace_s), warning=True)
    at = expires(pod)
    if at is None or at > now:
        return None
    message = "Pod was active on the node longer than the specified deadline"
    return Failing("DeadlineExceeded", message, pod.spec.grace_s, warning=False)


def expires(pod: Pod) -> float | None:
    """When its activeDeadlineSeconds are over, which count from when it was first told to be seen."""
    since = pod.status.get("startTime")
    if pod.spec.active_deadline_seconds is None or not since:
        return None
    return datetime.fromisoformat(since).timestamp() + pod.spec.active_deadline_seconds
