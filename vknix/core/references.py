"""The ConfigMaps and Secrets that the environment of a Pod's containers refers to, and what is told of those that are not there."""

from collections.abc import Iterator

from vknix.core import pod as pods
from vknix.core.fetched import Fetched, ObjectKey
from vknix.core.pod import Pod


def env_objects(pod: Pod) -> Iterator[tuple[ObjectKey, bool]]:
    """Each reference, with whether it is optional."""
    for _, container in pods.containers(pod):
        for source in container.env_from or ():
            if source.config_map_ref:
                yield ObjectKey("ConfigMap", source.config_map_ref.name), bool(source.config_map_ref.optional)
            if source.secret_ref:
                yield ObjectKey("Secret", source.secret_ref.name), bool(source.secret_ref.optional)
        for var in container.env or ():
            if var.value_from and (config_map := var.value_from.config_map_key_ref):
                yield ObjectKey("ConfigMap", config_map.name), bool(config_map.optional)
            if var.value_from and (secret := var.value_from.secret_key_ref):
                yield ObjectKey("Secret", secret.name), bool(secret.optional)


def missing(pod: Pod, fetched: Fetched) -> Iterator[tuple[str, str]]:
    """Reason and message of an Event for each object that is not there; the reasons are virtual-kubelet's."""
    absent = {(key, optional) for key, optional in env_objects(pod) if fetched.objects.get(key) is None}
    for key, optional in sorted(absent, key=lambda each: (each[0].kind, each[0].name, each[1])):
        what = f'{key.kind.lower()} "{key.name}" not found in namespace {pod.namespace}'
        if optional:
            yield f"Optional{key.kind}NotFound", f"{what}: its containers go without"
        else:
            yield f"Mandatory{key.kind}NotFound", f"{what}: create it, or make the reference optional"
