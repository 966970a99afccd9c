"""How containers begin and end on a host in memory."""

import asyncio
import time
import uuid
from collections.abc import Callable

from vknix.core import restart
from vknix.core.facts import Exit, Reason, State
from vknix.errors import Refused
from vknix.fake.container import Container, PodThere, output_of


class Attempts:
    """`ladder_s`: after how long what has ended is started again. `tell` hears of a Pod in which something has changed."""

    def __init__(self, ladder_s: tuple[float, ...], tell: Callable[[PodThere], None]) -> None:
        self._ladder_s = ladder_s
        self._tell = tell

    def start(self, of: PodThere, container: Container) -> None:
        """Never disturbs an attempt that is there."""
        if container.state is State.STOPPED:
            container.set_timer(None)
            container.state, container.id, container.started = State.PREPARING, uuid.uuid4().hex, None
            container.logs.append([])
            container.files.clear()
            self._tell(of)
            asyncio.get_running_loop().call_soon(self._begin, of, container, container.id)

    def _begin(self, of: PodThere, container: Container, attempt: str) -> None:
        if container.id != attempt or container.state is not State.PREPARING:
            return
        try:
            output, code = output_of(container.argv, container.files)
        except Refused as refusal:
            self.end(of, container, 128, reason=Reason.START_ERROR, message=str(refusal))
            return
        container.state, container.started = State.RUNNING, time.time()
        container.logs[-1] += [(container.started, output)] if output else []
        self._tell(of)
        if code is not None:
            self.end(of, container, code)

    def end(
        self, of: PodThere, container: Container, code: int, *, signal: int = 0, reason: Reason | None = None, message: str = ""
    ) -> None:
        asked = container.state is State.STOPPING
        number, why = len(container.logs) - 1, reason or (Reason.ERROR if code else Reason.COMPLETED)
        again = number in container.again
        container.exits.append(Exit(number, container.id, code, signal, why, container.started, time.time(), message, again))
        container.state = State.STOPPED
        container.set_timer(None)
        if not asked and container.member.host_policy != "Never" and restart.may_restart(container.member, code):
            wait_s = self._ladder_s[min(restart.streak(tuple(container.exits)), len(self._ladder_s)) - 1]
            container.timer = asyncio.get_running_loop().call_later(wait_s, self.start, of, container)
        self._tell(of)

    def stop(self, of: PodThere, container: Container, after_s: float) -> None:
        """`cat` heeds SIGTERM; `sleep` is deaf to it, as any process 1 without a handler."""
        loop = asyncio.get_running_loop()
        if container.state is State.STOPPED:
            container.set_timer(None)
        elif after_s <= 0:
            container.state = State.STOPPING
            self.end(of, container, 137, signal=9)
        elif container.state is not State.STOPPING or (container.timer and container.timer.when() > loop.time() + after_s):
            container.state = State.STOPPING
            container.set_timer(loop.call_later(after_s, self.stop, of, container, 0.0))
            if container.argv[0].endswith("cat"):
                loop.call_soon(self._heed, of, container, container.id)
        self._tell(of)

    def _heed(self, of: PodThere, container: Container, attempt: str) -> None:
        if container.id == attempt and container.state is State.STOPPING:
            self.end(of, container, 143, signal=15)
