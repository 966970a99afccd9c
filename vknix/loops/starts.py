"""How long the starts of Pods take, by phase, and their workers' turns. Starts that another process began are not among them."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from vknix.core.facts import Uid
from vknix.telemetry import Telemetry


class Phase(IntEnum):
    """In their order: what has ended with each."""

    PLACE = 1
    MAKE = 2
    RUN = 3
    TELL = 4


@dataclass(slots=True)
class _Start:
    began: float
    at: float
    phase: int = 0


class Starts:
    def __init__(self, telemetry: Telemetry, clock: Callable[[], float] = time.monotonic) -> None:
        self._telemetry = telemetry
        self._clock = clock
        self._starts: dict[Uid, _Start] = {}

    def begin(self, uid: Uid) -> None:
        """It is wanted, for the first time."""
        now = self._clock()
        self._starts.setdefault(uid, _Start(now, now))

    def reached(self, uid: Uid, phase: Phase) -> None:
        """The first time counts; what had to be made before it is not told apart."""
        of, now = self._starts.get(uid), self._clock()
        if of is None or phase <= of.phase:
            return
        self._telemetry.starts.observe(now - of.at, phase.name.lower())
        if phase is Phase.RUN:
            self._telemetry.whole_starts.observe(now - of.began)
        of.at, of.phase = now, phase

    @contextmanager
    def telling(self, uid: Uid, patch: Mapping[str, Any]) -> Iterator[None]:
        """While a patch of the Pod is written: which phases it is the end of."""
        runs = (patch.get("status") or {}).get("phase") in ("Running", "Succeeded")
        if runs:
            self.reached(uid, Phase.RUN)
        yield
        if "metadata" in patch:
            self.reached(uid, Phase.PLACE)
        if runs:
            self.reached(uid, Phase.TELL)

    def forget(self, uid: Uid) -> None:
        self._starts.pop(uid, None)


@dataclass(slots=True)
class Turn:
    result: str = "failed"


class Turns:
    """Of one Pod's worker: how long it waits for its turn, and how long a turn takes."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._woken: float | None = None

    def woken(self) -> None:
        self._woken = self._woken if self._woken is not None else time.monotonic()

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        began, turn = time.monotonic(), Turn()
        if self._woken is not None:
            self._telemetry.waits.observe(began - self._woken)
            self._woken = None
        try:
            yield turn
        finally:
            self._telemetry.turns.observe(time.monotonic() - began, turn.result)
