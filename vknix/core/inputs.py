"""What a Pod needs beyond itself, and what becomes of it: `needs` says what to fetch, `resolve` makes env, argv and files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from vknix.core import claims, dns, env, env_files, files, references, storage, subpath
from vknix.core import pod as pods
from vknix.core.container import Container
from vknix.core.facts import StorePath
from vknix.core.fetched import Fetched, ObjectKey, Surroundings, TokenKey
from vknix.core.handlers import DEFAULT, Handler
from vknix.core.pod import Pod
from vknix.errors import Refused


@dataclass(frozen=True, slots=True)
class ContainerInputs:
    """`env` has no PATH or HOSTNAME unless the Pod sets them: those are the backend's. No argv: the image's own program.

    `sub_paths`: which part of its volume each volumeMount shows, in their order; empty: all of it.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = field(repr=False)
    sub_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Note:
    """An Event that goes with a start."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a backend needs beside the Pod. `held` are containers that can't be configured, with what is wrong; one whose turn
    has not come may be in neither.

    `handler`: what kind of machine each container is.
    """

    containers: Mapping[str, ContainerInputs]
    held: Mapping[str, Refused]
    volumes: Mapping[str, tuple[files.File, ...]]
    storage: Mapping[str, storage.Storage]
    hostname: str
    hosts: bytes
    resolv_conf: bytes
    refresh_at: float | None = None
    notes: tuple[Note, ...] = ()
    handler: Handler = DEFAULT


@dataclass(frozen=True, slots=True)
class Needs:
    objects: frozenset[ObjectKey]
    tokens: frozenset[TokenKey]
    claims: tuple[str, ...]


def needs(pod: Pod) -> Needs:
    objects = frozenset(key for key, _ in references.env_objects(pod))
    return Needs(objects | frozenset(files.objects(pod)), frozenset(files.tokens(pod)), claims.names(pod))


def shown(pod: Pod) -> object:
    """What of the Pod itself can change while it runs, and is in its files and mounts."""
    return pod.metadata.labels, pod.metadata.annotations


def changes(pod: Pod) -> bool:
    """Whether what it refers to, or shows of itself, may have become another since it was made."""
    of = needs(pod)
    return bool(of.tokens or of.objects or files.shows_itself(pod))


def closures(pod: Pod) -> tuple[StorePath, ...]:
    """The roots that the Pod's images name, volumes included, each once, in the Pod's order."""
    paths = [pod.image(path, container).path for path, container in pods.containers(pod)]
    return tuple(dict.fromkeys((*paths, *(of for _, of in storage.images(pod)))))


def resolve(pod: Pod, fetched: Fetched, around: Surroundings, handler: Handler = DEFAULT) -> Inputs:
    """Refused (FailedMount, FailedCreatePodSandBox) where the Pod lacks what it must have; a container that does is only held."""
    made: dict[str, ContainerInputs] = {}
    held: dict[str, Refused] = {}
    for path, container in pods.containers(pod):
        if not env_files.at_hand(container, fetched.files):
            continue  # its turn has not come
        try:
            made[container.name] = _container(pod, path, container, fetched, around, handler)
        except Refused as refusal:
            held[container.name] = refusal
    resolv_conf, notes = dns.resolv_conf(pod, around.cluster_dns, around.cluster_domain, around.host_resolv_conf)
    return Inputs(
        containers=made,
        held=held,
        volumes=files.volumes(pod, fetched, around),
        storage=storage.storages(pod, fetched, around),
        hostname=dns.kernel_hostname(pod, around.cluster_domain, around.host_name),
        hosts=dns.hosts(pod, around.pod_ips, around.cluster_domain, around.host_hosts),
        resolv_conf=resolv_conf,
        refresh_at=files.refresh_at(pod, fetched),
        notes=tuple(Note(reason, message) for reason, message in (*notes.items(), *references.missing(pod, fetched))),
        handler=handler,
    )


INIT = "/sbin/init"  # of a whole system: a backend puts it there
# What systemd reads as if it stood on a kernel's command line: its journal is the log of the Pod.
_INIT_ARGS = ("systemd.journald.forward_to_console=1",)


def _container(
    pod: Pod, path: str, container: Container, fetched: Fetched, around: Surroundings, handler: Handler
) -> ContainerInputs:
    _check_user(pod, path, container)
    made = env.environment(pod, path, container, fetched, around)
    image = pod.image(path, container)
    if image.is_root and handler is not Handler.NSPAWN:
        raise _config_error(
            f"{path}.image", f"a root of its own is for containers, not for handler {handler.value}", "name a store path"
        )
    program, default_args = image.entrypoint, image.args
    if handler is Handler.NIXOS:
        program, default_args = program or (INIT,), default_args or _INIT_ARGS
    entrypoint = tuple(env.expand(word, made) for word in container.command or ()) or program
    args = tuple(env.expand(word, made) for word in container.args or ()) or (() if container.command else default_args)
    argv = (*entrypoint, *args)
    if not argv or not (entrypoint or image.is_root):
        raise _config_error(
            f"{path}.command",
            "a store path has no program of its own",
            "write command, or an image that goes on to a program (/nix/store/HASH-NAME/bin/PROGRAM)",
        )
    _check_text(path, container, argv, made)
    if handler is Handler.NIXOS:
        made = _of_an_init(path, made, dict(env.service_links(pod, fetched.services)))
    return ContainerInputs(argv, tuple(made.items()), subpath.sub_paths(path, container, made))


def _check_text(path: str, container: Container, argv: tuple[str, ...], made: Mapping[str, str]) -> None:
    """No process can be given a NUL."""
    if "\0" in (container.working_dir or ""):
        raise _config_error(f"{path}.workingDir", "it has a NUL character in it", "leave it out")
    if any("\0" in word for word in argv):
        raise _config_error(f"{path}.command", "a word has a NUL character in it", "leave it out")
    for name, value in made.items():
        if "\0" in name + value:
            raise _config_error(f"{path}.env", f"the value of {name} has a NUL character in it", "mount it as a file")


_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _of_an_init(path: str, made: Mapping[str, str], links: Mapping[str, str]) -> dict[str, str]:
    """systemd takes no variable of another name; a Service's, which nobody asked for, is left out."""
    odd = [name for name in made if not _PLAIN_NAME.fullmatch(name)]
    asked = next((name for name in odd if name not in links), None)
    if asked is not None:
        why = f"a system's init takes no variable named {asked!r}"
        raise _config_error(f"{path}.env", why, "use letters, digits and underscores, or a RuntimeClass with handler nspawn")
    return {name: value for name, value in made.items() if name not in odd}


def _config_error(path: str, why: str, remedy: str) -> Refused:
    return Refused(path, why, remedy=remedy, reason="CreateContainerConfigError")


def _check_user(pod: Pod, path: str, container: Container) -> None:
    own, whole = container.security_context, pod.spec.security_context
    must = own.run_as_non_root if own and own.run_as_non_root is not None else whole.run_as_non_root if whole else None
    user = own.run_as_user if own and own.run_as_user is not None else whole.run_as_user if whole else None
    if must and not (pod.image(path, container).user if user is None else user):
        raise _config_error(
            f"{path}.securityContext.runAsNonRoot",
            "container has runAsNonRoot and its image runs as root unless told otherwise",
            "set runAsUser",
        )
