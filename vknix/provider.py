"""THE SEAM. A backend keeps Pods on hosts; it is told what is wanted and reports what is. It never builds Kubernetes JSON.

The contract, which `testing.check_provider` tries on any backend:

- Level-triggered. `sync`, `stop` and `clean` may be called again at any time with what is wanted now; all are idempotent,
  return soon, and show their progress in `watch`. Absent is success for `stop` and `clean`.
- `watch` yields, for each host, everything in full, then `Listed`, then `HostSeen` with state LISTED; then changes. After a lost
  link it yields `HostSeen` with state LOST, and everything in full again when the link is back. A Pod that a host had and a full
  listing lacks is gone.
- Attempts are keyed (UID, container, attempt): asking twice for one that exists is success; a running one is never disturbed.
- Cancelling any call leaves something that `watch` can describe.
- `Unreachable` says that the outcome is unknown. It never means that nothing happened. `Deposed` may come of any call: another
  vknix leads by now, and this one ends.
"""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from vknix.core.facts import HostFacts, HostName, Keys, PodFacts, Uid
from vknix.core.fetched import FileKey
from vknix.core.inputs import Inputs
from vknix.core.pod import Pod
from vknix.core.usage import HostUsage, PodDisk


@dataclass(frozen=True, slots=True)
class PodSeen:
    facts: PodFacts


@dataclass(frozen=True, slots=True)
class PodGone:
    """A listed host has nothing of this Pod any more."""

    uid: Uid
    host: HostName


@dataclass(frozen=True, slots=True)
class HostSeen:
    facts: HostFacts


@dataclass(frozen=True, slots=True)
class Listed:
    """That was all that `host` has: a Pod not named since the link came up is not there."""

    host: HostName


Seen = PodSeen | PodGone | HostSeen | Listed


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Pod goes: chosen before it starts, written to the Pod, and only then acted on. No addresses: the host's own."""

    host: HostName
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Size:
    """Of a terminal, in characters."""

    width: int
    height: int


class Streams(Protocol):
    """The client's end of an exec or attach. Writes return when there is room: a slow reader holds back only its own stream."""

    async def read_stdin(self) -> bytes:
        """The next piece; b"" once the client has closed its side (at once where stdin was not asked for)."""

    async def write_stdout(self, data: bytes) -> None: ...

    async def write_stderr(self, data: bytes) -> None: ...

    async def next_size(self) -> Size | None:
        """The next size of the terminal; None once there are no more. Waits for ever where none comes."""


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """`stderr` is False with a terminal, where stdout carries both."""

    uid: Uid
    container: str
    argv: tuple[str, ...]
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """`stdin`: the client's input is the container's, where that reads any. Output comes on what the client asked for."""

    uid: Uid
    container: str
    stdin: bool


@dataclass(frozen=True, slots=True)
class LogOptions:
    """`attempt` is resolved by the caller; `since` is seconds since the epoch; tail first, then since, then the limit."""

    attempt: int
    follow: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True)
class JournalQuery:
    """Of a host's own journal: no units mean all; times are seconds since the epoch; `boot` 0 is this one, -1 the one before."""

    units: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    tail_lines: int | None = None
    pattern: str = ""
    boot: int | None = None


class Connection(Protocol):
    """A TCP connection to a Pod."""

    async def read(self, limit: int) -> bytes:
        """Up to `limit` bytes; b"" at the end."""

    async def write(self, data: bytes) -> None: ...


class Duplex(Connection, Protocol):
    """A connection of which each side may end by itself. `write` is Refused once the other side is closed; any call is Unreachable
    where the link died."""

    async def end(self) -> None:
        """No more is written; what comes can still be read."""


class Localhost(Protocol):
    """The loopback of one Pod's network, for as long as one client's session lasts."""

    def dial(self, port: int) -> AbstractAsyncContextManager[Duplex]:
        """By IPv4, else IPv6. Refused, with why, where nobody listens.

        Leaving it closes the connection: by an exception at once, else once all that was written has been sent.
        """


class Provider(Protocol):
    def watch(self) -> AsyncGenerator[Seen, None]:
        """Follows all hosts for ever. One caller; closing the iterator ends the links to the hosts."""

    def configure(self, pod_cidrs: tuple[str, ...], told: Mapping[HostName, str]) -> Mapping[HostName, str]:
        """Gives each host a piece of the Pod CIDRs; what was `told` is kept. The caller writes the answer to the Node, then
        `place` may be asked."""

    def place(self, pod: Pod, hosts: Mapping[HostName, HostFacts]) -> Place:
        """Chooses a host and addresses among `hosts`, and reserves them until the Pod is seen or `release`d.

        Refused with the kubelet's reason (`OutOfcpu`, ...) where the Pod can fit no host of the pool now.
        """

    def resize(self, pod: Pod, place: Place, hosts: Mapping[HostName, HostFacts]) -> None:
        """Takes the room that a Pod which was placed asks for by now. Refused where its host has none: `Deferred`, or `Infeasible`
        where it never has. `sync` puts it into force, and facts say so."""

    def adopt(self, pod: Pod, place: Place) -> None:
        """Says that a Pod was placed before: its addresses are taken."""

    def release(self, uid: Uid) -> None:
        """Gives the Pod's room and addresses back: it is on no host, and needs none any more."""

    async def sync(self, pod: Pod, place: Place, inputs: Inputs, run: tuple[str, ...]) -> None:
        """Makes what is missing of the Pod's sandbox, files and closures, and starts the containers named in `run`.

        A closure that must be fetched is fetched in the background: nothing starts, and its images' facts say how it goes. A
        container that waits for its host to restart it is started at once. What `inputs.handler` says is in the facts from then on:
        a Pod keeps the kind of machine that it began with.
        """

    async def stop(
        self, uid: Uid, host: HostName, containers: tuple[str, ...], deadline: float, grace_s: float, again: Keys = ()
    ) -> None:
        """Asks the containers to end (no names: all); at `deadline`, or when called after it, kills what is left.

        `again` are attempts that are stopped so that their containers start again: their ends say so, whoever sees them.

        A later call can only shorten. `grace_s` is the Pod's own grace, which a host keeps to by itself.
        """

    async def clean(self, uid: Uid, host: HostName) -> None:
        """Removes all that the host has of a Pod: slice, network, files, logs. What still runs of it is killed."""

    async def exec(self, request: ExecRequest, host: HostName, streams: Streams) -> int:
        """Runs argv in a container: the exit code, 128 + n after signal n.

        NotFound where the container does not run; Refused where argv can't be executed, in words for the user; Unreachable where
        the link died, which is never an exit code. Cancelling it ends the command.
        """

    async def attach(self, request: AttachRequest, host: HostName, streams: Streams) -> None:
        """Joins the client to a container's main process until that ends: its output from now on, input where it reads any.

        As a kubelet: where the client's input ends, so does that of a container with stdinOnce, and the session with another.
        NotFound where the container does not run; Unreachable where the link died. A slow client holds up nobody else.
        """

    def logs(self, uid: Uid, host: HostName, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """The log of one attempt, in pieces as they are to be sent. Following ends when the attempt has ended and is drained."""

    def dial(self, uid: Uid, host: HostName, address: str, port: int) -> AbstractAsyncContextManager[Connection]:
        """Connects from the Pod's host to an address, which is the Pod's own or any other.

        Refused where nobody listens there; Unreachable where the link died.
        """

    def localhost(self, uid: Uid, host: HostName) -> AbstractAsyncContextManager[Localhost]:
        """The loopback of the Pod's own network, or the host's for a Pod on the host's network; leaving it closes all connections.

        NotFound where the host has no network of the Pod; Unreachable where the link died.
        """

    async def answers(self, host: HostName) -> None:
        """Asks the host for a sign of life, on each way that exec and dial take. Unreachable where none comes within a moment."""

    async def usage(self, host: HostName) -> HostUsage:
        """What the host and all that runs on it use now, in one question. Unreachable, or HostFailed, where it gives no answer."""

    async def disk(self, host: HostName, uids: Collection[Uid]) -> Mapping[Uid, PodDisk]:
        """What these Pods have on the host's disk, in one question, which takes longer the more files they have. What does not run
        is left out; a Pod that it does not have may be. Unreachable, or HostFailed, where it gives no answer."""

    async def read(self, pod: Pod, host: HostName, files: Collection[FileKey]) -> Mapping[FileKey, bytes | None]:
        """Small files in emptyDirs of a Pod; None where there is none. Links in a volume are never followed out of it."""

    def host_logs(self, host: HostName, query: JournalQuery) -> AsyncGenerator[bytes, None]:
        """The host's journal, as text in pieces. Unreachable where the link died; Refused where it can't be asked so."""
