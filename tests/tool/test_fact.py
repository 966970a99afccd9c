import base64
import json
import os
import socket
import time
from pathlib import Path

import pytest

from tests.tool.conftest import ROOT_USER, Unit

KILLED = "Container vktest terminated by signal KILL.\n"
EXECV = "execv(/nope) failed: No such file or directory\n"
STAT = "Failed to stat /nope: No such file or directory\n"


@pytest.mark.parametrize(
    ("result", "code", "status", "journal", "signal", "message"),
    [
        pytest.param("success", "exited", "0", "", "", b"", id="exit 0"),
        pytest.param("exit-code", "exited", "1", "", "", b"", id="exit 1"),
        pytest.param("exit-code", "exited", "1", KILLED, "KILL", b"", id="a signal that nspawn tells of"),
        pytest.param("exit-code", "exited", "1", STAT, "START", STAT.strip().encode(), id="nspawn could not set it up"),
        pytest.param("exit-code", "exited", "1", "vktool: /x: no\n", "START", b"vktool: /x: no", id="not even started"),
        pytest.param("exit-code", "exited", "3", KILLED, "", b"", id="only exit 1 asks the journal"),
        pytest.param("timeout", "killed", "KILL", "", "KILL", b"", id="nspawn killed"),
        pytest.param("core-dump", "dumped", "SEGV", "", "SEGV", b"", id="nspawn dumped core"),
        pytest.param("resources", "", "", "", "", b"", id="never executed"),
    ],
)
def test_the_end_is_told(unit: Unit, result: str, code: str, status: str, journal: str, signal: str, message: bytes) -> None:
    unit.sh("exit 0")
    unit.journal(f"Starting\n{journal}Done\n")
    fact = unit.fact(result, code, status)
    assert (fact["result"], fact["code"], fact["status"], fact["signal"]) == (result, code, status, signal)
    assert base64.b64decode(fact["message"]) == message


@pytest.mark.parametrize(
    ("output", "journal", "signal"),
    [
        pytest.param(EXECV, "", "START", id="program missing"),
        pytest.param(EXECV + "more\n", "", "", id="a program that says the same and more"),
        pytest.param("hello\n", STAT, "", id="a program that ran, and nspawn that failed to clean up"),
        pytest.param("hello\n", KILLED, "KILL", id="a program that ran, and was killed"),
    ],
)
def test_the_log_tells_whether_the_program_ran(unit: Unit, output: str, journal: str, signal: str) -> None:
    unit.sh(f"printf '{output}' >&2")
    unit.journal(journal)
    fact = unit.fact("exit-code", "exited", "1")
    assert fact["signal"] == signal
    assert base64.b64decode(fact["message"]) == (EXECV.strip().encode() if signal == "START" else b"")


def test_words_of_nspawn_are_known_where_the_journal_lacks_their_invocation(unit: Unit) -> None:
    """A busy one takes them in when nspawn is gone: it knows the process, and no more of it."""
    with unit.start("sh", "-c", "echo $$; exit 1") as process:
        process.wait(20)
    nspawn = unit.logs().decode().strip()
    unit.journal(KILLED, f"+ _PID={nspawn} SYSLOG_IDENTIFIER=systemd-nspawn")
    assert unit.fact("exit-code", "exited", "1")["signal"] == "KILL"


def test_a_signal_that_run_knows_of_needs_no_journal(unit: Unit) -> None:
    unit.sh("exit 0")
    (unit.at / "run").write_text((unit.at / "run").read_text().removesuffix(" 0\n") + " 15\n")
    unit.journal(KILLED)
    assert unit.fact("exit-code", "exited", "143")["signal"] == "15"


LIE = "vktool: can't mount the volume for /x: No such device\n"


@pytest.mark.parametrize("said", [LIE, EXECV, STAT], ids=["as vktool", "as nspawn for a program", "as nspawn"])
def test_words_of_a_program_that_ran_are_its_own(unit: Unit, said: str) -> None:
    unit.boot("sh", "-c", f'printf "{said}" >&2; exit 1')
    assert unit.fact("exit-code", "exited", "1")["signal"] == ""


@pytest.mark.parametrize("said", [LIE, STAT], ids=["as vktool", "as nspawn"])
def test_words_of_a_service_are_its_own_also_in_the_journal(unit: Unit, said: str) -> None:
    with unit.serve(ROOT_USER, "sh", "-c", f'printf "{said}" >&2; exit 1') as process:
        process.communicate(timeout=60)
    unit.journal(said)
    assert unit.fact("exit-code", "exited", "1")["signal"] == ""


@pytest.mark.parametrize(
    ("program", "before", "message"),
    [
        pytest.param("no-such-program", "", 'vktool: exec: "no-such-program": executable file not found in $PATH', id="by init"),
        pytest.param("true", f'printf "{LIE}" >&2; exit 1;', LIE.strip(), id="before init"),
    ],
)
def test_what_kept_a_program_from_running_is_told(unit: Unit, program: str, before: str, message: str) -> None:
    unit.journal(unit.boot(program, before=before))
    fact = unit.fact("exit-code", "exited", "1")
    assert (fact["signal"], base64.b64decode(fact["message"]).decode()) == ("START", message)


def test_it_asks_for_more_time_than_the_grace_of_a_pod_may_be(unit: Unit) -> None:
    unit.sh("exit 0")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(unit.at / "notify"))
        systemd.settimeout(10)
        unit.fact(notify=unit.at / "notify")
        assert systemd.recv(100) == b"EXTEND_TIMEOUT_USEC=30000000"


def test_a_fact_has_attempt_invocation_and_both_times(unit: Unit) -> None:
    before = time.time_ns()
    unit.sh("exit 0")
    fact = unit.fact()
    assert (fact["attempt"], fact["id"]) == (0, "id-1")
    assert before <= fact["started"] <= fact["finished"] <= time.time_ns()


def test_each_attempt_has_its_line_and_its_log(unit: Unit) -> None:
    for n in range(3):
        unit.run("echo", str(n), invocation=f"id-{n}")
        assert unit.fact(invocation=f"id-{n}")["attempt"] == n
        assert unit.log(n).read_bytes().endswith(b"%d\n" % n)
    assert not (unit.at / "run").exists()


@pytest.mark.parametrize("stale", ["", "0 id-0 17 /elsewhere\n", "garbage"], ids=["none", "of another attempt", "torn"])
def test_without_a_run_file_the_start_is_unknown(unit: Unit, stale: str) -> None:
    if stale:
        (unit.at / "run").write_text(stale)
    fact = unit.fact("signal", "killed", "KILL")
    assert (fact["attempt"], fact["started"], fact["oom"]) == (0, None, False)


def test_the_same_invocation_is_written_once(unit: Unit) -> None:
    unit.fact()
    unit.fact("signal", "killed", "KILL")
    assert len(unit.facts.read_bytes().splitlines()) == 1


def test_a_torn_line_is_ended_and_counts(unit: Unit) -> None:
    unit.facts.write_bytes(b'{"attempt":0}\n{"attem')
    assert unit.fact()["attempt"] == 2
    assert [line[:12] for line in unit.facts.read_bytes().splitlines()] == [b'{"attempt":0', b'{"attem', b'{"attempt":2']


@pytest.mark.parametrize(
    ("script", "status", "policy", "message"),
    [
        pytest.param("printf why > $T", "0", "file", b"why", id="the file"),
        pytest.param("printf why > $T; echo log", "3", "fallback", b"why", id="the file comes first"),
        pytest.param("head -c 5000 /dev/zero > $T; printf end >> $T", "0", "file", bytes(4093) + b"end", id="its last 4096 bytes"),
        pytest.param("echo log", "3", "file", b"", id="no fallback without the policy"),
        pytest.param("echo log", "0", "fallback", b"", id="no fallback after success"),
        pytest.param("echo out; echo err >&2; printf end", "3", "fallback", b"out\nerr\nend", id="the log"),
        pytest.param("seq 100", "3", "fallback", b"".join(b"%d\n" % n for n in range(21, 101)), id="its last 80 lines"),
        pytest.param("head -c 99999 /dev/zero", "3", "fallback", bytes(2048), id="its last 2048 bytes"),
        pytest.param("true", "3", "fallback", b"", id="nothing at all"),
    ],
)
def test_termination_message(unit: Unit, script: str, status: str, policy: str, message: bytes) -> None:
    unit.sh(f"T={unit.at}/termination-log; {script}; exit {status}")
    assert base64.b64decode(unit.fact("x", "exited", status, policy=policy)["message"]) == message


def test_a_link_in_place_of_the_termination_log_is_not_followed(unit: Unit) -> None:
    unit.sh("exit 0")
    (unit.at / "termination-log").unlink()
    (unit.at / "termination-log").symlink_to("/etc/passwd")
    assert unit.fact()["message"] == ""


@pytest.mark.parametrize(("result", "oom"), [("oom-kill", True), ("exit-code", False)])
def test_out_of_memory_by_systemds_word(unit: Unit, result: str, oom: bool) -> None:
    unit.sh("exit 2")
    assert unit.fact(result, "exited", "2")["oom"] is oom


def test_a_line_is_json_whatever_systemd_says(unit: Unit) -> None:
    unit.fact('a"b\\c\n')
    assert json.loads(unit.facts.read_bytes())["result"] == 'a"b\\c\n'


def test_a_journal_that_hangs_is_given_up(unit: Unit) -> None:
    unit.sh("exit 1")
    (unit.at / "bin/journalctl").write_text("#!/bin/sh\nexec sleep 60\n")
    before = time.monotonic()
    assert unit.fact("exit-code", "exited", "1")["signal"] == ""
    assert time.monotonic() - before < 10


def test_leftovers_of_a_killed_nspawn_are_removed(unit: Unit) -> None:
    left = [f"/run/systemd/nspawn/{name}/vktest" for name in ("unix-export", "propagate")]
    for directory in left:
        os.makedirs(directory)
    root = unit.at / "root"
    root.mkdir()
    lock = Path(f"/run/systemd/nspawn/locks/inode-{root.stat().st_dev}:{root.stat().st_ino}")
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    unit.fact()
    assert [os.path.exists(it) for it in (*left, str(lock))] == [False, False, False]
