import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from tests.tool.conftest import ALL, DEFAULT, PATH, Container, run


def status_of(command: list[str]) -> dict[str, str]:
    code, out, _ = run([*command, "cat", "/proc/self/status"])
    assert code == 0
    return dict(line.split(":\t", 1) for line in out.splitlines() if ":\t" in line)


def test_root_has_the_capabilities_of_the_container(container: Container) -> None:
    status = status_of(container.command())
    assert [int(status[f"Cap{name}"], 16) for name in ("Bnd", "Prm", "Eff", "Inh", "Amb")] == [DEFAULT, DEFAULT, DEFAULT, 0, 0]


def test_a_user_has_ids_groups_and_no_capabilities(container: Container) -> None:
    status = status_of(container.command(user=(1000, 2000, "3000,4000"), nnp=True))
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["2000"] * 4
    assert status["Groups"].split() == ["3000", "4000"]
    assert status["NoNewPrivs"] == "1"
    assert [int(status[f"Cap{name}"], 16) for name in ("Bnd", "Prm", "Eff", "Inh", "Amb")] == [DEFAULT, 0, 0, 0, 0]


def test_it_is_in_all_namespaces_and_in_its_own_cgroup(container: Container) -> None:
    same = "for n in mnt uts ipc net pid cgroup; do [ /proc/self/ns/$n -ef /proc/1/ns/$n ] && echo $n; done"
    code, out, _ = run(container.command("sh", "-c", f"hostname; {same}; cat /proc/self/cgroup", caps=ALL))
    assert code == 0
    assert out.splitlines()[:7] == ["box", "mnt", "uts", "ipc", "net", "pid", "cgroup"]
    assert "0::/exec-1" in out.splitlines()
    assert container.left() == []


def test_directory_and_environment_are_those_of_the_spec(container: Container) -> None:
    code, out, _ = run(container.command("env", cwd="/tmp", env={**PATH, "A": "line\nline", "PWD": "/tmp"}))
    assert (code, out) == (0, "PATH=/usr/bin:/bin\nA=line\nline\nPWD=/tmp\n")
    assert run(container.command("pwd", cwd="/usr"))[1] == "/usr\n"


def test_streams_are_the_commands_own(container: Container) -> None:
    assert run(container.command("sh", "-c", "cat; echo err >&2"), b"in\0put") == (0, "in\0put", "err\n")


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 42", 42), ("exit 127", 127), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_exit_codes(container: Container, script: str, code: int) -> None:
    assert run(container.command("sh", "-c", script)) == (code, "", "")


@pytest.mark.parametrize(
    ("argv", "options", "code", "message"),
    [
        pytest.param("nope", {}, 127, 'exec: "nope": executable file not found in $PATH', id="not in the PATH"),
        pytest.param("sh", {"env": {"PATH": "/nowhere"}}, 127, 'exec: "sh": executable file not found in $PATH', id="another PATH"),
        pytest.param("/nope", {}, 127, 'exec: "/nope": No such file or directory', id="no such path"),
        pytest.param("", {}, 127, 'exec: "": executable file not found in $PATH', id="no name"),
        pytest.param("/etc/passwd", {}, 126, 'exec: "/etc/passwd": Permission denied', id="not executable"),
        pytest.param(
            "sh", {"cwd": "/nope"}, 126, 'exec: "sh": working directory /nope: No such file or directory', id="no directory"
        ),
    ],
)
@pytest.mark.parametrize("tty", ["tty", "notty"])
def test_what_cannot_run_is_told_with_the_nonce(
    container: Container, argv: str, options: dict[str, str], code: int, message: str, tty: str
) -> None:
    command = container.command(argv, tty=tty, **options)  # type: ignore[arg-type]  # a table of keywords
    assert run(command) == (code, "", f"NONCE {message}\n")
    assert container.left() == []


def test_a_path_with_no_path_set_is_the_usual_one(container: Container) -> None:
    assert run(container.command("true", env={}))[0] == 0


@pytest.mark.parametrize("broken", ["run file", "process"])
def test_no_container_is_exit_125(container: Container, broken: str) -> None:
    command = container.command("true")
    if broken == "run file":
        (container.unit.at / "run").unlink()
    else:
        (container.unit.at / "run").write_text("0 id-1 1 /elsewhere\n")
    code, out, err = run(command)
    assert (code, out) == (125, "")
    assert err.startswith("NONCE the container ")


def test_what_the_command_leaves_behind_is_killed(container: Container) -> None:
    code, out, _ = run(container.command("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"))
    assert code == 0
    assert container.left() == []
    alive = f"grep '^State:.[^Z]' /proc/{out.strip()}/status"  # the init of this container reaps nobody
    assert run(container.command("sh", "-c", alive))[1] == ""


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


SLEEPER = ("sh", "-c", "echo ready; sleep 1000 & wait")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_client_that_is_gone_ends_the_command(container: Container, stream: str) -> None:
    with start(container.command(*SLEEPER)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        getattr(process, stream).close()
        assert process.wait(10) == 137
    assert container.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command(container: Container, number: int) -> None:
    with start(container.command(*SLEEPER)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(10) == 137
    assert container.left() == []


def test_a_closed_stdin_is_not_a_client_that_is_gone(container: Container) -> None:
    with start(container.command("sh", "-c", "cat; sleep 0.1; echo done")) as process:
        assert process.communicate(b"in\n", timeout=10) == (b"in\ndone\n", b"")
        assert process.returncode == 0


def test_the_watcher_itself_is_outside(container: Container) -> None:
    with start(container.command(*SLEEPER)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert "exec-1" not in Path(f"/proc/{process.pid}/cgroup").read_text()
        process.kill()
        # Its death takes the command itself along; what that had started stays for the unit's end.
        process.wait(10)


class Terminal:
    """The terminal that sshd would give, and the client at its other end."""

    def __init__(self, command: list[str], rows: int, columns: int) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read_until(self, text: str) -> str:
        seen = ""
        while text not in seen:
            seen += os.read(self.master, 4096).decode()
        return seen

    def read_all(self) -> bytes:
        seen = b""
        while True:
            try:
                seen += os.read(self.master, 65536)
            except OSError:  # EIO: the other side is closed
                return seen


def test_a_terminal_is_the_containers_own_and_has_the_clients_size(container: Container) -> None:
    terminal = Terminal(
        container.command("sh", "-c", "tty; stty size; id -u; stat -c %u $(tty)", tty="tty", user=(1000, 1000, "-")), 30, 100
    )
    assert terminal.read_all() == b"/dev/pts/0\r\n30 100\r\n1000\r\n1000\r\n"
    assert terminal.process.wait(10) == 0
    os.close(terminal.master)


def test_a_terminal_is_resized_and_typed_into(container: Container) -> None:
    loop = "trap 'stty size' WINCH; echo ready; while :; do read l && echo got $l; done"  # a signal interrupts `read`
    terminal = Terminal(container.command("sh", "-c", loop, tty="tty"), 5, 5)
    terminal.read_until("ready\r\n")
    terminal.type("a word\n")
    assert "a word\r\n" in terminal.read_until("got a word\r\n")
    terminal.resize(44, 55)
    terminal.type("\n")
    terminal.read_until("44 55\r\n")
    terminal.type("again\n")
    terminal.read_until("got again\r\n")
    terminal.type("\x03")  # Ctrl-C is a signal inside, and no more than that outside
    terminal.read_all()
    assert terminal.process.wait(10) == 130
    os.close(terminal.master)


def test_a_terminals_last_output_arrives(container: Container) -> None:
    terminal = Terminal(container.command("seq", "20000", tty="tty"), 5, 5)
    assert terminal.read_all() == b"".join(b"%d\r\n" % n for n in range(1, 20001))
    assert terminal.process.wait(10) == 0
    os.close(terminal.master)


def test_a_terminal_that_hangs_up_ends_the_command(container: Container) -> None:
    terminal = Terminal(container.command("sh", "-c", "trap '' HUP; echo ready; sleep 1000", tty="tty"), 5, 5)
    terminal.read_until("ready")
    os.close(terminal.master)
    assert terminal.process.wait(10) == 137
    assert container.left() == []
