"""Ephemeral containers come to a Pod that runs: one that can't be had is refused by itself, and the Pod goes on. Pure."""

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from vknix.core import fields
from vknix.core.container import Container
from vknix.core.pod import Pod
from vknix.core.spec_status import mounts
from vknix.errors import Refused


@dataclass(frozen=True, slots=True)
class Late:
    """One that is refused."""

    container: Container
    why: Refused


def admitted(pod: Pod, raw: bytes) -> Pod:
    """The Pod without those that can't be had, which are in its `late`, by name. `raw` is its JSON."""
    asked = pod.spec.ephemeral_containers
    if not asked:
        return pod
    given = json.loads(raw)["spec"]["ephemeralContainers"]
    whys = ((each, _refusal(pod, index, given[index])) for index, each in enumerate(asked))
    late = {each.name: Late(each, why) for each, why in whys if why is not None}
    kept = [each for each in asked if each.name not in late]
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, ephemeral_containers=kept), late=late)


def _refusal(pod: Pod, index: int, given: dict[str, Any]) -> Refused | None:
    assert pod.spec.ephemeral_containers is not None
    path = f"spec.ephemeralContainers[{index}]"
    for refusal in fields.judge(given, pattern="spec.ephemeralContainers[]", path=path):
        return Refused(refusal.field, refusal.why, remedy=refusal.remedy, reason="CreateContainerConfigError")
    try:
        pod.image(path, pod.spec.ephemeral_containers[index])
    except Refused as refusal:
        return refusal
    return None


def statuses(pod: Pod) -> list[dict[str, Any]]:
    """Of those that are refused."""
    return [pod.told(name) if pod.told(name).get("containerID") else _waiting(of) for name, of in pod.late.items()]


def _waiting(of: Late) -> dict[str, Any]:
    """As of any container that waits: the image is as it is asked for, and has no ID before it runs."""
    return {
        "name": of.container.name,
        "image": of.container.image,
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"waiting": {"reason": of.why.reason, "message": str(of.why)}},
        **mounts(of.container),
    }
