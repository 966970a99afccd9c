"""A random Pod while it is drawn: what it is so far, and what that means for what becomes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from hypothesis import strategies as st

from tests.bench.programs import Truth

Json = dict[str, Any]


class Reaches(Enum):
    """How far a Pod comes by itself: all its regular containers start; or something of it does; or it waits; or it is refused."""

    RUNNING = "running"
    BEGUN = "begun"
    HELD = "held"
    REFUSED = "refused"


_ORDER = tuple(Reaches)


@dataclass
class Making:
    """`volumes` are by name, without it. `root`: where things can be mounted on its handler. `writes`: an init container leaves a
    file of variables (see env_file). `together`: the end of one container may restart all.
    """

    draw: st.DrawFn
    images: Mapping[str, str]
    name: str
    handler: str
    of: Json
    reaches: Reaches = Reaches.RUNNING
    truths: dict[str, Truth] = field(default_factory=dict)
    volumes: dict[str, Json] = field(default_factory=dict)
    writes: bool = False
    together: bool = False

    @property
    def spec(self) -> Json:
        spec: Json = self.of["spec"]
        return spec

    @property
    def root(self) -> str:
        return "/run" if self.handler == "unit" else ""

    @property
    def own_network(self) -> bool:
        return not self.spec.get("hostNetwork")

    def host_port(self, container: str) -> int:
        """One that no other container has while this one is there."""
        kind, index = container.rstrip("012"), int(container[-1])
        number = int(self.name.rpartition("-")[2])
        return 20000 + number % 1000 * 9 + 3 * ("c", "side", "init").index(kind) + index

    def come_to(self, what: Reaches) -> None:
        """No further than that."""
        self.reaches = max(self.reaches, what, key=_ORDER.index)

    def disturb(self, name: str) -> None:
        """Something of the Pod may stop that container."""
        self.truths[name] = replace(self.truths[name], disturbed=True)
