"""A unit of a container as systemd tells of it: the inverse of what unit.py asks for. Pure; knows no D-Bus."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of a container as systemd tells it. `since`: when it became active. `image`: what it runs, as its Pod named it.

    `attempt`: how many had ended before, of one that vknix has just started and systemd has not told of.
    """

    active: str
    sub: str
    id: str = ""
    since: float | None = None
    image: str = ""
    attempt: int | None = None


def merge(before: Unit | None, changed: dict[str, Any]) -> Unit:
    """A unit after a change of some of its properties."""
    before = before or Unit("inactive", "dead")
    since = changed.get("ActiveEnterTimestamp")
    invocation = changed.get("InvocationID")
    return Unit(
        active=changed.get("ActiveState", before.active),
        sub=changed.get("SubState", before.sub),
        id=bytes(invocation).hex() if invocation is not None else before.id,
        since=(since / 1e6 if since else None) if since is not None else before.since,
        image=_image(changed["Description"]) if "Description" in changed else before.image,
        attempt=before.attempt,
    )


def ended(unit: Unit) -> bool:
    """Its attempt is over, and its fact written. One without an ID has been made and is about to begin."""
    return unit.active == "failed" or (unit.active == "inactive" and unit.id != "") or waits(unit)


def waits(unit: Unit) -> bool:
    """systemd will start it again by itself: auto-restart, auto-restart-queued, failed-before-auto-restart, ..."""
    return "auto-restart" in unit.sub


def _image(description: str) -> str:
    """The end of what unit.description says."""
    return description.partition(", image ")[2]
