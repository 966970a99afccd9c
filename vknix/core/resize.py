"""In-place resize: what a Pod asks for now, beside what is in force on its host -> what changes, and what to tell of it. Pure.

Rules: KEP-1287. What is in force is the host's word (ContainerFacts.resources). A change that needs a restart comes into force with
the next attempt.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from vknix.core import pod as pods
from vknix.core import quantity, resources
from vknix.core.container import Container, Resources
from vknix.core.facts import ContainerFacts, HostFacts, PodFacts, State
from vknix.core.happenings import Happening
from vknix.core.pod import Member, Pod
from vknix.errors import Refused

PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
_NAMES = ("cpu", "memory")


@dataclass(frozen=True, slots=True)
class Resize:
    """A Pod whose resources are not in force. `refused`: its host can't have them, now (Deferred) or ever (Infeasible).

    `restart` are the containers that must end for it; `update`: others get theirs as they run. `error`: the host could not do it.
    """

    refused: Refused | None = None
    restart: tuple[str, ...] = ()
    update: bool = False
    error: str = ""


def wanted(pod: Pod, facts: PodFacts | None) -> Resize | None:
    """None: all is in force."""
    if facts is None or pod.leaving or pod.ended:
        return None
    changed = list(_changed(pod, facts))
    if not changed:
        return None
    restart = tuple(member.name for member, seen in changed if _needs_restart(member.container, seen))
    error = "; ".join(seen.resize_error for _, seen in changed if seen.resize_error)
    return Resize(restart=restart, update=len(restart) < len(changed), error=error)


def check_limits(pod: Pod, facts: PodFacts | None, host: HostFacts) -> None:
    """Refused (Infeasible) where a limit is to be set for which the host has no cgroup controller: nothing would keep it."""
    for member, seen in _changed(pod, facts) if facts is not None else ():
        limits = resources.told(member.container.resources).get("limits", {})
        moved = {name for kind, name in _differing(member.container, seen) if kind == "limits" and name in limits}
        lacking = sorted(moved - host.controllers)
        if lacking:
            why = f"host {host.name} has no cgroup controller for the {' and '.join(lacking)} limit of container {member.name}"
            raise Refused("", why, remedy="resize its requests alone", reason="Infeasible")


def in_force(pod: Pod, facts: PodFacts | None, only: tuple[str, ...] | None = None) -> Pod:
    """The Pod with the resources that its containers have (`only`: those of them), in place of those that it asks for."""
    if facts is None:
        return pod
    old = {
        member.name: msgspec.convert(seen.resources, Resources)
        for member, seen in _changed(pod, facts)
        if only is None or member.name in only
    }
    if not old:
        return pod

    def each(of: list[Container] | None) -> list[Container] | None:
        return [msgspec.structs.replace(one, resources=old.get(one.name, one.resources)) for one in of] if of is not None else None

    spec = msgspec.structs.replace(pod.spec, containers=each(pod.spec.containers), init_containers=each(pod.spec.init_containers))
    return msgspec.structs.replace(pod, spec=spec)


def granted(pod: Pod, facts: PodFacts | None, resize: Resize | None) -> Pod:
    """As its host is to make it now."""
    if resize is None:
        return pod
    return in_force(pod, facts, None if resize.refused is not None else resize.restart)


def doomed(facts: PodFacts | None, resize: Resize | None) -> PodFacts | None:
    """Containers that must end for a resize are given up, as by a probe."""
    if facts is None or resize is None or not resize.restart:
        return facts
    given_up = {
        name: replace(seen, doomed=seen.doomed or f"Container {name} resize requires restart") if name in resize.restart else seen
        for name, seen in facts.containers.items()
    }
    return replace(facts, containers=given_up)


def _changed(pod: Pod, facts: PodFacts) -> Iterator[tuple[Member, ContainerFacts]]:
    """Containers that run, or that their host starts again, with other resources than they are to have."""
    for member in pods.members(pod):
        seen = facts.containers.get(member.name)
        if seen is None or seen.resources is None or (seen.state is State.STOPPED and not seen.host_restarts):
            continue
        if _amounts(resources.told(member.container.resources)) != _amounts(seen.resources):
            yield member, seen


def _amounts(of: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Those that can be resized, as numbers."""
    return {
        (kind, name): quantity.parse(amount)
        for kind in ("limits", "requests")
        for name, amount in (of.get(kind) or {}).items()
        if name in _NAMES
    }


def _differing(container: Container, seen: ContainerFacts) -> set[tuple[str, str]]:
    before, after = _amounts(seen.resources or {}), _amounts(resources.told(container.resources))
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def _needs_restart(container: Container, seen: ContainerFacts) -> bool:
    """Whether a resource has changed whose policy says so."""
    names = {name for _, name in _differing(container, seen)}
    policies = {policy.resource_name: policy.restart_policy for policy in container.resize_policy or ()}
    return any(policies.get(name) == "RestartContainer" for name in names)


def conditions(pod: Pod, resize: Resize | None) -> Mapping[str, tuple[str, str]]:
    """Reason and message by type; those that are not named are not to be there."""
    if resize is None:
        return {}
    if resize.refused is not None:
        return {PENDING: (resize.refused.reason, resize.refused.why)}
    return {IN_PROGRESS: ("Error", resize.error) if resize.error else ("", "")}


def happenings(pod: Pod, resize: Resize | None) -> Iterator[Happening]:
    """What is new beside what the Pod's conditions tell."""
    told = {each.get("type"): each for each in pod.status.get("conditions") or ()}
    now = conditions(pod, resize)
    if IN_PROGRESS in told and resize is None and not pod.leaving and not pod.ended:
        yield Happening("ResizeCompleted", f"Pod resize completed: {_summary(pod)}")
    for kind, (reason, message) in now.items():
        before = told.get(kind)
        if before is not None and _is_same(before, reason, message, pod.metadata.generation):
            continue
        if kind == PENDING:
            yield Happening(f"Resize{reason}", f"Pod resize {reason}: {_summary(pod, message)}", warning=True)
        elif reason:
            yield Happening("ResizeError", f"Pod resize error: {_summary(pod, message)}", warning=True)
        else:
            yield Happening("ResizeStarted", f"Pod resize started: {_summary(pod)}")


def _is_same(told: Mapping[str, Any], reason: str, message: str, generation: int) -> bool:
    before = told.get("reason") or "", told.get("message") or "", told.get("observedGeneration")
    return before == (reason, message, generation)


def _summary(pod: Pod, error: str = "") -> str:
    def each(of: list[Container] | None) -> list[dict[str, Any]]:
        return [{"name": one.name, "resources": resources.told(one.resources)} for one in of or ()]

    parts = {"initContainers": each(pod.spec.init_containers), "containers": each(pod.spec.containers)}
    said = {name: part for name, part in parts.items() if part}
    text = {**said, "generation": pod.metadata.generation, **({"error": error} if error else {})}
    return msgspec.json.encode(text).decode()
