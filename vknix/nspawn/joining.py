"""A command on a host, joined to the streams of a client."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

import asyncssh

from vknix.errors import Unreachable
from vknix.nspawn.ssh import said

BLOCK = 192 * 1024  # as one piece of a WebSocket: each costs a round of the loop

Process = asyncssh.SSHClientProcess[bytes]
Work = Coroutine[Any, Any, None]


async def join(process: Process, host: str, *, inward: Iterable[Work], outward: Iterable[Work]) -> int:
    """Until the command has ended and all that it said has gone `outward`: its exit status. Unreachable where the link was lost."""
    try:
        async with asyncio.TaskGroup() as tasks:
            into = [tasks.create_task(work) for work in inward]
            for out in [tasks.create_task(work) for work in outward]:
                await out
            await process.wait()
            for task in into:
                task.cancel()
    except* (OSError, asyncssh.Error) as group:
        raise Unreachable(f"host {host}: the link was lost: {said(group.exceptions[0])}") from group
    if process.exit_status is None or process.exit_status < 0:
        raise Unreachable(f"host {host}: the link was lost")
    return process.exit_status
