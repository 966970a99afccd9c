"""Who a container runs as: a Pod and one of its containers -> numbers. Pure. An image that says nothing runs as root."""

from dataclasses import dataclass
from typing import Any

from vknix.core.container import Container
from vknix.core.pod import Pod


@dataclass(frozen=True, slots=True)
class User:
    """`groups` are all that its processes are in, the primary one first."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def user(pod: Pod, path: str, container: Container) -> User:
    """As the Pod says, else as the image does; an image's group goes with its user only."""
    own, whole, image = container.security_context, pod.spec.security_context, pod.image(path, container)
    asked = _first(own.run_as_user if own else None, whole.run_as_user if whole else None)
    uid = _first(asked, image.user) or 0
    group = _first(own.run_as_group if own else None, whole.run_as_group if whole else None)
    gid = _first(group, image.group if asked is None else None) or 0
    more = [*((whole and whole.supplemental_groups) or ()), *([whole.fs_group] if whole and whole.fs_group is not None else [])]
    return User(uid, gid, tuple(dict.fromkeys((gid, *more))))


def status(pod: Pod, path: str, container: Container) -> dict[str, Any]:
    """As status.containerStatuses[].user has it."""
    who = user(pod, path, container)
    return {"linux": {"uid": who.uid, "gid": who.gid, "supplementalGroups": sorted(who.groups)}}


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
