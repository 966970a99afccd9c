"""One attach: vktool on the host, joined to the client's streams. Input and sizes go to it as frames (see main.c)."""

import asyncio
import shlex
from collections.abc import Awaitable, Callable

import asyncssh

from vknix.errors import HostFailed, NotFound, Unreachable
from vknix.nspawn import paths
from vknix.nspawn.ssh import Link, said
from vknix.provider import AttachRequest, Size, Streams

_BLOCK = 1 << 16
_PIECE = 4000  # of a frame, which is 4096 bytes at most
_NOT_RUNNING = 3


async def run_attach(link: Link, tool: str, request: AttachRequest, streams: Streams) -> None:
    """Until the container ends, or the session. NotFound and Unreachable as provider.attach says."""
    uid32 = paths.uid32(request.uid)
    words = [tool, "attach", f"{paths.run_of(uid32, request.container)}/run", f"{paths.var_of(uid32, request.container)}/log"]
    async with link.stream(f"exec {shlex.join(words)}") as process:
        try:
            async with asyncio.TaskGroup() as tasks:
                inward = [tasks.create_task(_sizes(process, streams))]
                if request.stdin:
                    inward.append(tasks.create_task(_stdin(process, streams)))
                out = tasks.create_task(_pump(process.stdout, streams.write_stdout))
                err = tasks.create_task(_pump(process.stderr, streams.write_stderr))
                await out
                await err
                await process.wait()
                for task in inward:
                    task.cancel()
        except* (OSError, asyncssh.Error) as group:
            raise Unreachable(f"host {link.to.name}: the link was lost: {said(group.exceptions[0])}") from group
        _check(process.exit_status, request, link.to.name)


def _check(status: int | None, request: AttachRequest, host: str) -> None:
    if status is None or status < 0:
        raise Unreachable(f"host {host}: the link was lost")
    if status == _NOT_RUNNING:
        raise NotFound(f'container not found ("{request.container}")')
    if status != 0:
        raise HostFailed(f"host {host}: vktool attach has failed ({status})")


async def _stdin(process: "asyncssh.SSHClientProcess[bytes]", streams: Streams) -> None:
    """The first frame, which is empty, says that this session's input is the container's."""
    try:
        await _send(process, frame(b"i", b""))
        while data := await streams.read_stdin():
            for at in range(0, len(data), _PIECE):
                await _send(process, frame(b"i", data[at : at + _PIECE]))
        await _send(process, frame(b"c", b""))
    except BrokenPipeError:
        return  # the session has ended


async def _sizes(process: "asyncssh.SSHClientProcess[bytes]", streams: Streams) -> None:
    try:
        while size := await streams.next_size():
            await _send(process, size_frame(size))
    except BrokenPipeError:
        return


async def _send(process: "asyncssh.SSHClientProcess[bytes]", data: bytes) -> None:
    process.stdin.write(data)
    await process.stdin.drain()


def frame(kind: bytes, data: bytes) -> bytes:
    return kind + len(data).to_bytes(2) + data


def size_frame(size: Size) -> bytes:
    """A number that its two bytes have no room for is the largest that they have."""
    return frame(b"s", b"".join(min(number, 0xFFFF).to_bytes(2) for number in (size.height, size.width)))


async def _pump(source: "asyncssh.SSHReader[bytes]", write: Callable[[bytes], Awaitable[None]]) -> None:
    while data := await source.read(_BLOCK):
        await write(data)
