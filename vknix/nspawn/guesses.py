"""What a host was asked to start counts as being made until systemd says more of it. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from vknix.nspawn.unit_state import Unit, ended


def came_true(before: Unit | None, ends: int) -> bool:
    """What `before` was is told of by systemd itself, or has its fact (`ends`: how many attempts have theirs).

    What looks like an end before that is that of the attempt before: as a unit waits to be restarted, and is, it says so once more.
    """
    return before is None or before.id != "" or before.attempt is None or ends > before.attempt


class Guesses:
    """Of the units that one script is to start, among `units`, by name."""

    def __init__(self, units: dict[str, Unit]) -> None:
        self._units = units
        self._of: dict[str, tuple[Unit, Unit | None]] = {}

    def make(self, name: str, attempt: int, image: str) -> None:
        """But of one that has begun."""
        known = self._units.get(name)
        if known is None or ended(known):
            guess = Unit("activating", "start", image=image, attempt=attempt)
            self._units[name] = guess
            self._of[name] = guess, known

    def drop(self, names: Iterable[str] | None = None) -> None:
        """They were not started, none of them without `names`; of those of which systemd has said more, that stays."""
        for name in tuple(self._of) if names is None else names:
            guess, before = self._of.pop(name, (None, None))
            if guess is None or self._units.get(name) is not guess:
                continue
            if before is None:
                del self._units[name]
            else:
                self._units[name] = before


class Doubts:
    """Units that have gone though they count as being made: what is stopped before it begins has no other word of its end."""

    def __init__(self) -> None:
        self._asking: Counter[str] = Counter()
        self._doubted: set[str] = set()

    @contextmanager
    def asking(self, names: Iterable[str]) -> Iterator[None]:
        """While a script is about to start them they may well not be there."""
        of = Counter(iter(names))  # of a mapping it would take the values for counts
        self._asking.update(of)
        try:
            yield
        finally:
            self._asking -= of

    def add(self, name: str) -> None:
        self._doubted.add(name)

    def due(self) -> frozenset[str]:
        """Those that systemd can be asked for now, once."""
        due = frozenset(name for name in self._doubted if name not in self._asking)
        self._doubted -= due
        return due
