import fcntl
import os
import signal
import subprocess

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


def follow(unit: Unit, tail: int = -1, limit: int = -1) -> subprocess.Popen[bytes]:
    return subprocess.Popen(unit.logs_command(how="follow", tail=tail, limit=limit), stdout=subprocess.PIPE)


def wait_for_log(unit: Unit) -> None:
    while not unit.log().exists():
        os.sched_yield()


def test_follow_sends_lines_as_they_come_and_ends_with_the_attempt(unit: Unit) -> None:
    fifo = unit.at / "fifo"
    os.mkfifo(fifo)
    with unit.start("sh", "-c", f"echo first; cat {fifo}; printf last") as process:
        wait_for_log(unit)
        with follow(unit) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"first\n"
            with fifo.open("wb", buffering=0) as typed:
                for line in (b"second\n", b"\n", b"third\n"):
                    typed.write(line)
                    assert reader.stdout.readline() == line
            assert reader.stdout.read() == b"last"
            assert reader.wait(10) == 0
        assert process.wait(10) == 0


def test_follow_loses_nothing_of_a_fast_writer(unit: Unit) -> None:
    with unit.start("seq", "300000") as process:
        wait_for_log(unit)
        with follow(unit) as reader:
            assert reader.communicate(timeout=60)[0] == b"".join(b"%d\n" % n for n in range(1, 300001))
        assert process.wait(10) == 0


def test_follow_ends_when_the_writer_is_killed(unit: Unit) -> None:
    with unit.start("sh", "-c", "echo first; exec sleep 60") as process:
        wait_for_log(unit)
        with follow(unit) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"first\n"
            process.kill()
            assert reader.wait(10) == 0


@pytest.mark.parametrize(("tail", "limit", "wanted"), [(1, -1, b"three\n"), (0, -1, b""), (-1, 5, b"one\nt")])
def test_follow_of_an_ended_attempt_is_its_log(unit: Unit, tail: int, limit: int, wanted: bytes) -> None:
    unit.sh("echo one; echo two; echo three")
    with follow(unit, tail, limit) as reader:
        assert reader.communicate(timeout=10)[0] == wanted


def test_follow_ends_when_its_client_is_gone(unit: Unit) -> None:
    unit.log().touch()
    with unit.log().open() as writer, follow(unit) as reader:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert reader.stdout is not None
        reader.stdout.close()
        assert reader.wait(10) in (0, -signal.SIGPIPE)
