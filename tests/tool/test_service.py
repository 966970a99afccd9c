"""`vktool run ... service`: a program of the host, with what the Pod says of it and no more."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.tool.conftest import Unit

CHOWN = 1


def identity(
    *, caps: int = CHOWN, user: tuple[int, int, str] = (0, 0, "-"), nnp: bool = False, cwd: str = "/", env: Mapping[str, str]
) -> bytes:
    strings = [f"{name}={value}" for name, value in env.items()]
    fields = [f"{caps:x}", *map(str, user), "n" if nnp else "-", "0", cwd, str(len(env)), *strings, "0"]
    return b"".join(field.encode() + b"\0" for field in fields)


PLAIN = identity(env={"PATH": "/usr/bin:/bin", "A": "b c"})


def end(unit: Unit, who: bytes, *argv: str, netns: str = "-") -> tuple[int, str]:
    """Exit code and what goes to the journal."""
    with unit.serve(who, *argv, netns=netns) as process:
        said = process.communicate(timeout=60)[1]
        return process.returncode, said.decode()


def test_it_has_its_own_environment_and_the_hosts_root(unit: Unit) -> None:
    assert end(unit, PLAIN, "sh", "-c", "env | sort; readlink /proc/self/root; exit 7")[0] == 7
    lines = unit.logs().decode().split("\n")
    assert "A=b c" in lines
    assert "/" in lines
    assert not any(line.startswith(("INVOCATION_ID", "NOTIFY_SOCKET")) for line in lines)


def test_it_is_who_the_pod_says(unit: Unit) -> None:
    who = identity(user=(65534, 65533, "7,8"), nnp=True, cwd="/usr", env={"PATH": "/usr/bin:/bin"})
    assert end(unit, who, "sh", "-c", "id -u; id -g; id -G; pwd; grep -E 'NoNewPrivs|CapBnd|CapEff' /proc/self/status")[0] == 0
    told = unit.logs().decode().split()
    assert told[:6] == ["65534", "65533", "65533", "7", "8", "/usr"]
    assert told[6:] == ["CapEff:", "0" * 16, "CapBnd:", "0" * 15 + "1", "NoNewPrivs:", "1"]


def test_a_program_that_is_not_there_is_said_to_the_journal(unit: Unit) -> None:
    code, said = end(unit, PLAIN, "no-such-program")
    unit.journal(said)
    assert (code, said) == (1, 'vktool: exec: "no-such-program": executable file not found in $PATH\n')
    assert unit.fact("exit-code", "exited", "1")["signal"] == "START"


def test_a_network_that_is_not_there_is_said(unit: Unit) -> None:
    assert end(unit, PLAIN, "true", netns="/run/netns/no-such") == (
        1,
        "vktool: the Pod's network: /run/netns/no-such: No such file or directory\n",
    )


def test_it_runs_in_the_network_that_is_named(unit: Unit, tmp_path: Path) -> None:
    name = f"vktest-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        assert end(unit, PLAIN, "ls", "/sys/class/net", netns=f"/run/netns/{name}")[0] == 0
        assert end(unit, PLAIN, "sh", "-c", "readlink /proc/self/ns/net", netns=f"/run/netns/{name}")[0] == 0
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    assert os.readlink("/proc/self/ns/net") not in unit.logs().decode()


def test_a_signal_reaches_it_and_its_end_is_ours(unit: Unit) -> None:
    with unit.serve(PLAIN, "sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done") as process:
        while b"up" not in unit.log().read_bytes() if unit.log().exists() else True:
            os.sched_yield()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 5


def test_it_is_ready_once_its_program_runs(unit: Unit, tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(10)
        with unit.serve(PLAIN, "sleep", "60", notify=address) as process:
            assert systemd.recv(100) == b"READY=1"
            (pid,) = (unit.cgroup / "payload/cgroup.procs").read_text().split()
            assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == -signal.SIGTERM


def test_what_cant_be_executed_is_never_ready(unit: Unit, tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.setblocking(False)
        with unit.serve(PLAIN, "no-such-program", notify=address) as process:
            process.wait(timeout=10)
        with pytest.raises(BlockingIOError):
            systemd.recv(100)
