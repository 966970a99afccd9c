"""One host over SSH: a control connection for changes and the bus, stream connections for exec and logs, opened on demand.

sshd allows 10 sessions a connection and frees a place only after the client has seen the end, so five are used of each.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from vknix.errors import HostFailed, Refused, Unreachable
from vknix.telemetry import Telemetry

log = logging.getLogger(__name__)

_SESSIONS = 5
_CONNECT_S = 15.0
_KEEPALIVE_S, _KEEPALIVES = 4, 2  # a dead link is seen within 12 s
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com")
_OPEN_TRIES = 20


@dataclass(frozen=True, slots=True)
class Address:
    """Where a host is and how it proves who it is. `host_keys` as in known_hosts, without the name."""

    name: str
    address: str
    port: int
    user: str
    key_file: Path
    host_keys: tuple[str, ...]


@dataclass(slots=True)
class _Stream:
    connection: asyncssh.SSHClientConnection
    busy: int = 0


def said(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def _connect(to: Address) -> asyncssh.SSHClientConnection:
    keys = [asyncssh.import_public_key(key) for key in to.host_keys]
    try:
        async with asyncio.timeout(_CONNECT_S):
            return await asyncssh.connect(
                to.address,
                to.port,
                username=to.user,
                client_keys=[str(to.key_file)],
                known_hosts=(keys, [], []),
                config=None,
                agent_path=None,
                password_auth=False,
                kbdint_auth=False,
                encryption_algs=_CIPHERS,
                compression_algs=None,
                keepalive_interval=_KEEPALIVE_S,
                keepalive_count_max=_KEEPALIVES,
            )
    except asyncssh.HostKeyNotVerifiable as error:
        raise Unreachable(f"host {to.name} shows another host key than hostKeys has: check who answers at {to.address}") from error
    except asyncssh.PermissionDenied as error:
        raise Unreachable(f"host {to.name} refuses the key {to.key_file.name} for {to.user}: add it to authorizedKeys") from error
    except (OSError, asyncssh.Error, TimeoutError) as error:
        raise Unreachable(f"host {to.name} ({to.address}:{to.port}) does not answer: {said(error)}") from error


@dataclass(frozen=True, slots=True)
class Finished:
    status: int
    out: bytes
    err: bytes

    def checked(self, host: str) -> bytes:
        if self.status != 0:
            text = self.err.decode(errors="replace").strip()[-500:]
            raise HostFailed(f"host {host}: {text or f'exit code {self.status}'}")
        return self.out


@dataclass(frozen=True, slots=True)
class Forward:
    reader: "asyncssh.SSHReader[bytes]"
    writer: "asyncssh.SSHWriter[bytes]"

    async def read(self, limit: int) -> bytes:
        return await self.reader.read(limit)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


class Link:
    """A host that is connected. Use as `async with Link.open(address) as link`; `lost` ends when the control connection does."""

    def __init__(self, to: Address, control: asyncssh.SSHClientConnection, telemetry: Telemetry) -> None:
        self.to = to
        self._telemetry = telemetry
        self.control = control
        self._streams: list[_Stream] = []
        self._changes = asyncio.Semaphore(_SESSIONS)
        self._opening = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, to: Address, telemetry: Telemetry | None = None) -> AsyncIterator["Link"]:
        telemetry = telemetry if telemetry is not None else Telemetry()
        try:
            control = await _connect(to)
        except Unreachable:
            telemetry.connects.add(to.name, "failed")
            raise
        telemetry.connects.add(to.name, "up")
        link = cls(to, control, telemetry)
        try:
            yield link
        finally:
            for connection in (*(stream.connection for stream in link._streams), control):
                connection.abort()

    async def lost(self) -> None:
        await self.control.wait_closed()

    async def run(self, command: str, stdin: bytes = b"", *, timeout_s: float = 60) -> bytes:
        """Runs a short command: its stdout. HostFailed where it exits non-zero, with what it said."""
        return (await self.finish(command, stdin, timeout_s=timeout_s)).checked(self.to.name)

    async def finish(self, command: str, stdin: bytes = b"", *, timeout_s: float = 60) -> "Finished":
        """Runs a short command on the control connection. Unreachable where the link died: then its outcome is unknown."""
        async with self._changes:
            with self._telemetry.ssh.timing(self.to.name):
                try:
                    return await self._finish(command, stdin, timeout_s)
                except Unreachable:
                    self._telemetry.ssh_failures.add(self.to.name)
                    raise

    async def _finish(self, command: str, stdin: bytes, timeout_s: float) -> "Finished":
        try:
            async with asyncio.timeout(timeout_s):
                process = await _open(self.control, command, None)
                out, err = await process.communicate(stdin)
        except TimeoutError as error:
            raise Unreachable(f"host {self.to.name} did not finish within {timeout_s:g} s") from error
        except (OSError, asyncssh.Error) as error:
            raise Unreachable(f"host {self.to.name}: the link was lost: {said(error)}") from error
        if process.exit_status is None:
            raise Unreachable(f"host {self.to.name}: the link was lost")
        return Finished(process.exit_status, out or b"", err or b"")

    async def answers(self, within_s: float) -> None:
        """Unreachable where the control connection or the next stream gets no answer: what was on its way there got stuck."""
        try:
            async with asyncio.timeout(within_s):
                await self.run(":")
                async with self.stream(":") as process:
                    await process.wait()
        except TimeoutError as error:
            raise Unreachable(f"host {self.to.name} does not answer within {within_s:g} s") from error

    @asynccontextmanager
    async def stream(
        self, command: str, *, tty: tuple[int, int] | None = None
    ) -> AsyncIterator["asyncssh.SSHClientProcess[bytes]"]:
        """A process on a stream connection, for as long as the context lasts; `tty` is its terminal's width and height."""
        stream = await self._place()
        process = None
        try:
            try:
                async with asyncio.timeout(_CONNECT_S):
                    process = await _open(stream.connection, command, tty)
            except (OSError, asyncssh.Error, TimeoutError) as error:
                raise Unreachable(f"host {self.to.name}: no session: {said(error)}") from error
            try:
                yield process
            except asyncssh.Error as error:
                raise Unreachable(f"host {self.to.name}: the link was lost: {said(error)}") from error
        finally:
            if process is not None:
                process.close()
            stream.busy -= 1
            self._close_idle(stream)

    @asynccontextmanager
    async def connection(self, address: str, port: int) -> AsyncIterator["Forward"]:
        """A TCP connection from the host; it takes no session of sshd. What fails on it is Refused, unless the link died."""
        try:
            reader, writer = await self.control.open_connection(address, port, encoding=None)
            try:
                yield Forward(reader, writer)
            finally:
                writer.close()
        except (Refused, OSError, asyncssh.Error) as error:
            if self.control.is_closed():
                raise Unreachable(f"host {self.to.name}: the link was lost: {said(error)}") from error
            if isinstance(error, Refused):
                raise
            if isinstance(error, asyncssh.ChannelOpenError) and error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
                raise HostFailed(f"host {self.to.name}: sshd forbids forwarding: set AllowTcpForwarding yes for root") from error
            why = error.reason.lower() if isinstance(error, asyncssh.ChannelOpenError) else said(error)
            raise Refused("", f"dial tcp {address}:{port}: {why}") from error

    async def _place(self) -> _Stream:
        """A connection with a session to spare, which is taken. One is opened at a time: sshd drops some of many (MaxStartups)."""
        async with self._opening:
            if self.control.is_closed():
                raise Unreachable(f"host {self.to.name}: the link was lost")
            self._streams = [stream for stream in self._streams if not stream.connection.is_closed()]
            free = next((stream for stream in self._streams if stream.busy < _SESSIONS), None)
            if free is None:
                free = _Stream(await _connect(self.to))
                self._streams.append(free)
            free.busy += 1
            return free

    def _close_idle(self, stream: _Stream) -> None:
        """One idle connection is kept, for the next exec."""
        idle = [other for other in self._streams if other.busy == 0]
        if stream in idle and len(idle) > 1:
            stream.connection.close()
            self._streams.remove(stream)


async def _open(
    connection: asyncssh.SSHClientConnection, command: str, tty: tuple[int, int] | None
) -> "asyncssh.SSHClientProcess[bytes]":
    """Retried while sshd has no session free (code 2): it frees one a moment after its client saw the end."""
    options: Mapping[str, object] = {"term_type": "xterm", "term_size": tty} if tty is not None else {}
    for attempt in range(_OPEN_TRIES):
        try:
            return await connection.create_process(command, encoding=None, **options)
        except asyncssh.ChannelOpenError as error:
            if error.code != asyncssh.OPEN_CONNECT_FAILED or attempt == _OPEN_TRIES - 1:
                raise
            await asyncio.sleep(0.01 * (attempt + 1))
    raise AssertionError
