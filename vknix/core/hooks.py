"""How far the hooks of an attempt are -> what that makes of its facts. Pure. Rules: kuberuntime_container.go."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from vknix.core.facts import ContainerFacts, PodFacts, State
from vknix.core.pod import Member, Pod, members

FAILED_POST_START = "FailedPostStartHook"


class Stage(Enum):
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Hooked:
    """One attempt. Before its postStart hook has passed, the container does not count as started. `message`: why it failed."""

    attempt: int
    post_start: Stage
    message: str = ""


def before(pod: Pod, member: Member, seen: ContainerFacts) -> Hooked:
    """An attempt is told to run only once its postStart hook has passed: so the next process knows."""
    passed = not has_post_start(member) or _is_told(pod, member, seen)
    return Hooked(seen.attempt, Stage.PASSED if passed else Stage.RUNNING)


def has_post_start(member: Member) -> bool:
    return member.container.lifecycle is not None and member.container.lifecycle.post_start is not None


def has_pre_stop(member: Member) -> bool:
    return member.container.lifecycle is not None and member.container.lifecycle.pre_stop is not None


def _is_told(pod: Pod, member: Member, seen: ContainerFacts) -> bool:
    told = pod.told(member.name)
    return bool(seen.id) and "running" in told.get("state", {}) and str(told.get("containerID", "")).endswith(seen.id)


def is_pending(of: Hooked | None, seen: ContainerFacts) -> bool:
    """Whether the attempt's postStart hook has not passed (yet)."""
    return of is not None and of.attempt == seen.attempt and of.post_start is not Stage.PASSED


def applied(pod: Pod, facts: PodFacts, hooked: Mapping[str, Hooked]) -> PodFacts:
    """The facts, with what the hooks make of each attempt that has any."""
    containers = dict(facts.containers)
    for member in members(pod):
        seen = containers.get(member.name)
        if seen is None or not has_post_start(member):
            continue
        of = hooked.get(member.name)
        if of is None or of.attempt != seen.attempt:
            of = before(pod, member, seen)
        if seen.state is State.STOPPED:
            containers[member.name] = replace(seen, hook_error=of.message)
        elif of.post_start is not Stage.PASSED:
            doomed = seen.doomed or (FAILED_POST_START if of.post_start is Stage.FAILED else "")
            containers[member.name] = replace(seen, hooking=True, up=False, ready=False, doomed=doomed)
    return replace(facts, containers=containers)
