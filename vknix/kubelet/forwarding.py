"""port-forward: what a request asks for, and one connection between a client and what listens on a Pod's localhost.

Each side may end by itself. How the Pod's side ends is no error: it is passed on as it came. What goes wrong before there is a
connection, or with the link to the host, is said on the client's error stream in the kubelet's words.

Behind kubectl a program that has said all it has to say looks like one that is gone, so the Pod's side gets a while to end, too:
HALF_CLOSED_S, where containerd gives it 1 s. Nothing is said then, for kubectl would end all of its connections.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from vknix.errors import Refused, VknixError
from vknix.kubelet.target import AnyPod, Rejection
from vknix.provider import Duplex, Localhost

log = logging.getLogger(__name__)

BLOCK: Final = 128 * 1024
MAX_PORTS: Final = 100  # of one legacy request
HALF_CLOSED_S: Final = 60.0


class End(Protocol):
    """The client's end of one connection."""

    async def read(self) -> bytes:
        """The next piece; b"" once the client sends no more."""

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more."""

    async def end(self) -> None:
        """The Pod's side sends no more."""

    def discard(self) -> None:
        """The Pod's side reads no more."""


@dataclass(frozen=True, slots=True)
class Forwarder:
    """What the connections of one session share."""

    localhost: Localhost
    pod: AnyPod

    async def forward(self, port: int, client: End) -> str:
        """Until both sides have ended: what is to be said on the error stream, "" where all is well."""
        why = ""
        try:
            async with self.localhost.dial(port) as target, asyncio.TaskGroup() as tasks:
                outward = tasks.create_task(_outward(target, client))
                await _inward(client, target)
                await asyncio.wait((outward,), timeout=HALF_CLOSED_S)
                outward.cancel()
        except* VknixError as group:
            why = str(_first(group))
        except* Exception:
            log.exception("port-forward to Pod %s failed", self.pod.uid)
            why = "vknix itself failed; its log says why"
        return self.failed(port, why) if why else ""

    def failed(self, port: int, why: str) -> str:
        return f"error forwarding port {port} to pod {self.pod.name}, uid {self.pod.uid}: {why}"


async def _inward(client: End, target: Duplex) -> None:
    try:
        while data := await client.read():
            await target.write(data)
        await target.end()
    except Refused:  # it has closed: what it had said before still goes to the client
        client.discard()


async def _outward(target: Duplex, client: End) -> None:
    while data := await target.read(BLOCK):
        await client.write(data)
    await client.end()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def port_of(text: str) -> int:
    """As a stream's header or a query names it. Raises ValueError, in the kubelet's words."""
    if not (text.isascii() and text.isdigit()) or int(text[:6]) > 0xFFFF:
        raise ValueError(f'unable to parse "{text[:20]}" as a port')
    if int(text) < 1:
        raise ValueError(f'port "{text}" must be > 0')
    return int(text)


def asked_ports(values: Sequence[str]) -> tuple[int, ...]:
    """The ports of a legacy request, whose `values` may each be a comma list."""
    if not values:
        raise Rejection(400, 'query parameter "port" is required')
    if not all(values):
        raise Rejection(400, 'query parameter "port" cannot be empty')
    try:
        ports = tuple(port_of(text) for value in values for text in value.split(","))
    except ValueError as error:
        raise Rejection(400, str(error)) from error
    if len(ports) > MAX_PORTS:
        raise Rejection(400, f"{len(ports)} ports are more than {MAX_PORTS}: ask for them in several requests")
    return ports
