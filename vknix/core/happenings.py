"""What an operator sees of a Pod as Events, in the kubelet's reasons: (Pod, facts before, facts now) -> what has happened. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from vknix.core import pod as pods
from vknix.core import resources, restart, rounds, storage
from vknix.core.facts import ContainerFacts, HostFacts, ImageFacts, ImageState, PodFacts, Reason, State
from vknix.core.pod import Member, Pod


@dataclass(frozen=True, slots=True)
class Happening:
    """`container` is a name, or empty for the whole Pod."""

    reason: str
    message: str
    container: str = ""
    warning: bool = False


def happenings(pod: Pod, before: PodFacts | None, after: PodFacts) -> Iterator[Happening]:
    for member in pods.members(pod):
        name = member.name
        for image, root in storage.readable(pod, member.path, member.container).items():
            yield from _image(image, name, before.images.get(root) if before else None, after.images.get(root))
        yield from _container(pod, member, before.containers.get(name) if before else None, after.containers.get(name), after)


def _image(name: str, container: str, before: ImageFacts | None, after: ImageFacts | None) -> Iterator[Happening]:
    if after is None or (before is not None and before.state is after.state):
        return
    match after.state:
        case ImageState.PULLING:
            yield Happening("Pulling", f'Pulling image "{name}"', container)
        case ImageState.PRESENT if after.took_s is None:
            yield Happening("Pulled", f'Container image "{name}" already present on machine', container)
        case ImageState.PRESENT:
            yield Happening("Pulled", f'Successfully pulled image "{name}" in {after.took_s:.3g}s', container)
        case ImageState.FAILED:
            yield Happening("Failed", f'Failed to pull image "{name}": {after.message}', container, warning=True)
            yield Happening("Failed", "Error: ErrImagePull", container, warning=True)


def _container(
    pod: Pod, member: Member, before: ContainerFacts | None, after: ContainerFacts | None, whole: PodFacts
) -> Iterator[Happening]:
    if after is None:
        return
    same = before if before is not None and before.attempt == after.attempt else None
    if same is None:
        yield Happening("Created", f"Created container: {member.name}", member.name)
    if _has_run(after) and not (same is not None and _has_run(same)):
        yield Happening("Started", f"Started container {member.name}", member.name)
    ended = after.last_exit
    if _could_not_start(after) and not (same is not None and _could_not_start(same)):
        assert ended is not None
        yield Happening("Failed", f"Error: {ended.message.strip()}", member.name, warning=True)
    if rounds.is_ending(pod, whole):
        return
    waits = after.state is State.STOPPED and ended is not None and restart.again(member, after, ended)
    if waits and not pod.leaving and restart.delay_s(after.streak) > 0 and (before is None or before.state is not State.STOPPED):
        what = f"{member.name} in pod {pod.name}_{pod.namespace}({pod.uid})"
        yield Happening("BackOff", f"Back-off restarting failed container {what}", member.name, warning=True)


def _has_run(of: ContainerFacts) -> bool:
    """Whether this attempt did: a short one has ended before anybody saw it run."""
    return of.state is not State.PREPARING and not _could_not_start(of)


def _could_not_start(of: ContainerFacts) -> bool:
    ended = of.last_exit
    return of.state is State.STOPPED and ended is not None and ended.reason is Reason.START_ERROR


def unenforced(pod: Pod, host: HostFacts) -> tuple[str, ...]:
    """The limits of a Pod, by field, that its host has no cgroup controller for."""
    lacking = []
    for path, container in pods.containers(pod):
        limits = resources.limits(container)
        if limits.cpu_milli is not None and "cpu" not in host.controllers:
            lacking.append(f"{path}.resources.limits.cpu")
        if limits.memory_bytes is not None and "memory" not in host.controllers:
            lacking.append(f"{path}.resources.limits.memory")
    return tuple(lacking)
