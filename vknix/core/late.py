"""Ephemeral containers come to a Pod that runs: one that can't be had is refused by itself, and the Pod goes on. Pure."""

import json
from typing import Any

import msgspec

from vknix.core import fields
from vknix.core.pod import Pod
from vknix.errors import Refused


def admitted(pod: Pod, raw: bytes) -> Pod:
    """The Pod without those that can't be had: why is in its `late`, by name. `raw` is its JSON."""
    asked = pod.spec.ephemeral_containers
    if not asked:
        return pod
    given = json.loads(raw)["spec"]["ephemeralContainers"]
    late = {each.name: why for index, each in enumerate(asked) if (why := _refusal(pod, index, given[index])) is not None}
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
    return [pod.told(name) if pod.told(name).get("containerID") else _waiting(name, why) for name, why in pod.late.items()]


def _waiting(name: str, why: Refused) -> dict[str, Any]:
    waiting = {"waiting": {"reason": why.reason, "message": str(why)}}
    return {"name": name, "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": waiting}
