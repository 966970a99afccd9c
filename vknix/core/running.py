"""What the hosts have -> the PodList of /runningpods, in which a Pod has what a runtime knows of it and no more."""

from collections.abc import Iterable
from typing import Any

from vknix.core.facts import PodFacts, State

_RUNS = (State.RUNNING, State.STOPPING)


def running_pods(seen: Iterable[PodFacts]) -> dict[str, Any]:
    """A host that is away may run what it ran when it was last heard of."""
    items = [made for facts in seen if (made := _pod(facts))["spec"]["containers"]]
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}


def _pod(facts: PodFacts) -> dict[str, Any]:
    runs = [each for each in facts.containers.values() if each.state in _RUNS]
    return {
        "metadata": {"name": facts.name, "namespace": facts.namespace, "uid": facts.uid},
        "spec": {"containers": [{"name": each.name, "image": each.image, "resources": {}} for each in runs]},
        "status": {},
    }
