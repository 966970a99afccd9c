import base64
import fcntl
import itertools
import os
import signal
import subprocess
from dataclasses import dataclass
from functools import partial
from typing import IO

import pytest

from tests.tool.conftest import Unit

START = 1767366000_000000000  # 2026-01-02T15:00:00Z
RECORDS = [
    (1, "stdout F", b"one"),
    (2, "stdout P", b"tw"),
    (3, "stdout F", b"o"),
    (4, "stderr F", b""),
    (5, "stdout F", b"four"),
    (6, "stdout P", b"five"),
]


@pytest.mark.parametrize(
    ("tail", "since", "limit", "wanted"),
    [
        pytest.param(-1, 0, -1, b"one\ntwo\n\nfour\nfive", id="all"),
        pytest.param(0, 0, -1, b"", id="no line"),
        pytest.param(1, 0, -1, b"five", id="an unfinished line is a line"),
        pytest.param(2, 0, -1, b"four\nfive", id="two lines"),
        pytest.param(3, 0, -1, b"\nfour\nfive", id="an empty line is a line"),
        pytest.param(4, 0, -1, b"two\n\nfour\nfive", id="pieces are one line"),
        pytest.param(5, 0, -1, b"one\ntwo\n\nfour\nfive", id="just all lines"),
        pytest.param(99, 0, -1, b"one\ntwo\n\nfour\nfive", id="more than there are"),
        pytest.param(-1, START + 5_000000000, -1, b"four\nfive", id="since is inclusive"),
        pytest.param(-1, START + 4_000000001, -1, b"four\nfive", id="since in nanoseconds"),
        pytest.param(1, START, -1, b"five", id="the tail is cut before since"),
        pytest.param(-1, 0, 6, b"one\ntw", id="the limit cuts a line"),
        pytest.param(2, 0, 3, b"fou", id="the limit comes last"),
        pytest.param(-1, 0, 0, b"", id="limit of nothing"),
    ],
)
def test_tail_since_and_limit(unit: Unit, tail: int, since: int, limit: int, wanted: bytes) -> None:
    unit.write_log(RECORDS)
    assert unit.logs(tail=tail, since=since, limit=limit) == wanted


def test_stamps_come_once_a_line(unit: Unit) -> None:
    unit.write_log(RECORDS[:4])
    at = b"2026-01-02T15:00:0%d.000000000Z "
    assert unit.logs(form="stamps") == at % 1 + b"one\n" + at % 2 + b"two\n" + at % 4 + b"\n"


@pytest.mark.parametrize("width", [0, 1, 37, 4000, 16384])
def test_tail_is_found_across_blocks(unit: Unit, width: int) -> None:
    count = 3 if width > 10000 else 5000
    unit.write_log([(n % 60, "stdout F", b"%0*d" % (width, n) if width else b"") for n in range(count * 3)])
    lines = [b"%0*d\n" % (width, n) if width else b"\n" for n in range(count * 3)]
    for tail in (1, 2, count, count * 3 - 1, count * 3, count * 3 + 1):
        assert unit.logs(tail=tail) == b"".join(lines[-tail:])


@pytest.mark.parametrize("content", [b"", b"\n", b"torn", b"\0" * 300000], ids=["empty", "newline", "torn", "zeros of a crash"])
@pytest.mark.parametrize("tail", [-1, 0, 1])
def test_an_odd_file_gives_nothing(unit: Unit, content: bytes, tail: int) -> None:
    unit.log().write_bytes(content)
    assert unit.logs(tail=tail) == b""


def test_no_log_is_exit_2(unit: Unit) -> None:
    done = subprocess.run(unit.logs_command(), capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr == b"vktool: %s: No such file or directory\n" % os.fsencode(unit.log())


@dataclass(frozen=True)
class Frame:
    end: int
    inside: bool
    records: list[bytes]

    @property
    def text(self) -> bytes:
        return b"".join(record[40:] + (b"\n" if record[38:39] == b"F" else b"") for record in self.records)


def frame(stream: IO[bytes] | None) -> Frame | None:
    """The next one; None at the end."""
    assert stream is not None
    head = stream.readline()
    if not head:
        return None
    end, inside, size = (int(word) for word in head.split())
    data = stream.read(size)
    assert len(data) == size
    assert not data or data.endswith(b"\n")
    return Frame(end, bool(inside), data.splitlines())


def frames(stream: IO[bytes] | None) -> list[Frame]:
    return list(iter(partial(frame, stream), None))


def next_text(stream: IO[bytes] | None) -> bytes:
    found = frame(stream)
    assert found is not None
    return found.text


def wait_for_log(unit: Unit) -> None:
    while not unit.log().exists():
        os.sched_yield()


def test_follow_sends_lines_as_they_come_and_ends_with_the_attempt(unit: Unit) -> None:
    fifo = unit.at / "fifo"
    os.mkfifo(fifo)
    with unit.start("sh", "-c", f"echo first; cat {fifo}; printf last") as process:
        wait_for_text(unit, b"first")
        with unit.follow() as reader:
            assert frame(reader.stdout) == Frame(unit.log().stat().st_size, inside=False, records=[])
            with fifo.open("wb", buffering=0) as typed:
                for line in (b"second\n", b"\n", b"third\n"):
                    typed.write(line)
                    assert next_text(reader.stdout) == line
            assert b"".join(each.text for each in frames(reader.stdout)) == b"last"
            assert reader.wait(10) == 0
        assert process.wait(10) == 0
    assert unit.logs() == b"first\nsecond\n\nthird\nlast"


def wait_for_text(unit: Unit, text: bytes) -> None:
    while not unit.log().exists() or text not in unit.log().read_bytes():
        os.sched_yield()


@pytest.mark.parametrize("limit", [0, 20_000, 300_000], ids=["one file", "many files", "some files"])
def test_follow_loses_nothing_of_a_fast_writer(unit: Unit, limit: int) -> None:
    with unit.start("seq", "300000", options=[f"--log={limit},1000"]) as process:
        wait_for_log(unit)
        with unit.follow() as reader:
            first, *rest = frames(reader.stdout)
            told = unit.logs(until=first.end) + b"".join(each.text for each in rest)
            assert told == b"".join(b"%d\n" % n for n in range(1, 300001))
            assert reader.wait(60) == 0
        assert process.wait(10) == 0


def test_what_was_told_by_frames_and_what_can_be_read_fit_together(unit: Unit) -> None:
    """From any frame's end on, up to any other's."""
    unit.run("true")
    script = "head -c 40000 /dev/zero | tr '\\0' x; i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); done"
    with unit.start("sh", "-c", f"{script}; {script}", options=["--log=2000,1000"]) as process:
        wait_for_log(unit)
        with unit.follow() as reader:
            told = frames(reader.stdout)
        assert process.wait(10) == 0
    whole = unit.logs()
    for before, after in itertools.pairwise(told):
        assert unit.logs(start=before.end, until=after.end) == after.text
        assert unit.logs(until=after.end) + unit.logs(start=after.end) == whole
        assert unit.logs(until=after.end, form="stamps") + unit.logs(start=after.end, form="stamps") == unit.logs(form="stamps")


def test_follow_ends_when_the_writer_is_killed(unit: Unit) -> None:
    with unit.start("sh", "-c", "echo first; exec sleep 60") as process:
        wait_for_text(unit, b"first")
        with unit.follow() as reader:
            assert frame(reader.stdout) is not None
            process.kill()
            assert reader.wait(10) == 0


def test_follow_of_an_ended_attempt_ends(unit: Unit) -> None:
    unit.sh("echo one; echo two; echo three")
    with unit.follow() as reader:
        assert frames(reader.stdout) == [Frame(unit.log().stat().st_size, inside=False, records=[])]
        assert reader.wait(10) == 0


def test_follow_ends_when_its_client_is_gone(unit: Unit) -> None:
    unit.log().touch()
    with unit.log().open() as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        with unit.follow() as reader:
            assert frame(reader.stdout) is not None
            assert reader.stdout is not None
            reader.stdout.close()
            assert reader.wait(10) in (0, -signal.SIGPIPE)


def files(unit: Unit) -> list[str]:
    return sorted(path.name for path in (unit.at / "logs").iterdir())


def test_a_full_log_is_cut_off_and_the_oldest_goes(unit: Unit) -> None:
    script = "i=0; while [ $i -lt 40 ]; do echo $i; i=$((i+1)); sleep 0.01; done"
    with unit.start("sh", "-c", script, options=["--log=100,3"]) as process:
        assert process.wait(20) == 0
    said = unit.logs()
    assert len(files(unit)) == 3
    assert said
    assert b"".join(b"%d\n" % n for n in range(40)).endswith(said)
    for tail in range(12):
        lines = said.splitlines(keepends=True)
        assert unit.logs(tail=tail) == b"".join(lines[max(0, len(lines) - tail) :])
    assert unit.logs(limit=3) == said[:3]


def test_a_line_is_in_one_file(unit: Unit) -> None:
    """But for one that is longer than two may be."""
    script = "head -c 20000 /dev/zero | tr '\\0' x; sleep 0.1; echo; sleep 0.1; echo after"
    with unit.start("sh", "-c", script, options=["--log=15000,9"]) as process:
        assert process.wait(20) == 0
    (cut,) = [name for name in files(unit) if name != "0.log"]
    assert (unit.at / "logs" / cut).read_bytes().endswith(b"x\n")
    assert unit.logs(tail=2) == b"x" * 20000 + b"\nafter\n"
    assert unit.logs(tail=1) == b"after\n"


def test_a_rotation_that_broke_off_is_gone_on_with(unit: Unit) -> None:
    """The host died between the two names."""
    unit.write_log(RECORDS[:3])
    (unit.at / "logs/0.log.0").hardlink_to(unit.log())
    assert unit.logs() == b"one\ntwo\n"
    with unit.start("sh", "-c", "echo more", options=["--log=50,3"]) as process:
        assert process.wait(20) == 0
    assert unit.logs() == b"one\ntwo\nmore\n"
    assert unit.logs(tail=1) == b"more\n"


def test_logs_of_the_last_two_attempts_are_kept(unit: Unit) -> None:
    for number in range(4):
        unit.facts.write_text("{}\n" * number)
        unit.sh(f"echo {number}")
    assert files(unit) == ["2.log", "3.log"]


def test_the_message_from_the_log_spans_its_files(unit: Unit) -> None:
    script = "for i in 1 2 3 4; do echo line $i; sleep 0.02; done; exit 3"
    with unit.start("sh", "-c", script, options=["--log=90,9"]) as process:
        assert process.wait(20) == 3
    assert len(files(unit)) > 1
    message = unit.fact("exit-code", status="3", policy="fallback")["message"]
    assert base64.b64decode(message) == b"line 1\nline 2\nline 3\nline 4\n"
