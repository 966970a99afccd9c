"""Attaching to a container that runs: `vktool run` on one side, `vktool attach` on the other, frames between them."""

import os
import select
import subprocess
from pathlib import Path
from typing import IO

import pytest

from tests.tool.conftest import Unit

ROOT_IDENTITY = b"\0".join([b"1ffffffffff", b"0", b"0", b"-", b"-", b"0", b"/", b"1", b"PATH=/usr/bin:/bin", b"0", b""])
Attached = subprocess.Popen[bytes]


def frame(kind: bytes, data: bytes = b"") -> bytes:
    return kind + len(data).to_bytes(2) + data


def send(client: Attached, *frames: bytes) -> None:
    assert client.stdin is not None
    client.stdin.write(b"".join(frames))
    client.stdin.flush()


def read_until(stream: IO[bytes] | None, text: bytes, within_s: float = 10.0) -> bytes:
    """All that comes, up to and with the text."""
    assert stream is not None
    got = b""
    while text not in got:
        assert select.select([stream], [], [], within_s)[0], got
        piece = os.read(stream.fileno(), 65536)
        assert piece, got
        got += piece
    return got


def wait_for(log: Path, text: bytes) -> None:
    while not log.exists() or text not in log.read_bytes():
        os.sched_yield()


def finish(client: Attached) -> bytes:
    """What else comes until it ends, which is well."""
    rest = client.communicate(timeout=10)[0]
    assert client.returncode == 0
    return rest


def test_output_is_seen_from_now_on_and_each_stream_apart(unit: Unit) -> None:
    script = "printf half; echo before >&2; read x; echo to stdout; echo to stderr >&2; printf 'no newline'; exit 7"
    with unit.start("sh", "-c", script, options=["--stdin"]) as process:
        wait_for(unit.log(), b"before")
        client = unit.attach()
        send(client, frame(b"i", b"go\n"))
        out, err = client.communicate(timeout=10)
        assert process.wait(10) == 7
    assert (client.returncode, out, err) == (0, b"to stdout\nno newline", b"to stderr\n")
    assert unit.logs().startswith(b"before\nhalf")


def test_what_has_no_end_of_line_yet_is_seen_at_once(unit: Unit) -> None:
    with unit.start("sh", "-c", "read x; printf 'name? '; read name; echo hello $name", options=["--stdin"]):
        client = unit.attach()
        send(client, frame(b"i", b"\n"))
        assert read_until(client.stdout, b"name? ") == b"name? "
        send(client, frame(b"i", b"pod\n"))
        assert finish(client) == b"hello pod\n"
    assert unit.logs() == b"name? hello pod\n"


def test_stdin_once_ends_with_the_first_session(unit: Unit) -> None:
    with unit.start("sh", "-c", "cat; echo stdin closed; exit 3", options=["--stdin-once"]) as process:
        client = unit.attach()
        send(client, frame(b"i", b"abcd\n"), frame(b"c"))
        assert finish(client) == b"abcd\nstdin closed\n"
        assert process.wait(10) == 3


def test_stdin_once_ends_where_the_first_client_is_gone(unit: Unit) -> None:
    with unit.start("sh", "-c", "cat; echo stdin closed", options=["--stdin-once"]) as process:
        client = unit.attach()
        send(client, frame(b"i", b"abcd\n"))
        read_until(client.stdout, b"abcd\n")
        client.kill()
        client.communicate()
        assert process.wait(10) == 0
    assert unit.logs() == b"abcd\nstdin closed\n"


def test_stdin_stays_open_between_sessions(unit: Unit) -> None:
    with unit.start("sh", "-c", "read a; read b; echo $a $b", options=["--stdin"]) as process:
        first = unit.attach()
        send(first, frame(b"i", b"one\n"), frame(b"c"))
        assert finish(first) == b""
        second = unit.attach()
        send(second, frame(b"i", b"two\n"))
        assert finish(second) == b"one two\n"
        assert process.wait(10) == 0


def test_container_without_stdin_ignores_input(unit: Unit) -> None:
    with unit.start("sh", "-c", "cat; echo up; sleep 0.5; echo end"):
        wait_for(unit.log(), b"up")
        client = unit.attach()
        send(client, frame(b"i", b"lost\n"), frame(b"c"))
        assert finish(client) == b"end\n"


def test_large_input_arrives_whole(unit: Unit) -> None:
    data = os.urandom(1_000_000)
    pieces = [frame(b"i", data[at : at + 4000]) for at in range(0, len(data), 4000)]
    with unit.start("sh", "-c", "sleep 0.2; sha256sum", options=["--stdin-once"]):
        client = unit.attach()
        send(client, *pieces, frame(b"c"))
        wanted = subprocess.run(["sha256sum"], input=data, stdout=subprocess.PIPE, check=True).stdout
        assert finish(client) == wanted


def test_client_that_does_not_read_holds_up_nothing(unit: Unit) -> None:
    with unit.start("sh", "-c", "read x; seq 500000; echo done", options=["--stdin"]) as process:
        client = unit.attach()
        send(client, frame(b"i", b"\n"))
        assert process.wait(30) == 0
        assert unit.logs().endswith(b"500000\ndone\n")
        assert finish(client) == unit.logs()


def test_input_that_nobody_reads_holds_up_nothing(unit: Unit) -> None:
    with unit.start("sh", "-c", "echo up; sleep 1; seq 1000", options=["--stdin"]) as process:
        client = unit.attach()
        send(client, *(frame(b"i", b"x" * 4000) for _ in range(30)))
        other = unit.attach()
        assert finish(other).endswith(b"1000\n")
        assert process.wait(10) == 0
        client.kill()
        client.communicate()


def test_container_that_has_closed_its_stdin_runs_on(unit: Unit) -> None:
    with unit.start("sh", "-c", "exec <&-; echo closed; sleep 0.5; echo end", options=["--stdin"]) as process:
        wait_for(unit.log(), b"closed")
        client = unit.attach()
        send(client, frame(b"i", b"x\n"))
        assert finish(client) == b"end\n"
        assert process.wait(10) == 0


def test_who_sends_no_frames_is_sent_away(unit: Unit) -> None:
    with unit.start("sh", "-c", "read x; echo end", options=["--stdin"]) as process:
        client = unit.attach()
        send(client, b"no frame at all")
        assert finish(client) == b""
        other = unit.attach()
        send(other, frame(b"i", b"\n"))
        assert finish(other) == b"end\n"
        assert process.wait(10) == 0


@pytest.mark.parametrize("left", [False, True], ids=["never ran", "has ended"])
def test_container_that_does_not_run_is_told_by_the_exit_code(unit: Unit, left: bool) -> None:
    if left:
        unit.sh("true")
    client = subprocess.run([unit.tool, "attach", unit.at / "run", unit.at / "logs"], capture_output=True, check=False, timeout=10)
    assert (client.returncode, client.stdout, client.stderr) == (3, b"", b"")


def test_service_with_a_terminal(unit: Unit) -> None:
    script = "trap 'echo interrupted' INT; trap 'stty size' WINCH; tty; echo ready; while :; do read x && echo got $x; done"
    with unit.serve(ROOT_IDENTITY, "bash", "-c", script, options=["--stdin-once", "--tty"]) as process:
        wait_for(unit.log(), b"ready")
        client = unit.attach()
        send(client, frame(b"s", bytes([0, 33, 0, 77])), frame(b"i", b"a\n"))
        read_until(client.stdout, b"got a")
        send(client, frame(b"i", b"\003"))
        read_until(client.stdout, b"interrupted")
        send(client, frame(b"c"))
        finish(client)
        process.kill()
    log = unit.logs()
    assert b"/dev/pts/" in log
    assert b"33 77\r\n" in log
