"""vknix.log: one line an event, for a person or a machine."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from vknix import log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_a_machine_gets_json_with_pod_and_host() -> None:
    out = io.StringIO()
    log.setup("info", out)
    with log.about(pod="u1"), log.about(host="h1"):
        logging.getLogger("vknix.x").info("started %s", "a\nb")
    logging.getLogger("vknix.x").debug("not shown")
    (line,) = map(json.loads, out.getvalue().splitlines())
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "logger": "vknix.x", "message": "started a\nb", "pod": "u1", "host": "h1"}


def test_the_context_ends_with_its_block() -> None:
    out = io.StringIO()
    log.setup("info", out)
    with log.about(pod="outer"):
        with log.about(pod="inner"):
            pass
        logging.getLogger("vknix").info("x")
    logging.getLogger("vknix").info("y")
    assert [json.loads(line).get("pod") for line in out.getvalue().splitlines()] == ["outer", None]


def test_a_trace_stays_on_one_line() -> None:
    out = io.StringIO()
    log.setup("info", out)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("vknix").exception("bug")
    (line,) = map(json.loads, out.getvalue().splitlines())
    assert "ValueError: boom" in line["trace"]


def test_a_person_gets_plain_text() -> None:
    out = Terminal()
    log.setup("debug", out)
    with log.about(pod="u1"):
        logging.getLogger("vknix").warning("look at %s", "this")
    assert out.getvalue().endswith("WARNING look at this  [pod=u1]\n")


def test_setting_up_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    log.setup("info", first)
    log.setup("error", second)
    logging.getLogger("vknix").error("x")
    assert (first.getvalue(), len(second.getvalue().splitlines())) == ("", 1)
