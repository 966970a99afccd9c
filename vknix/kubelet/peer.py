"""Ends a session whose client has gone without our reading it, or from which nothing has been heard for hours."""

import asyncio
import socket
from typing import Final, Protocol

IDLE_S: Final = 4 * 3600.0  # a kubelet's streamingConnectionIdleTimeout
FAREWELL_S: Final = 2.0  # what a client has to close from its side, once it has been told how its command ended

_CHECK_S = 0.25
_TCP_ESTABLISHED = 1  # of tcpi_state, the first byte of Linux' struct tcp_info


class Session(Protocol):
    @property
    def transport(self) -> asyncio.Transport: ...

    @property
    def last_active(self) -> float:
        """By the loop's clock."""

    def nudge(self) -> None:
        """Where the socket is not being read: sends something that every client ignores."""


async def watch_peer(session: Session, idle_s: float = IDLE_S) -> None:
    """Aborts the transport of a client that is gone. Returns once it is closing.

    While a full buffer keeps us from reading, a dead client's last data stand before its FIN. Its kernel answers a nudge by RST,
    which only the state of the socket shows.
    """
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_CHECK_S)
        if session.transport.is_closing():
            return
        if not _is_open(session.transport) or loop.time() - session.last_active > idle_s:
            session.transport.abort()
            return
        session.nudge()


def _is_open(transport: asyncio.Transport) -> bool:
    try:
        state = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except OSError:  # closed on our side
        return False
    return bool(state[0] == _TCP_ESTABLISHED)
