"""ginkgo's JUnit report in, what became of each test out, and how that is told."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH = 400
DUMP = re.compile(r"<\*?\w+\.\w+|\{$")  # how gomega begins to write an object
SAYS = ("message: ", "reason: ")
DULL = ("ContainersNotReady", "{}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """`why` is empty for a test that passed."""

    name: str
    seconds: float
    why: str = ""


def read(junit: Path, names: Sequence[str]) -> list[Outcome]:
    """What became of each of these tests. One that is not in the report, or was skipped, has not passed."""
    told = {}
    if junit.exists():
        for case in ET.parse(junit).getroot().iter("testcase"):
            outcome = _outcome(case)
            told[outcome.name] = outcome
    return [told.get(name, Outcome(name, 0.0, "it did not run")) for name in names]


def summary(outcomes: Sequence[Outcome], seconds: float) -> str:
    """Each that failed, with its reason, and the count."""
    failed = [outcome for outcome in outcomes if outcome.why]
    lines = [f"failed: {outcome.name}\n        {outcome.why}" for outcome in failed]
    lines.append(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed of {len(outcomes)} in {seconds / 60:.1f} minutes")
    return "\n".join(lines)


def _outcome(case: ET.Element) -> Outcome:
    """ginkgo writes a name as `[It] NAME [label, label]`."""
    name = case.get("name", "").removeprefix("[It] ").rpartition(" [")[0]
    seconds = float(case.get("time", "0"))
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            return Outcome(name, seconds, _short(found.get("message") or found.text or kind))
    return Outcome(name, seconds)


def _short(message: str) -> str:
    """The first lines, without the dump of an object that follows them, and what that object says is wrong with it."""
    lines = [line.strip() for line in message.splitlines()]
    dump = next((place for place, line in enumerate(lines) if DUMP.match(line)), len(lines))
    said = [line for line in lines[dump:] if line.startswith(SAYS) and line.partition(": ")[2] not in DULL]
    return " ".join([*lines[:dump], *dict.fromkeys(said)])[:WIDTH]
