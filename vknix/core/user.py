"""Who a container runs as: a Pod, one of its containers and its image's accounts -> numbers. Pure.

An image that says nothing runs as root. On the handlers unit and nixos users are numbers alone: a Pod must not be given what the
host's own /etc/group has for such a number.
"""

from dataclasses import dataclass
from typing import Any

from vknix.core import accounts
from vknix.core.accounts import Accounts
from vknix.core.container import Container
from vknix.core.handlers import Handler
from vknix.core.image import Image
from vknix.core.pod import Pod


@dataclass(frozen=True, slots=True)
class User:
    """`groups` are all that its processes are in, the primary one first."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def known(image: Image, handler: Handler, own: Accounts | None) -> Accounts | None:
    """The accounts that count, where `own` are those of the image's closure; None where they are to count and are not known."""
    if handler is not Handler.NSPAWN:
        return accounts.NONE
    return own if image.is_root else accounts.DEFAULT


def user(pod: Pod, path: str, container: Container, of: Accounts) -> User:
    """As the Pod says, else as the image does; an image's group goes with its user only, its accounts with any.

    With the policy Strict a user is in no group that the Pod does not name, but for its own.
    """
    own, whole, image = container.security_context, pod.spec.security_context, pod.image(path, container)
    asked = _first(own.run_as_user if own else None, whole.run_as_user if whole else None)
    uid = _first(asked, image.user) or 0
    group = _first(own.run_as_group if own else None, whole.run_as_group if whole else None)
    gid = _first(group, image.group if asked is None else None, of.group(uid)) or 0
    more = [*((whole and whole.supplemental_groups) or ()), *([whole.fs_group] if whole and whole.fs_group is not None else [])]
    merged = () if whole and whole.supplemental_groups_policy == "Strict" else of.others(uid)
    return User(uid, gid, tuple(dict.fromkeys((gid, *merged, *more))))


def status(pod: Pod, path: str, container: Container, of: Accounts) -> dict[str, Any]:
    """As status.containerStatuses[].user has it."""
    who = user(pod, path, container, of)
    return {"linux": {"uid": who.uid, "gid": who.gid, "supplementalGroups": sorted(who.groups)}}


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
