"""tests.support_table: what docs/pod-support.md says is what core/fields.py decides."""

from tests.support_table import FILE, markdown
from vknix.core.fields import FIELDS
from vknix.core.handlers import Handler
from vknix.core.rule import YES, Rule, Verdict, no

UNIT_ALONE = {Handler.UNIT: no("no walls", "leave it out", False)}
RULES = {
    "spec.a.one": YES,
    "spec.a.two": YES,
    "spec.a.other": no("not here", "do without", 0),
    "spec.containers[].name": YES,
    "spec.containers[].root": Rule(Verdict.HONOURED, instead=UNIT_ALONE),
    "spec.initContainers[].name": YES,
    "spec.initContainers[].root": no("never first", "put it last"),
}


def rows(*of: str) -> list[str]:
    return [line for line in markdown(RULES).splitlines() if line.startswith("| `") and any(f"`{each}`" in line for each in of)]


def test_fields_of_one_parent_with_one_verdict_share_a_row() -> None:
    assert rows("a.one") == ["| `a.one`, `.two` | yes | same | same |"]


def test_a_refusal_shows_its_reason_its_remedy_and_what_it_takes() -> None:
    assert rows("a.other") == ["| `a.other` | no (`0`): not here; do without | same | same |"]


def test_a_handler_that_differs_has_its_own_words_and_init_containers_show_what_differs() -> None:
    assert rows("root") == [
        "| `root` | yes | no (`false`): no walls; leave it out | same |",
        "| `root` | no: never first; put it last | same | same |",
    ]
    assert len(rows("name")) == 1


def test_the_docs_are_those_of_this_table() -> None:
    assert FILE.read_text() == markdown(FIELDS), "run scripts/docs"
