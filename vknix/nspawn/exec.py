"""One exec: vktool on the host, joined to the client's streams. Cancelling it closes the channel: vktool then ends all of it."""

import secrets
import shlex
from collections.abc import Awaitable, Callable

import asyncssh

from vknix.errors import NotFound, Refused
from vknix.nspawn import paths
from vknix.nspawn.joining import BLOCK, Process, join
from vknix.nspawn.ssh import Link
from vknix.provider import ExecRequest, Size, Streams

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
        inward = [_stdin(process, request, streams), *([_resize(process, streams)] if request.tty else ())]
        outward = [
            _pump(process.stdout, streams.write_stdout, nonce, told),
            _pump(process.stderr, streams.write_stderr, nonce, told),
        ]
        status = await join(process, link.to.name, inward=inward, outward=outward)
    why = b"".join(told).decode(errors="replace").strip()
    if why and status == _NOT_ENTERED:
        raise NotFound(f'container not found ("{request.container}")')
    if why:
        raise Refused("", why)
    return status


async def _stdin(process: Process, request: ExecRequest, streams: Streams) -> None:
    if request.stdin:
        try:
            while data := await streams.read_stdin():
                process.stdin.write(data)
                await process.stdin.drain()
        except BrokenPipeError:
            return  # it has ended, or closed its standard input
    process.stdin.write_eof()


async def _resize(process: Process, streams: Streams) -> None:
    while size := await streams.next_size():
        process.change_terminal_size(size.width, size.height)


async def _pump(
    source: "asyncssh.SSHReader[bytes]", write: Callable[[bytes], Awaitable[None]], nonce: str, told: list[bytes]
) -> None:
    """What vktool itself has to say is one line that begins with the nonce, before anything else."""
    mark = nonce.encode() + b" "
    first = True
    while data := await source.read(BLOCK):
        if first and data.startswith(mark):
            told.append(data[len(mark) :])
        else:
            await write(data)
        first = False
