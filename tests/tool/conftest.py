"""The static host tool, compiled once, and a place where its verbs run as on a host: own files, own cgroup."""

import importlib.util
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
JOURNALCTL = """#!/bin/sh
[ "$1" = --sync ] && exit
case "$*" in *{match}*) cat {said};; esac
"""
DEFAULT = 0xA80425FB  # containerd's list
ALL = 2**64 - 1
INIT = "mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts && hostname box && echo ready && exec sleep 1000"
UNSHARE = ("unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--mount-proc", "sh", "-c", INIT)
PATH = {"PATH": "/usr/bin:/bin"}
ROOT_USER = "\0".join(("0", "0", "0", "-", "-", "0", "/", "1", "PATH=/usr/bin:/bin", "0", "")).encode()  # an identity


@pytest.fixture(scope="session")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root: cgroups, namespaces, owners")
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "scripts/hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    out = tmp_path_factory.mktemp("tool") / "vktool"
    hook.compile_tool(ROOT, out)
    return out


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup as systemd delegates one to a unit. All that is left in it is killed."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = next((Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"), None)
    if found is None or not os.access(found, os.W_OK):
        pytest.skip("needs a writable cgroup2")
    made = found / f"vktest-{os.getpid()}"
    made.mkdir()
    yield made
    (made / "cgroup.kill").write_text("1")
    for directory in sorted(made.rglob("*"), reverse=True):
        if directory.is_dir():
            remove_cgroup(directory)
    remove_cgroup(made)


def remove_cgroup(directory: Path) -> None:
    """What was killed in it needs a moment until it is gone."""
    events = directory / "cgroup.events"
    while "populated 1" in events.read_text():
        os.sched_yield()
    directory.rmdir()


@dataclass(frozen=True)
class Unit:
    """One container's files and unit: what vknix writes on a host."""

    tool: Path
    at: Path
    cgroup: Path

    @property
    def facts(self) -> Path:
        return self.at / "facts"

    def log(self, attempt: int = 0) -> Path:
        return self.at / f"logs/{attempt}.log"

    def start(
        self, *argv: str, invocation: str = "id-1", notify: Path | None = None, options: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        files = [str(self.at / name) for name in ("logs", "facts", "root", "skeleton", "termination-log", "run", "sandbox")]
        return self._popen([*options, *files, "--", *argv], invocation, notify)

    def serve(
        self, identity: bytes, *argv: str, netns: str = "-", notify: Path | None = None, options: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """One attempt of a service, which has no root of its own."""
        (self.at / "identity").write_bytes(identity)
        (self.at / "command").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in argv))
        own = [str(self.at / name) for name in ("termination-log", "run", "sandbox")]
        files = [str(self.at / "logs"), str(self.at / "facts"), "-", "-", *own]
        service = ["service", str(self.at / "identity"), str(self.at / "command"), netns]
        return self._popen([*options, *files, *service], "id-1", notify)

    def attach(self) -> subprocess.Popen[bytes]:
        """What `vktool attach` is to its ssh channel: frames in, stdout and stderr apart. Waits until it can be let in."""
        while not (self.at / "attach").exists() or not (self.at / "run").exists():
            os.sched_yield()
        command = [str(self.tool), "attach", str(self.at / "run"), str(self.at / "logs")]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def _popen(self, words: Sequence[str], invocation: str, notify: Path | None) -> subprocess.Popen[bytes]:
        enter = ["sh", "-c", 'echo $$ > "$0"/cgroup.procs; exec "$@"', str(self.cgroup)]
        return subprocess.Popen(
            [*enter, str(self.tool), "run", *words],
            env={**os.environ, "INVOCATION_ID": invocation, "NOTIFY_SOCKET": str(notify or "")},
            stderr=subprocess.PIPE,
        )

    def run(self, *argv: str, invocation: str = "id-1") -> tuple[int, str]:
        """Runs one attempt to its end: exit code (negative after a signal), and what goes to the journal."""
        with self.start(*argv, invocation=invocation) as process:
            said = process.communicate(timeout=60)[1]
            return process.returncode, said.decode()

    def boot(self, *argv: str, before: str = "") -> str:
        """One attempt of a program behind `init`, with a shell in the place of nspawn: what goes to the journal."""
        (self.at / "identity").write_bytes(ROOT_USER)
        namespaces = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")
        nspawn = ("sh", "-c", f'{before} exec /proc/self/fd/3 init "$@"', "sh")
        with self.start(*namespaces, *nspawn, *argv, options=["--init"]) as process:
            return process.communicate(timeout=60)[1].decode()

    def sh(self, script: str) -> int:
        return self.run("sh", "-c", script)[0]

    def fact(
        self,
        result: str = "success",
        code: str = "exited",
        status: str = "0",
        *,
        invocation: str = "id-1",
        policy: str = "file",
        notify: Path | None = None,
    ) -> dict[str, Any]:
        """Runs `fact` as ExecStopPost: the last line that there is then."""
        files = [str(self.at / name) for name in ("logs", "facts", "termination-log", "run")]
        env = {"INVOCATION_ID": invocation, "SERVICE_RESULT": result, "EXIT_CODE": code, "EXIT_STATUS": status}
        env["NOTIFY_SOCKET"] = str(notify or "")
        path = f"{self.at}/bin:{os.environ['PATH']}"
        subprocess.run([self.tool, "fact", *files, "vktest", policy], env={**env, "PATH": path}, check=True, timeout=30)
        return msgspec.json.decode(self.facts.read_bytes().splitlines()[-1], type=dict[str, Any])

    def logs_command(
        self, *, start: int = 0, tail: int = -1, since: int = 0, limit: int = -1, until: int = -1, form: str = "plain"
    ) -> list[str]:
        numbers = [str(n) for n in (0, start, tail, since, limit, until)]
        return [str(self.tool), "logs", str(self.at / "logs"), *numbers, form]

    def logs(
        self, *, start: int = 0, tail: int = -1, since: int = 0, limit: int = -1, until: int = -1, form: str = "plain"
    ) -> bytes:
        command = self.logs_command(start=start, tail=tail, since=since, limit=limit, until=until, form=form)
        return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout

    def follow(self, attempt: int = 0) -> subprocess.Popen[bytes]:
        return subprocess.Popen([str(self.tool), "follow", str(self.at / "logs"), str(attempt)], stdout=subprocess.PIPE)

    def write_log(self, records: Sequence[tuple[int, str, bytes]]) -> None:
        """A log as `run` writes it: (second of the hour, stream and flag, text)."""
        lines = [b"2026-01-02T15:00:%02d.000000000Z %s %s\n" % (s, how.encode(), text) for s, how, text in records]
        self.log().write_bytes(b"".join(lines))

    def journal(self, text: str, match: str = "_SYSTEMD_INVOCATION_ID=id-1") -> None:
        """What journalctl will say where it is asked for that."""
        said = self.at / "journal"
        said.write_text(text)
        program = self.at / "bin/journalctl"
        program.parent.mkdir(exist_ok=True)
        program.write_text(JOURNALCTL.format(said=said, match=shlex.quote(match)))
        program.chmod(0o755)


@pytest.fixture
def unit(tool: Path, cgroup: Path, tmp_path: Path) -> Unit:
    at = tmp_path / "unit"
    for name in ("logs", "skeleton"):
        (at / name).mkdir(parents=True)
    (at / "sandbox").touch()
    made = Unit(tool, at, cgroup)
    made.journal("")
    return made


@dataclass(frozen=True)
class Container:
    """A tree of namespaces in the cgroup `payload` of a unit, as nspawn leaves it."""

    unit: Unit

    def command(
        self,
        *argv: str,
        caps: int = DEFAULT,
        user: tuple[int, int, str] = (0, 0, "-"),
        nnp: bool = False,
        cwd: str = "/",
        env: Mapping[str, str] = PATH,
        tty: str = "notty",
        n: int = 1,
    ) -> list[str]:
        fields = [
            f"{caps:x}",
            *map(str, user),
            "n" if nnp else "-",
            "0",
            cwd,
            str(len(env)),
            *(f"{k}={v}" for k, v in env.items()),
            "0",
        ]
        spec = self.unit.at / f"spec-{n}"
        spec.write_bytes(b"".join(field.encode() + b"\0" for field in fields))
        return [str(self.unit.tool), "exec", str(self.unit.at / "run"), str(spec), str(n), "NONCE", tty, "--", *argv]

    def left(self) -> list[str]:
        return [path.name for path in self.unit.cgroup.rglob("exec-*")]


@pytest.fixture
def container(unit: Unit) -> Iterator[Container]:
    payload = unit.cgroup / "payload"
    payload.mkdir()
    (unit.at / "run").write_text(f"0 id-1 1 /{unit.cgroup.name}\n")
    enter = ["sh", "-c", 'echo $$ > "$0"/cgroup.procs; exec "$@"', str(payload)]
    with subprocess.Popen([*enter, *UNSHARE], stdout=subprocess.PIPE) as init:
        assert init.stdout is not None
        assert init.stdout.readline() == b"ready\n"
        yield Container(unit)
        (unit.cgroup / "cgroup.kill").write_text("1")


def run(command: list[str], stdin: bytes = b"") -> tuple[int, str, str]:
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=30)
    return done.returncode, done.stdout.decode(), done.stderr.decode()
