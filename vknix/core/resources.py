"""Requests and limits: of a container, of a Pod, and as the downward API's resourceFieldRef shows them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from vknix.core import pod as pods
from vknix.core import quantity
from vknix.core.container import Amount, Container, Resources, ResourceSelector
from vknix.core.fetched import Surroundings
from vknix.core.pod import Kind, Member, Pod
from vknix.errors import Refused


@dataclass(frozen=True, slots=True)
class Amounts:
    """None: nothing is said."""

    cpu_milli: int | None = None
    memory_bytes: int | None = None
    storage_bytes: int | None = None
    huge: tuple[tuple[str, int], ...] = ()  # bytes by page size (2Mi), in order


HUGE = "hugepages-"


def limits(container: Container) -> Amounts:
    return _amounts((container.resources and container.resources.limits) or {})


def requests(container: Container) -> Amounts:
    """What is not requested is requested as it is limited (the API server's default as well)."""
    return _requests(container.resources)


def told(asked: Resources | None) -> dict[str, Mapping[str, Amount]]:
    """Limits and requests in the author's words, where there are any."""
    said = {"limits": asked.limits, "requests": asked.requests} if asked is not None else {}
    return {kind: amounts for kind, amounts in said.items() if amounts}


def of_pod(pod: Pod) -> Amounts:
    """The limits of the Pod as a whole, as its author set them."""
    return _amounts((pod.spec.resources and pod.spec.resources.limits) or {})


def of_pod_requests(pod: Pod) -> Amounts:
    return _requests(pod.spec.resources)


def effective(pod: Pod, container: Container) -> Amounts:
    """The limits that hold for a container: where it has none of its own, those of the Pod as a whole."""
    own, whole = limits(container), of_pod(pod)
    return replace(
        own,
        cpu_milli=own.cpu_milli or whole.cpu_milli,
        memory_bytes=own.memory_bytes or whole.memory_bytes,
        huge=tuple(sorted({**dict(whole.huge), **dict(own.huge)}.items())),
    )


def _requests(of: Resources | None) -> Amounts:
    return _amounts({**((of and of.limits) or {}), **((of and of.requests) or {})})


def _amounts(of: Mapping[str, Amount]) -> Amounts:
    return Amounts(
        cpu_milli=quantity.milli(of["cpu"]) if "cpu" in of else None,
        memory_bytes=quantity.whole(of["memory"]) if "memory" in of else None,
        storage_bytes=quantity.whole(of["ephemeral-storage"]) if "ephemeral-storage" in of else None,
        huge=tuple(
            (name.removeprefix(HUGE), quantity.whole(amount)) for name, amount in sorted(of.items()) if name.startswith(HUGE)
        ),
    )


def requested(pod: Pod) -> Amounts:
    """Of the whole Pod, as the scheduler adds it up (component-helpers/resource): what it says as a whole, else what runs at once
    at its most; and its overhead."""
    return _plus(_over(summed(pod), of_pod_requests(pod)), _amounts(pod.spec.overhead or {}))


def summed(pod: Pod) -> Amounts:
    """What its containers request."""
    return _whole(pod, requests, none_is_none=False)


def limited(pod: Pod) -> Amounts:
    """Of the whole Pod in the same way; None where a container has no limit."""
    return _plus(_over(_whole(pod, limits, none_is_none=True), of_pod(pod)), _amounts(pod.spec.overhead or {}))


def storage_limit(pod: Pod) -> str | None:
    """Of ephemeral-storage for the whole Pod, as its status would say it: the sum of what is limited, and its overhead.

    None where no container has a limit.
    """
    said = [str(of["ephemeral-storage"]) for of in map(_limits, pods.members(pod)) if "ephemeral-storage" in of]
    if not said:
        return None
    whole = _whole(pod, limits, none_is_none=False).storage_bytes or 0
    whole += (_amounts(pod.spec.overhead or {}).storage_bytes or 0) if whole else 0
    return quantity.text(whole, binary=said[0].endswith("i"))


def _limits(member: Member) -> Mapping[str, Amount]:
    return (member.container.resources and member.container.resources.limits) or {}


def _over(sums: Amounts, whole: Amounts) -> Amounts:
    """What is said of the whole Pod holds in place of the sum."""
    return replace(
        sums,
        cpu_milli=sums.cpu_milli if whole.cpu_milli is None else whole.cpu_milli,
        memory_bytes=sums.memory_bytes if whole.memory_bytes is None else whole.memory_bytes,
        huge=tuple(sorted({**dict(sums.huge), **dict(whole.huge)}.items())),
    )


def _plus(of: Amounts, overhead: Amounts) -> Amounts:
    """What is not limited stays so."""
    return replace(
        of,
        cpu_milli=None if of.cpu_milli is None else of.cpu_milli + (overhead.cpu_milli or 0),
        memory_bytes=None if of.memory_bytes is None else of.memory_bytes + (overhead.memory_bytes or 0),
        storage_bytes=None if of.storage_bytes is None else of.storage_bytes + (overhead.storage_bytes or 0),
    )


def _whole(pod: Pod, of: Callable[[Container], Amounts], *, none_is_none: bool) -> Amounts:
    each = [(member.kind, of(member.container)) for member in pods.members(pod)]

    def most(amount: Callable[[Amounts], int | None]) -> int | None:
        amounts = [(kind, amount(every)) for kind, every in each]
        if none_is_none and any(value is None for _, value in amounts):
            return None
        return _most([(kind, value or 0) for kind, value in amounts])

    sizes = sorted({size for _, every in each for size, _ in every.huge})
    return Amounts(
        most(lambda every: every.cpu_milli),
        most(lambda every: every.memory_bytes),
        most(lambda every: every.storage_bytes),
        tuple((size, _most([(kind, dict(every.huge).get(size, 0)) for kind, every in each])) for size in sizes),
    )


def _most(amounts: list[tuple[Kind, int]]) -> int:
    """An init container runs beside the sidecars before it, the regular ones run beside all sidecars."""
    sidecars = peak = 0
    for kind, amount in amounts:
        if kind is Kind.SIDECAR:
            sidecars += amount
            peak = max(peak, sidecars)
        elif kind is Kind.INIT:
            peak = max(peak, sidecars + amount)
    return max(peak, sidecars + sum(amount for kind, amount in amounts if kind is Kind.REGULAR))


def value(pod: Pod, container: Container, selector: ResourceSelector, around: Surroundings, path: str) -> str:
    """What resourceFieldRef shows: a limit that is not set is the node's allocatable; divided, rounded up."""
    named = selector.container_name or container.name
    of = next((each for _, each in pods.containers(pod) if each.name == named), None)
    if of is None:
        raise Refused(path, f"there is no container {named!r}", remedy="name one", reason="CreateContainerConfigError")
    kind, _, resource = selector.resource.partition(".")
    amounts = limits(of) if kind == "limits" else requests(of)
    exact = {
        "cpu": (amounts.cpu_milli, around.cpu_milli, Decimal(1000)),
        "memory": (amounts.memory_bytes, around.memory_bytes, Decimal(1)),
        "ephemeral-storage": (amounts.storage_bytes, around.storage_bytes, Decimal(1)),
    }
    if resource not in exact:
        raise Refused(path, f"unknown resource {selector.resource!r}", remedy="use cpu, memory or ephemeral-storage")
    said, allocatable, scale = exact[resource]
    amount = said if said is not None else allocatable if kind == "limits" else 0
    divisor = quantity.parse(selector.divisor or 1) or Decimal(1)
    return str(quantity.ceil(Decimal(amount) / scale / divisor))
