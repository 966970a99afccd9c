import contextlib
import os
import platform
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tool.conftest import Unit

KERNEL = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
OUTPUTS = {
    "nothing": "",
    "empty lines": "printf '\\n\\na\\n\\n'",
    "NUL and any byte": "printf 'a\\0b\\377\\001\\n\\0'",
    "no newline at the end": "printf 'a\\nb'",
    "only a newline": "echo",
    "exactly one piece": "head -c 16384 /dev/zero | tr '\\0' x; echo",
    "one byte more than a piece": "head -c 16385 /dev/zero | tr '\\0' x; echo",
    "two pieces and no newline": "head -c 32768 /dev/zero | tr '\\0' x",
    "a line of 1 MB": "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo after",
    "200,000 lines": "seq 200000",
    "random bytes": "cat $0",
}


@pytest.mark.parametrize("script", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_logs_give_back_each_byte(unit: Unit, script: str) -> None:
    noise = unit.at / "noise"
    noise.write_bytes(os.urandom(3_000_000))
    wanted = subprocess.run(["sh", "-c", script, str(noise)], stdout=subprocess.PIPE, check=True).stdout
    assert unit.run("sh", "-c", script, str(noise)) == (0, "")
    assert unit.logs() == wanted


@pytest.mark.parametrize("script", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_each_record_has_a_prefix_of_fixed_width(unit: Unit, script: str) -> None:
    unit.run("sh", "-c", script, "/dev/null")
    for record in unit.log().read_bytes().splitlines(keepends=True)[:1000] if "NUL" not in script else []:
        assert record[29:31] == b"Z "
        assert record[31:40] in (b"stdout F ", b"stdout P ")
        assert len(record) <= 40 + 16384 + 1


def test_both_streams_are_kept_apart(unit: Unit) -> None:
    unit.sh("seq 1 5000; seq 1 5000 | sed s/^/e/ >&2")
    records = unit.log().read_bytes().splitlines()
    assert [r[40:] for r in records if r[31:37] == b"stdout"] == [b"%d" % n for n in range(1, 5001)]
    assert [r[40:] for r in records if r[31:37] == b"stderr"] == [b"e%d" % n for n in range(1, 5001)]


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", -9), ("kill -SEGV $$", -11)]
)
def test_it_ends_as_the_child_does(unit: Unit, script: str, code: int) -> None:
    assert unit.sh(script) == code


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN + 3]
)
def test_signals_reach_the_child(unit: Unit, number: int) -> None:
    script = f"trap 'echo got; exit 9' {int(number)}; echo ready; while :; do sleep 0.02; done"
    with unit.start("sh", "-c", script) as process:
        wait_for_text(unit.log(), b"ready")
        process.send_signal(number)
        assert process.wait(10) == 9
    assert unit.logs() == b"ready\ngot\n"


def wait_for_text(file: Path, text: bytes) -> None:
    while not file.exists() or text not in file.read_bytes():
        os.sched_yield()


def test_the_supervisor_and_the_child_have_cgroups_of_their_own(unit: Unit) -> None:
    unit.sh("grep ^0:: /proc/self/cgroup; grep ^0:: /proc/$PPID/cgroup; cat; echo $SYSTEMD_LOG_TARGET")
    here = f"0::/{unit.cgroup.name}"
    assert unit.logs().decode() == f"{here}/supervisor\n{here}/shim\njournal\n"


def test_run_file_names_attempt_invocation_start_and_cgroup(unit: Unit) -> None:
    unit.facts.write_text("{}\n{}\n")
    unit.sh("exit 0")
    number, invocation, started, cgroup, _, began, _ = (unit.at / "run").read_text().split()
    assert (number, invocation, cgroup, began) == ("2", "id-1", f"/{unit.cgroup.name}", "0")
    assert int(started) == pytest.approx(unit.log(2).stat().st_mtime_ns, abs=60e9)


def test_a_new_attempt_finds_a_fresh_root_and_an_empty_termination_log(unit: Unit, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    skeleton = unit.at / "skeleton"
    (skeleton / "etc").mkdir()
    (skeleton / "etc/hostname").write_text("pod\n")
    (skeleton / "etc/hostname").chmod(0o640)
    os.chown(skeleton / "etc/hostname", 7, 8)
    (skeleton / "link").symlink_to("etc/hostname")
    (skeleton / "tmp").mkdir()
    (skeleton / "tmp").chmod(0o1777)
    deep = "; ".join(["mkdir -p a/b", f"ln -s {outside} a/b/link", "touch a/.hidden", "mkfifo p", "echo changed > etc/hostname"])
    nest = "i=0; while [ $i -lt 3000 ]; do mkdir d; cd d; i=$((i+1)); done"
    unit.sh(f"cd {unit.at}/root; {deep}; echo said > {unit.at}/termination-log; {nest}")
    assert unit.sh("exit 0") == 0

    root = unit.at / "root"
    assert sorted(path.name for path in root.iterdir()) == ["etc", "link", "tmp"]
    found = (root / "etc/hostname").stat()
    assert (root / "link").read_text() == "pod\n"
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 7, 8)
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert (outside / "precious").read_text() == "kept"
    said = (unit.at / "termination-log").stat()
    assert (said.st_size, stat.S_IMODE(said.st_mode)) == (0, 0o666)


def test_a_root_begins_with_its_images_tree(unit: Unit, tmp_path: Path) -> None:
    """What the image has stays; directories are joined, also where the image has a link in their place."""
    image = tmp_path / "image"
    for name in ("bin", "etc", "run", "var"):
        (image / name).mkdir(parents=True)
    (image / "etc/passwd").write_text("the image's\n")
    (image / "bin/su").write_text("#!/bin/sh\n")
    (image / "var/run").symlink_to("/run")
    for path in (image / "bin/su", image / "bin", image / "etc", image / "var", image):
        path.chmod(0o555)
    skeleton = unit.at / "skeleton"
    (skeleton / "etc").mkdir()
    (skeleton / "etc/passwd").write_text("the skeleton's\n")
    (skeleton / "etc/hosts").touch()
    (skeleton / "var/run/secrets").mkdir(parents=True)
    (skeleton / "tmp").mkdir()
    (skeleton / "tmp").chmod(0o1777)
    (unit.at / "skeleton.image").write_text(f"{image}\n4755 /bin/su\n")
    assert unit.run("true") == (0, "")
    assert unit.run("true") == (0, "")
    root = unit.at / "root"
    assert (root / "etc/passwd").read_text() == "the image's\n"
    assert (root / "etc/hosts").exists()
    assert (root / "run/secrets").is_dir()
    assert os.readlink(root / "var/run") == "/run"
    assert [stat.S_IMODE((root / path).stat().st_mode) for path in ("bin/su", "bin", "tmp")] == [0o4755, 0o755, 0o1777]


def test_a_mode_of_a_file_that_the_image_lacks_is_an_error(unit: Unit, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    (unit.at / "skeleton.image").write_text(f"{image}\n4755 /bin/su\n")
    code, said = unit.run("true")
    assert (code, said) == (1, "vktool: can't set the mode of /bin/su in the root: No such file or directory\n")


def test_a_mount_below_the_root_is_not_emptied(unit: Unit, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    mounted = unit.at / "root/a/mounted"
    mounted.mkdir(parents=True)
    subprocess.run(["mount", "--bind", precious, mounted], check=True)
    try:
        code, said = unit.run("true")
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert code == 1
    assert said.startswith("vktool: can't remove ")
    assert (precious / "file").exists()


def test_a_program_that_is_not_there_is_told_to_the_journal(unit: Unit) -> None:
    assert unit.run("/nope") == (1, "vktool: exec /nope: No such file or directory\n")
    assert unit.logs() == b""


def test_a_record_torn_by_a_crash_does_not_swallow_the_next(unit: Unit) -> None:
    unit.log().write_bytes(b"2026-01-02T15:00:00.000000000Z stdout F whole\n2026-01-02T15")
    unit.sh("echo next")
    assert unit.logs() == b"whole\nnext\n"


def test_a_full_disk_loses_output_and_never_blocks(unit: Unit, tmp_path: Path) -> None:
    small = unit.at / "logs"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        code, said = unit.run("sh", "-c", "seq 100000; exit 5")
        kept = unit.logs()
    finally:
        subprocess.run(["umount", small], check=True)
    assert code == 5
    assert said.endswith("bytes of output were lost: the log can't be written\n")
    assert b"".join(b"%d\n" % n for n in range(1, 100001)).startswith(kept[:50000])
    assert set(kept.splitlines()) <= {b"%d" % n for n in range(1, 100001)}


def test_a_pipe_that_outlives_the_child_is_waited_for_only_briefly(unit: Unit) -> None:
    assert unit.sh("echo said; sleep 30 & exit 4") == 4
    assert unit.logs() == b"said\n"


def test_nothing_runs_before_the_sandbox_is_there(unit: Unit) -> None:
    (unit.at / "sandbox").unlink()
    with unit.start("sh", "-c", "exit 7") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        (unit.at / "sandbox").touch()
        assert process.wait(5) == 7


SAYS = """
import os, socket, sys, time
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
to.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\\0"))
to.send(f"STATUS=Container running.\\nX_NSPAWN_LEADER_PID={sys.argv[1]}".encode())
to.send(b"READY=1\\n")
time.sleep(float(sys.argv[2]))
sys.exit(int(sys.argv[3]))
"""


def heard(unit: Unit, leader: int, lives_s: float, code: int) -> list[bytes]:
    """What systemd hears of a child that says READY for `leader`, lives on and exits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(unit.at / "notify"))
        with unit.start(sys.executable, "-c", SAYS, str(leader), str(lives_s), str(code), notify=unit.at / "notify") as process:
            assert process.wait(20) == code
        systemd.setblocking(False)
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(systemd.recv(4096))
        return messages


def test_ready_is_passed_on_once_the_program_runs(unit: Unit) -> None:
    with subprocess.Popen(["sleep", "60"]) as program:
        assert heard(unit, program.pid, 0.2, 3) == [b"STATUS=Container running.", b"READY=1"]
        program.kill()


@pytest.mark.parametrize(("code", "ready"), [(1, False), (0, True)], ids=["could not be executed", "was done at once"])
def test_ready_for_a_program_that_was_never_seen_depends_on_its_end(unit: Unit, code: int, *, ready: bool) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert (b"READY=1" in heard(unit, gone.pid, 0.1, code)) is ready


def test_a_signal_that_was_ignored_before_is_not_ignored_inside(unit: Unit) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert unit.sh("kill -INT $$; exit 3") == -signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


# As nspawn is to `init` where it makes no PID namespace: it starts it among mounts of its own, and tells 1 where a signal ended it.
NSPAWN = 'unshare --mount /proc/self/fd/3 init "$@"; [ $? -gt 128 ] && exit 1'
WHO = b"0\0000\0000\0-\0-\0000\0/\0001\0PATH=/usr/bin:/bin\0000\0"


@pytest.mark.skipif(KERNEL < (6, 15), reason="an older kernel does not tell how another's child has ended")
@pytest.mark.parametrize(("script", "code", "number"), [("exit 1", 1, 0), ("kill -TERM $$", 143, 15), ("kill -35 $$", 163, 35)])
def test_a_signal_is_known_though_nspawn_exits_with_1(unit: Unit, script: str, code: int, number: int) -> None:
    (unit.at / "identity").write_bytes(WHO)
    with unit.start("sh", "-c", NSPAWN, "nspawn", "sh", "-c", script, options=["--init"]) as process:
        assert process.wait(20) == code
    assert (unit.at / "run").read_text().split()[-1] == str(number)


@pytest.mark.parametrize(("told", "code", "number"), [(0, 130, signal.SIGINT), (133, 129, signal.SIGHUP), (1, 1, 0), (3, 3, 0)])
def test_what_is_stopped_before_it_begins_has_not_ended_well(unit: Unit, told: int, code: int, number: int) -> None:
    """nspawn takes a SIGINT to its machine's first process for a power-off, and a SIGHUP for a reboot."""
    (unit.at / "identity").write_bytes(WHO)
    with unit.start("sh", "-c", f"exit {told}", options=["--init"]) as process:
        assert process.wait(20) == code
    assert (unit.at / "run").read_text().split()[-1] == str(int(number))
