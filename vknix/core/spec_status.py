"""What the status of a container repeats of its spec, whether it runs or not."""

from typing import Any

from vknix.core.container import Container, VolumeMount


def stop_signal(container: Container) -> dict[str, Any]:
    signal = container.lifecycle.stop_signal if container.lifecycle is not None else None
    return {"stopSignal": signal} if signal else {}


def resources(container: Container) -> dict[str, Any]:
    asked = container.resources
    if asked is None or not (asked.limits or asked.requests):
        return {}
    said = {kind: amounts for kind, amounts in (("limits", asked.limits), ("requests", asked.requests)) if amounts}
    return {"resources": said, **({"allocatedResources": asked.requests} if asked.requests else {})}


def mounts(container: Container) -> dict[str, Any]:
    mounts = [
        {
            "name": mount.name,
            "mountPath": mount.mount_path,
            **({"readOnly": True, "recursiveReadOnly": _recursive(mount)} if mount.read_only else {}),
        }
        for mount in container.volume_mounts or ()
    ]
    return {"volumeMounts": mounts} if mounts else {}


def _recursive(mount: VolumeMount) -> str:
    """Each host can: what is asked for if possible is possible."""
    return "Enabled" if mount.recursive_read_only in ("Enabled", "IfPossible") else "Disabled"
