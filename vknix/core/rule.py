"""A verdict on one field of a Pod: what core/fields.py has for each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from vknix.core.handlers import Handler


class Verdict(Enum):
    HONOURED = "honoured"
    ELSEWHERE = "done by the API server, the scheduler or a controller"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Rule:
    """`harmless` are values of a refused field that ask for nothing. `instead`: what holds on a handler instead."""

    verdict: Verdict
    why: str = ""
    remedy: str = ""
    harmless: tuple[Any, ...] = ()
    instead: Mapping[Handler, "Rule"] = field(default_factory=dict)

    def on(self, handler: Handler) -> "Rule":
        return self.instead.get(handler, self)


YES = Rule(Verdict.HONOURED)
ELSEWHERE = Rule(Verdict.ELSEWHERE)
OTHER_NODE = "run this Pod on an ordinary node"


def no(why: str, remedy: str = OTHER_NODE, *harmless: Any) -> Rule:
    return Rule(Verdict.REFUSED, why, remedy, harmless)
