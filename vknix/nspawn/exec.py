"""One exec: vktool on the host, joined to the client's streams. Cancelling it closes the channel: vktool then ends all of it."""

import asyncio
import secrets
import shlex
from collections.abc import Awaitable, Callable

import asyncssh

from vknix.errors import NotFound, Refused, Unreachable
from vknix.nspawn import paths
from vknix.nspawn.ssh import Link, said
from vknix.provider import ExecRequest, Size, Streams

_BLOCK = 1 << 16
_NOT_ENTERED, _NOT_RUN, _NOT_FOUND = 125, 126, 127
_FIRST_SIZE = Size(80, 24)


async def run_exec(link: Link, tool: str, request: ExecRequest, streams: Streams) -> int:
    """The exit code. NotFound, Refused and Unreachable as provider.exec says."""
    nonce = secrets.token_hex(8)
    uid32 = paths.uid32(request.uid)
    run = paths.run_of(uid32, request.container)
    number = str(secrets.randbits(62))  # of its cgroup: of all execs in this container, whoever began them
    words = [tool, "exec", f"{run}/run", f"{run}/identity", number, nonce, "tty" if request.tty else "notty", "--", *request.argv]
    size = (_FIRST_SIZE.width, _FIRST_SIZE.height) if request.tty else None
    async with link.stream(f"exec {shlex.join(words)}", tty=size) as process:
        told: list[bytes] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                inward = [tasks.create_task(_stdin(process, request, streams))]
                if request.tty:
                    inward.append(tasks.create_task(_resize(process, streams)))
                out = tasks.create_task(_pump(process.stdout, streams.write_stdout, nonce, told))
                err = tasks.create_task(_pump(process.stderr, streams.write_stderr, nonce, told))
                await out
                await err
                await process.wait()
                for task in inward:
                    task.cancel()
        except* (OSError, asyncssh.Error) as group:
            raise Unreachable(f"host {link.to.name}: the link was lost: {said(group.exceptions[0])}") from group
        return _outcome(process, b"".join(told).decode(errors="replace").strip(), request, link.to.name)


def _outcome(process: "asyncssh.SSHClientProcess[bytes]", told: str, request: ExecRequest, host: str) -> int:
    status = process.exit_status
    if status is None or status < 0:
        raise Unreachable(f"host {host}: the link was lost")
    if told and status == _NOT_ENTERED:
        raise NotFound(f'container not found ("{request.container}")')
    if told:
        raise Refused("", told)
    return status


async def _stdin(process: "asyncssh.SSHClientProcess[bytes]", request: ExecRequest, streams: Streams) -> None:
    if request.stdin:
        try:
            while data := await streams.read_stdin():
                process.stdin.write(data)
                await process.stdin.drain()
        except BrokenPipeError:
            return  # it has ended, or closed its standard input
    process.stdin.write_eof()


async def _resize(process: "asyncssh.SSHClientProcess[bytes]", streams: Streams) -> None:
    while size := await streams.next_size():
        process.change_terminal_size(size.width, size.height)


async def _pump(
    source: "asyncssh.SSHReader[bytes]", write: Callable[[bytes], Awaitable[None]], nonce: str, told: list[bytes]
) -> None:
    """What vktool itself has to say is one line that begins with the nonce, before anything else."""
    mark = nonce.encode() + b" "
    first = True
    while data := await source.read(_BLOCK):
        if first and data.startswith(mark):
            told.append(data[len(mark) :])
        else:
            await write(data)
        first = False
