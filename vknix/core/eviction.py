"""(Pod, what it has on disk) -> why it is to be evicted, in the kubelet's words. Rules: eviction_manager.go (localStorageEviction).

Only what runs counts: a kubelet measures no container that has ended.
"""

from vknix.core import quantity, resources
from vknix.core.pod import Pod
from vknix.core.usage import PodDisk

_CRITICAL = 2_000_000_000  # the priority from which on a Pod is never evicted


def is_limited(pod: Pod) -> bool:
    """Whether it can be evicted for what it has on disk."""
    if pod.leaving or pod.ended or pod.evicted or (pod.spec.priority or 0) >= _CRITICAL:
        return False
    return bool(_sizes(pod)) or resources.storage_limit(pod) is not None


def may_be_limited(raw: bytes) -> bool:
    """Of a Pod's JSON: false only where it is not, which most are."""
    return b'"sizeLimit"' in raw or b'"ephemeral-storage"' in raw


def excess(pod: Pod, disk: PodDisk) -> str | None:
    for name, size in _sizes(pod).items():
        if disk.empty.get(name, 0) > quantity.parse(size):
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{size}". '
    whole = resources.storage_limit(pod)
    if whole is not None and disk.total > quantity.parse(whole):
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {whole}. "
    for container in pod.spec.containers:
        limit = ((container.resources and container.resources.limits) or {}).get("ephemeral-storage")
        if limit is not None and quantity.parse(limit) and disk.written(container.name) > quantity.parse(limit):
            return f'Container {container.name} exceeded its local ephemeral storage limit "{limit}". '
    return None


def _sizes(pod: Pod) -> dict[str, str]:
    """The emptyDirs that are on disk and have a limit."""
    return {
        volume.name: str(of.size_limit)
        for volume in pod.spec.volumes or ()
        if (of := volume.empty_dir) is not None
        and of.medium == ""
        and of.size_limit is not None
        and quantity.parse(of.size_limit) > 0
    }
