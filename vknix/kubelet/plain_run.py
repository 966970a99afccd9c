"""`/run`: a command in a container, and its whole output as the answer. No client of today's asks for it; people by hand do."""

from typing import Final

from aiohttp import web

from vknix.errors import Refused
from vknix.kubelet.target import Backend, Rejection, Target, words
from vknix.provider import ExecRequest, Size

MAX_OUTPUT: Final = 16 * 1024 * 1024  # as containerd's

_TYPE = "application/json"  # a kubelet calls it so, whatever it is


class _TooMuchError(Exception):
    pass


class _Output:
    """provider.Streams: no input, and what the command writes."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.err = bytearray()

    async def read_stdin(self) -> bytes:
        return b""

    async def write_stdout(self, data: bytes) -> None:
        self._add(self.out, data)

    async def write_stderr(self, data: bytes) -> None:
        self._add(self.err, data)

    async def next_size(self) -> Size | None:
        return None

    def _add(self, to: bytearray, data: bytes) -> None:
        if len(self.out) + len(self.err) + len(data) > MAX_OUTPUT:
            raise _TooMuchError
        to += data


async def serve_run(request: web.Request, target: Target, container: str, backend: Backend) -> web.Response:
    """The command is split at spaces, for there is no other way to say it. A code other than 0 is an error, with what it wrote."""
    argv = words(request.query.get("cmd", "").split(" "))
    command = ExecRequest(target.pod.uid, container, argv, stdin=False, stdout=True, stderr=True, tty=False)
    output = _Output()
    try:
        code = await backend.exec(command, target.running_on(container), output)
    except* _TooMuchError as group:
        raise Rejection(500, f"the command writes more than {MAX_OUTPUT >> 20} MiB: use exec") from group
    except* Refused as group:
        raise Rejection(500, str(group.exceptions[0])) from group
    if code != 0:
        said = output.err.decode(errors="replace")
        raise Rejection(500, f"command '{' '.join(argv)}' exited with {code}: {said}")
    return web.Response(body=bytes(output.out + output.err), content_type=_TYPE)
