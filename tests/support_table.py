"""core/fields.py -> docs/pod-support.md: each field of a Pod with what becomes of it. `python -m tests.support_table` writes it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vknix.core.fields import FIELDS, Rule, Verdict
from vknix.core.handlers import DEFAULT, Handler

FILE = Path(__file__).parents[1] / "docs" / "pod-support.md"
_HEAD = """# What a Pod can have

Written by `scripts/docs` from `vknix/core/fields.py`, which decides it. A test holds that against the API server's own list of
fields, those behind feature gates with it: what is not named here is refused. A refused Pod fails with the field, the reason and
the remedy in its status and an Event; it never runs with less than it asks for.

*yes*: as on a kubelet, with the limit that is named. *elsewhere*: done by the API server, the scheduler or a controller. *no*:
refused, with what to do instead; a value in brackets asks for nothing, and is taken. The columns are the handlers of a
RuntimeClass, `nspawn` that of a Pod without one; *same* is what `nspawn` has.
"""
_CONTAINERS = ("containers[]", "initContainers[]", "ephemeralContainers[]")


def markdown(fields: Mapping[str, Rule]) -> str:
    below = {path.removeprefix("spec."): rule for path, rule in fields.items()}
    of_pod = {path: rule for path, rule in below.items() if not path.startswith(_CONTAINERS)}
    regular, *others = (_within(below, f"{kind}.") for kind in _CONTAINERS)
    parts = [_HEAD, _section("The Pod (`spec`)", of_pod), _section("A container (`spec.containers[]`)", regular)]
    for kind, rules in zip(_CONTAINERS[1:], others, strict=True):
        different = {path: rule for path, rule in rules.items() if regular.get(path) != rule}
        if different:
            parts.append(_section(f"What is otherwise in `spec.{kind}`", different))
    return "\n".join(parts)


def _within(rules: Mapping[str, Rule], prefix: str) -> dict[str, Rule]:
    return {path.removeprefix(prefix): rule for path, rule in rules.items() if path.startswith(prefix)}


def _section(title: str, rules: Mapping[str, Rule]) -> str:
    columns = list(Handler)
    head = f"## {title}\n\n| field | {' | '.join(f'`{handler.value}`' for handler in columns)} |\n|---{'|---' * len(columns)}|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in _rows(rules, columns))


def _rows(rules: Mapping[str, Rule], columns: Iterable[Handler]) -> Iterator[list[str]]:
    """Fields of one parent that have the same verdicts share a row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for path, rule in rules.items():
        parent, _, name = path.rpartition(".")
        told = tuple(_told(rule, handler) for handler in columns)
        rows.setdefault((parent, *told), []).append(name)
    for (parent, *cells), names in rows.items():
        first, *rest = names
        dot = "." if parent else ""
        yield [", ".join([f"`{parent}{dot}{first}`", *(f"`{dot}{name}`" for name in rest)]), *cells]


def _told(rule: Rule, handler: Handler) -> str:
    on = rule.on(handler)
    if handler is not DEFAULT and on == rule.on(DEFAULT):
        return "same"
    words = {Verdict.HONOURED: "yes", Verdict.ELSEWHERE: "elsewhere", Verdict.REFUSED: "no"}[on.verdict]
    harmless = f" ({', '.join(f'`{json.dumps(value)}`' for value in on.harmless)})" if on.harmless else ""
    text = "; ".join(part for part in (on.why, on.remedy) if part)
    return f"{words}{harmless}: {text}".replace("|", "\\|") if text else words


if __name__ == "__main__":
    FILE.write_text(markdown(FIELDS))
