"""Connections to a Pod's localhost: one vktool on the host for a client's session, and a forwarded Unix socket for each connection.

sshd counts such sockets not as sessions, and gives each a window of its own. All are on the stream connection that vktool is on:
where that dies they do, and where the session ends vktool's end closes them.
"""

import asyncio
import errno
import secrets
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncssh

from vknix.errors import HostFailed, NotFound, Refused, Unreachable
from vknix.nspawn import network, paths
from vknix.nspawn.ssh import Link, said
from vknix.provider import Duplex

_READY_S = 15.0
_NOT_THERE = 3
_CONNECTED = b"\0"


@dataclass(frozen=True, slots=True)
class Channel:
    """provider.Duplex over one of the SSH connection's channels."""

    host: str
    reader: "asyncssh.SSHReader[bytes]"
    writer: "asyncssh.SSHWriter[bytes]"

    async def read(self, limit: int) -> bytes:
        try:
            return await self.reader.read(limit)
        except (OSError, asyncssh.Error) as error:
            raise self._lost(error) from error

    async def write(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await self.writer.drain()
        except BrokenPipeError as error:
            raise Refused("", "the connection was closed") from error
        except (OSError, asyncssh.Error) as error:
            raise self._lost(error) from error

    async def end(self) -> None:
        if not self.writer.is_closing():
            self.writer.write_eof()

    def _lost(self, error: Exception) -> Unreachable:
        return Unreachable(f"host {self.host}: the link was lost: {said(error)}")


class Localhost:
    """provider.Localhost: `socket` is vktool's."""

    def __init__(self, host: str, connection: asyncssh.SSHClientConnection, socket: str) -> None:
        self._host = host
        self._connection = connection
        self._socket = socket

    @asynccontextmanager
    async def dial(self, port: int) -> AsyncIterator[Duplex]:
        try:
            reader, writer = await self._connection.open_unix_connection(self._socket, encoding=None)
        except asyncssh.ChannelOpenError as error:
            if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
                text = f"host {self._host}: sshd forbids forwarding: set AllowStreamLocalForwarding yes for root"
                raise HostFailed(text) from error
            raise NotFound("the Pod has no network any more") from error
        except (OSError, asyncssh.Error) as error:
            raise Unreachable(f"host {self._host}: the link was lost: {said(error)}") from error
        channel = Channel(self._host, reader, writer)
        try:
            await channel.write(port.to_bytes(2))
            if await channel.read(1) != _CONNECTED:
                why = (await channel.read(1024)).decode(errors="replace")
                raise Refused("", why or f"dial tcp localhost:{port}: {errno.errorcode[errno.ECONNRESET]}")
            yield channel
            writer.close()
        finally:
            if not writer.is_closing():
                writer.channel.abort()


@asynccontextmanager
async def localhost(link: Link, tool: str, uid32: str, *, own_network: bool) -> AsyncIterator[Localhost]:
    """NotFound where the host has no such Pod; Unreachable where the link dies."""
    socket = f"{paths.run(uid32)}/forward-{secrets.token_hex(8)}"
    netns = f"/run/netns/{network.netns(uid32)}" if own_network else "-"
    async with link.stream(f"exec {shlex.join((tool, 'forward', netns, socket))}") as process:
        try:
            async with asyncio.timeout(_READY_S):
                await _until_ready(process, link.to.name)
        except TimeoutError as error:
            raise Unreachable(f"host {link.to.name} did not answer within {_READY_S:g} s") from error
        connection = process.channel.get_connection()
        assert isinstance(connection, asyncssh.SSHClientConnection)
        yield Localhost(link.to.name, connection, socket)


async def _until_ready(process: "asyncssh.SSHClientProcess[bytes]", host: str) -> None:
    if await process.stdout.readline():
        return
    why = (await process.stderr.read(1024)).decode(errors="replace").strip()
    await process.wait()
    if process.exit_status is None:
        raise Unreachable(f"host {host}: the link was lost")
    if process.exit_status == _NOT_THERE:
        raise NotFound(f"the Pod has no network on host {host}: {why}")
    raise HostFailed(f"host {host}: vktool forward has failed: {why or process.exit_status}")
