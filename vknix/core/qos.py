"""How soon the kernel kills a container's processes when the host runs out of memory. Rule: the kubelet's qos/policy.go."""

from vknix.core import resources
from vknix.core.container import Container
from vknix.core.pod import Kind, Pod, members

GUARANTEED, BEST_EFFORT = -997, 1000
_CRITICAL = 2_000_001_000  # system-node-critical


def qos_class(pod: Pod) -> str:
    """As the API server says it; computed only where it has said nothing."""
    told = pod.status.get("qosClass")
    if told:
        return str(told)
    whole = resources.of_pod(pod), resources.of_pod_requests(pod)
    each = (
        [whole]
        if any(_says(of) for of in whole)
        else [(resources.limits(member.container), resources.requests(member.container)) for member in members(pod)]
    )
    if not any(_says(of) for pair in each for of in pair):
        return "BestEffort"
    pairs = [((of.cpu_milli, of.memory_bytes), (asked.cpu_milli, asked.memory_bytes)) for of, asked in each]
    same = all(all(of) and of == asked for of, asked in pairs)
    return "Guaranteed" if same else "Burstable"


def _says(of: resources.Amounts) -> bool:
    return bool(of.cpu_milli or of.memory_bytes)


def oom_score_adj(pod: Pod, container: Container, capacity_bytes: int) -> int:
    """`capacity_bytes`: the host's memory."""
    match qos_class(pod):
        case _ if (pod.spec.priority or 0) >= _CRITICAL:
            return GUARANTEED
        case "Guaranteed":
            return GUARANTEED
        case "BestEffort":
            return BEST_EFFORT
    share = _unclaimed(pod)
    asked = (resources.requests(container).memory_bytes or 0) + share
    if any(member.kind is Kind.SIDECAR and member.container is container for member in members(pod)):
        regular = [resources.requests(of).memory_bytes or 0 for of in pod.spec.containers]
        asked = max(asked, min(regular) + share)
    return min(BEST_EFFORT - 1, max(BEST_EFFORT + GUARANTEED, 1000 - 1000 * asked // max(capacity_bytes, 1)))


def _unclaimed(pod: Pod) -> int:
    """What the Pod as a whole requests beyond its containers, an equal share for each."""
    whole = resources.of_pod_requests(pod).memory_bytes
    if whole is None:
        return 0
    each = list(members(pod))
    return max(0, whole - (resources.summed(pod).memory_bytes or 0)) // len(each)
