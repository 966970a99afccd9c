"""Requests and limits: of a container, of a Pod, and as the downward API's resourceFieldRef shows them."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from vknix.core import pod as pods
from vknix.core import quantity
from vknix.core.container import Container, ResourceSelector
from vknix.core.fetched import Surroundings
from vknix.core.pod import Kind, Pod
from vknix.errors import Refused


@dataclass(frozen=True, slots=True)
class Amounts:
    """None: nothing is said."""

    cpu_milli: int | None = None
    memory_bytes: int | None = None
    storage_bytes: int | None = None


def limits(container: Container) -> Amounts:
    return _amounts((container.resources and container.resources.limits) or {})


def requests(container: Container) -> Amounts:
    """What is not requested is requested as it is limited (the API server's default as well)."""
    resources = container.resources
    return _amounts({**((resources and resources.limits) or {}), **((resources and resources.requests) or {})})


def _amounts(of: dict[str, str | int | float]) -> Amounts:
    return Amounts(
        cpu_milli=quantity.milli(of["cpu"]) if "cpu" in of else None,
        memory_bytes=quantity.whole(of["memory"]) if "memory" in of else None,
        storage_bytes=quantity.whole(of["ephemeral-storage"]) if "ephemeral-storage" in of else None,
    )


def requested(pod: Pod) -> Amounts:
    """Of the whole Pod, as the scheduler adds it up (component-helpers/resource): what runs at once, at its most, and overhead."""
    return _with_overhead(pod, _whole(pod, requests, none_is_none=False))


def limited(pod: Pod) -> Amounts:
    """Of the whole Pod in the same way; None where a container has no limit."""
    return _with_overhead(pod, _whole(pod, limits, none_is_none=True))


def _with_overhead(pod: Pod, of: Amounts) -> Amounts:
    """What the Pod's RuntimeClass says that its machines need beside their programs. No limit stays none."""
    more = _amounts(pod.spec.overhead or {})
    return Amounts(
        cpu_milli=None if of.cpu_milli is None else of.cpu_milli + (more.cpu_milli or 0),
        memory_bytes=None if of.memory_bytes is None else of.memory_bytes + (more.memory_bytes or 0),
        storage_bytes=None if of.storage_bytes is None else of.storage_bytes + (more.storage_bytes or 0),
    )


def _whole(pod: Pod, of: Callable[[Container], Amounts], *, none_is_none: bool) -> Amounts:
    each = [(member.kind, of(member.container)) for member in pods.members(pod)]

    def most(amount: Callable[[Amounts], int | None]) -> int | None:
        amounts = [(kind, amount(every)) for kind, every in each]
        if none_is_none and any(value is None for _, value in amounts):
            return None
        return _most([(kind, value or 0) for kind, value in amounts])

    return Amounts(
        most(lambda every: every.cpu_milli), most(lambda every: every.memory_bytes), most(lambda every: every.storage_bytes)
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
