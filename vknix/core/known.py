"""What its host says of a Pod, and what vknix knows beside: probes, hooks, another image, who was killed to start again."""

from collections.abc import Mapping
from dataclasses import replace

from vknix.core import hooks, probes, rounds
from vknix.core.ending import Key
from vknix.core.facts import ContainerFacts, PodFacts, State
from vknix.core.hooks import Hooked
from vknix.core.pod import Pod, members
from vknix.core.probes import Probed

Doomed = dict[Key, ContainerFacts]  # attempts that were to be killed and started again


def facts(pod: Pod, seen: PodFacts, probed: Mapping[str, Probed], hooked: Mapping[str, Hooked], doomed: Doomed) -> PodFacts:
    """`doomed` is what was known of attempts before; those that are doomed now are added to it."""
    of = probes.applied(probes.unprobed(pod, seen), probed)
    of = _redefined(pod, hooks.applied(pod, of, hooked))
    for each in of.containers.values():
        if each.doomed:
            doomed[each.name, each.attempt] = each
    return rounds.current(pod, _recalled(of, doomed))


def _redefined(pod: Pod, of: PodFacts) -> PodFacts:
    """Marks each attempt that runs, or that its host would run again, on another image than its Pod names by now."""
    containers = dict(of.containers)
    for member in members(pod):
        seen = containers.get(member.name)
        if seen is not None and seen.image and seen.image != member.container.image:
            message = f"Container {member.name} definition changed, will be restarted"
            containers[member.name] = replace(seen, doomed=message, redefined=True)
    return replace(of, containers=containers)


def _recalled(of: PodFacts, doomed: Doomed) -> PodFacts:
    containers = dict(of.containers)
    for name, seen in of.containers.items():
        known = doomed.get((name, seen.attempt))
        if known is not None and seen.state is State.STOPPED:
            containers[name] = replace(seen, doomed=known.doomed, redefined=known.redefined)
    return replace(of, containers=containers)
