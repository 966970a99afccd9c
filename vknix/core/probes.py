"""Thresholds of probes: results so far -> started, ready, doomed. Pure. Rules: pkg/kubelet/prober/worker.go."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from vknix.core.container import Container, Probe
from vknix.core.facts import PodFacts, State
from vknix.core.pod import Member, Pod, members


class ProbeKind(Enum):
    STARTUP = "startup"
    LIVENESS = "liveness"
    READINESS = "readiness"


@dataclass(frozen=True, slots=True)
class Run:
    """Results of one kind in a row. `passing` is the result that holds; None: none yet."""

    passing: bool | None = None
    last: bool | None = None
    count: int = 0


def step(run: Run, probe: Probe, *, success: bool) -> Run:
    """A result holds once it came as often in a row as its threshold says."""
    count = run.count + 1 if run.last is success else 1
    threshold = probe.success_threshold if success else probe.failure_threshold
    return Run(success if count >= threshold else run.passing, success, count)


@dataclass(frozen=True, slots=True)
class Probed:
    """One attempt of a container. `doomed`: it is to be killed, with the kubelet's words; `grace_s`: with this grace then."""

    attempt: int
    started: bool
    ready: bool
    doomed: str = ""
    grace_s: int | None = None


def before(container: Container, attempt: int) -> Probed:
    """Before the first result: not started with a startup probe, not ready with a readiness probe."""
    started = container.startup_probe is None
    return Probed(attempt, started, started and container.readiness_probe is None)


def after(probed: Probed, member: Member, kind: ProbeKind, run: Run) -> Probed:
    """What the results of one kind make of it."""
    container = member.container
    if run.passing is None:
        return probed
    match kind:
        case ProbeKind.STARTUP if run.passing:
            return replace(probed, started=True, ready=container.readiness_probe is None)
        case ProbeKind.READINESS:
            return replace(probed, ready=run.passing and probed.started)
        case ProbeKind.STARTUP | ProbeKind.LIVENESS if not run.passing:
            probe = container.startup_probe if kind is ProbeKind.STARTUP else container.liveness_probe
            again = "" if member.policy == "Never" else ", will be restarted"
            message = f"Container {container.name} failed {kind.value} probe{again}"
            return replace(probed, doomed=message, grace_s=probe.termination_grace_period_seconds if probe else None)
        case _:
            return probed


def applied(facts: PodFacts, probed: Mapping[str, Probed]) -> PodFacts:
    """The facts, with what probes say of the attempts that run, or are about to end."""
    containers = dict(facts.containers)
    for name, of in probed.items():
        seen = containers.get(name)
        if seen is not None and seen.state in (State.RUNNING, State.STOPPING) and seen.attempt == of.attempt:
            containers[name] = replace(seen, up=of.started, ready=of.ready, doomed=of.doomed, grace_s=of.grace_s)
    return replace(facts, containers=containers)


def unprobed(pod: Pod, facts: PodFacts) -> PodFacts:
    """The facts before the first result of any probe."""
    of = {member.name: member.container for member in members(pod)}
    first = {name: before(of[name], seen.attempt) for name, seen in facts.containers.items() if name in of}
    return applied(facts, first)


def of_kind(container: Container, kind: ProbeKind) -> Probe | None:
    return {
        ProbeKind.STARTUP: container.startup_probe,
        ProbeKind.LIVENESS: container.liveness_probe,
        ProbeKind.READINESS: container.readiness_probe,
    }[kind]


def port(container: Container, asked: int | str) -> int | None:
    """A port by number or by the name that the container gives it; None where it has no such name."""
    if isinstance(asked, int):
        return asked
    if asked.isdigit():
        return int(asked)
    return next((each.container_port for each in container.ports or () if each.name == asked), None)
