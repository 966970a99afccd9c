"""The Pod and container that a request names, who serves them, and what a request is refused with."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from vknix.core.facts import ContainerFacts, HostName, PodFacts, State, Uid
from vknix.errors import VknixError
from vknix.provider import AttachRequest, ExecRequest, JournalQuery, Localhost, LogOptions, Streams


class Rejection(VknixError):
    """An answer other than 200 or 101: the kubelet's status and its text, which API server and kubectl show."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class Backend(Protocol):
    """The part of provider.Provider that is called here; its contract is there."""

    async def exec(self, request: ExecRequest, host: HostName, streams: Streams) -> int: ...

    async def attach(self, request: AttachRequest, host: HostName, streams: Streams) -> None: ...

    def localhost(self, uid: Uid, host: HostName) -> AbstractAsyncContextManager[Localhost]: ...

    def logs(self, uid: Uid, host: HostName, container: str, options: LogOptions) -> AsyncIterator[bytes]: ...

    def host_logs(self, host: HostName, query: JournalQuery) -> AsyncGenerator[bytes, None]: ...


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Spec(Protocol):
    """The part of a Pod's spec that is read here."""

    @property
    def containers(self) -> Iterable[Named]: ...
    @property
    def init_containers(self) -> Iterable[Named] | None: ...
    @property
    def ephemeral_containers(self) -> Iterable[Named] | None: ...


class AnyPod(Protocol):
    """core.pod.Pod, or as much of it as is read here."""

    @property
    def uid(self) -> Uid: ...
    @property
    def name(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def spec(self) -> Spec: ...


@dataclass(frozen=True, slots=True)
class Target:
    """A wanted Pod, and what its host has of it: None where no host has told of it."""

    pod: AnyPod
    facts: PodFacts | None

    def has(self, container: str) -> bool:
        return any(container == each.name for each in _containers(self.pod.spec))

    def container(self, name: str) -> ContainerFacts | None:
        return self.facts.containers.get(name) if self.facts is not None else None

    def network_on(self) -> HostName:
        """The host of a Pod whose network is there, which is so while any of its containers runs; Rejection where it is not."""
        containers = self.facts.containers.values() if self.facts is not None else ()
        if self.facts is None or not any(each.state in (State.RUNNING, State.STOPPING) for each in containers):
            raise Rejection(500, f'Pod "{self.pod.name}" is not running')
        return self.facts.host

    def running_on(self, container: str) -> HostName:
        """The host of a container that a command or a client can be joined to; Rejection as the kubelet's where it does not run."""
        found = self.container(container)
        if self.facts is None or found is None or found.state not in (State.RUNNING, State.STOPPING):
            raise Rejection(500, f'container not found ("{container}")')
        return self.facts.host


def words(of: Iterable[str]) -> tuple[str, ...]:
    """A command's; Rejection for what no process can be given."""
    argv = tuple(of)
    if any("\0" in word for word in argv):
        raise Rejection(400, "a command can't have a NUL character in it")
    return argv


Lookup = Callable[[str, str], Target | None]  # namespace, name


def _containers(spec: Spec) -> Iterable[Named]:
    yield from spec.containers
    yield from spec.init_containers or ()
    yield from spec.ephemeral_containers or ()
