"""What the ledger holds -> the gauges of /metrics: the names that dashboards of kubelets know, and vknix's own by host."""

from collections import Counter
from collections.abc import Iterable, Iterator

from vknix.core.facts import HostFacts, HostState, PodFacts, State
from vknix.exposition import Family, Sample

_STATES = {
    State.PREPARING: "created",
    State.RUNNING: "running",
    State.STOPPING: "running",
    State.STOPPED: "exited",
}


def gauges(node: str, hosts: Iterable[HostFacts], seen: Iterable[PodFacts], wanted: int) -> Iterator[Family]:
    """Of a host that does not answer it is told that it does not, and how many Pods it had."""
    known, pods = list(hosts), list(seen)
    states = Counter(_STATES[each.state] for facts in pods for each in facts.containers.values())
    running = [facts for facts in pods if any(_STATES[each.state] == "running" for each in facts.containers.values())]
    on_host = Counter(str(facts.host) for facts in pods)
    yield _family("kubelet_node_name", "The node's name. The count is always 1.", Sample((("node", node),), 1))
    yield _family("kubelet_running_pods", "Number of pods that have a running pod sandbox.", Sample((), len(running)))
    yield _family("kubelet_desired_pods", "The number of pods the API server wants here.", Sample((), wanted))
    counts = (Sample((("container_state", state),), count) for state, count in sorted(states.items()))
    yield _family("kubelet_running_containers", "Number of containers by their state.", *counts)
    up = (Sample((("host", facts.name),), int(facts.state is HostState.LISTED)) for facts in known)
    yield _family("vknix_host_up", "Whether a host answers and has been listed.", *up)
    has = (Sample((("host", facts.name),), on_host[facts.name]) for facts in known)
    yield _family("vknix_host_pods", "Pods of which a host has something, as far as is known.", *has)


def _family(name: str, told: str, *samples: Sample) -> Family:
    return Family(name, "gauge", told, samples)
