"""RestartAllContainers: one container's exit ends the round of all, and the next one begins with the init containers. Pure.

Rules: container/helpers.go (ShouldAllContainersRestart), kubelet_pods.go. A round is over once nothing of it runs and the API
server has been told so of each container: from then on what ran in it counts as if it had never run. What was told says all, so
that vknix may be restarted at any moment. Ephemeral containers take no part.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vknix.core import restart
from vknix.core.facts import ContainerFacts, Exit, PodFacts, State
from vknix.core.pod import Kind, Pod, members

CONDITION = "AllContainersRestarting"
STARTED = "RestartAllContainersStarted"
WHY = "container exited with restart policy rule"
REASON = "RestartingAllContainers"
MESSAGE = "The container is removed because RestartAllContainers in place"


def is_ending(pod: Pod, facts: PodFacts | None) -> bool:
    """Whether a container has ended the round, which is not over yet: all of it is to end, and nothing may start."""
    return (
        pod.together
        and facts is not None
        and any(
            member.kind is not Kind.EPHEMERAL
            and (seen := facts.containers.get(member.name)) is not None
            and seen.state is State.STOPPED
            and seen.last_exit is not None
            and restart.restarts_all(member, seen.last_exit.code)
            and not is_of_past(pod.told(member.name), seen.last_exit)
            for member in members(pod)
        )
    )


def left(pod: Pod, facts: PodFacts) -> tuple[str, ...]:
    """The containers of the round that are not through."""
    ephemeral = {member.name for member in members(pod) if member.kind is Kind.EPHEMERAL}
    return tuple(name for name, seen in facts.containers.items() if name not in ephemeral and restart.is_alive(seen))


def is_over(pod: Pod, facts: PodFacts | None) -> bool:
    """To be told of each container that ran in it."""
    return facts is not None and is_ending(pod, facts) and not left(pod, facts)


def current(pod: Pod, facts: PodFacts) -> PodFacts:
    """Without what ran in rounds that are over."""
    if not pod.together:
        return facts
    kept = {name: seen for name, seen in facts.containers.items() if not _is_past(pod.told(name), seen)}
    return replace(facts, containers=kept)


def _is_past(told: Mapping[str, Any], seen: ContainerFacts) -> bool:
    return seen.state is State.STOPPED and seen.last_exit is not None and is_of_past(told, seen.last_exit)


def is_of_past(told: Mapping[str, Any], ended: Exit) -> bool:
    """Whether this end of a container was told as that of a round."""
    end = _end(told)
    return end.get("reason") == REASON and str(end.get("containerID") or "").rpartition("/")[2] == ended.id


def waits(told: Mapping[str, Any]) -> bool:
    """Whether it has run in a round that is over, and not yet in this one."""
    return "waiting" in (told.get("state") or {}) and _end(told).get("reason") == REASON


def _end(told: Mapping[str, Any]) -> Mapping[str, Any]:
    return (told.get("lastState") or {}).get("terminated") or {}
