"""One attach: vktool on the host, joined to the client's streams. Input and sizes go to it as frames (see main.c)."""

import shlex
from collections.abc import Awaitable, Callable

import asyncssh

from vknix.errors import HostFailed, NotFound
from vknix.nspawn import paths
from vknix.nspawn.joining import BLOCK, Process, join
from vknix.nspawn.ssh import Link
from vknix.provider import AttachRequest, Size, Streams

_PIECE = 4000  # of a frame, which is 4096 bytes at most
_NOT_RUNNING = 3


async def run_attach(link: Link, tool: str, request: AttachRequest, streams: Streams) -> None:
    """Until the container ends, or the session. NotFound and Unreachable as provider.attach says."""
    uid32 = paths.uid32(request.uid)
    words = [tool, "attach", f"{paths.run_of(uid32, request.container)}/run", f"{paths.var_of(uid32, request.container)}/log"]
    async with link.stream(f"exec {shlex.join(words)}") as process:
        inward = [_sizes(process, streams), *([_stdin(process, streams)] if request.stdin else ())]
        outward = [_pump(process.stdout, streams.write_stdout), _pump(process.stderr, streams.write_stderr)]
        status = await join(process, link.to.name, inward=inward, outward=outward)
    if status == _NOT_RUNNING:
        raise NotFound(f'container not found ("{request.container}")')
    if status != 0:
        raise HostFailed(f"host {link.to.name}: vktool attach has failed ({status})")


async def _stdin(process: Process, streams: Streams) -> None:
    """The first frame, which is empty, says that this session's input is the container's."""
    try:
        await _send(process, frame(b"i", b""))
        while data := await streams.read_stdin():
            for at in range(0, len(data), _PIECE):
                await _send(process, frame(b"i", data[at : at + _PIECE]))
        await _send(process, frame(b"c", b""))
    except BrokenPipeError:
        return  # the session has ended


async def _sizes(process: Process, streams: Streams) -> None:
    try:
        while size := await streams.next_size():
            await _send(process, size_frame(size))
    except BrokenPipeError:
        return


async def _send(process: Process, data: bytes) -> None:
    process.stdin.write(data)
    await process.stdin.drain()


def frame(kind: bytes, data: bytes) -> bytes:
    return kind + len(data).to_bytes(2) + data


def size_frame(size: Size) -> bytes:
    """A number that its two bytes have no room for is the largest that they have."""
    return frame(b"s", b"".join(min(number, 0xFFFF).to_bytes(2) for number in (size.height, size.width)))


async def _pump(source: "asyncssh.SSHReader[bytes]", write: Callable[[bytes], Awaitable[None]]) -> None:
    while data := await source.read(BLOCK):
        await write(data)
