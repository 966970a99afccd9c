"""Programs that outlive the command that starts them: a pid file and a log for each, and no doubt about whose the pid is."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.layout import write
from tests.lab.shell import LabError, wait_for


@dataclass(frozen=True, slots=True)
class Daemon:
    """One such program of a lab; `folder` holds its pid file and its log."""

    folder: Path
    name: str

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Of the running process; None when it has ended, also where its number has gone to another."""
        try:
            pid, born = self._pid_file.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        state, start = _stat(int(pid))
        if start == born and state == "Z":
            # This very process has started it, so nobody else reaps it.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(int(pid), os.WNOHANG)
        return int(pid) if start == born and state not in "ZX" else None

    def start(self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        """Start it detached, unless it runs. Its log is continued."""
        if self.pid is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=cwd, start_new_session=True
            )
        write(self._pid_file, f"{process.pid} {_stat(process.pid)[1]}\n")
        process.returncode = 0  # It is meant to outlive this object: no warning about that.

    def stop(self, *, by: signal.Signals = signal.SIGTERM, within_s: float = 30.0) -> None:
        """Signal it, and wait for its end; absent is success."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, by)
            wait_for(lambda: self.pid is None, f"{self.name} (pid {pid}) ends on {by.name}", timeout_s=within_s, every_s=0.02)
        self._pid_file.unlink(missing_ok=True)

    def end(self) -> None:
        """TERM, then KILL for one that does not listen."""
        try:
            self.stop(within_s=10.0)
        except LabError:
            self.stop(by=signal.SIGKILL)

    def must_run(self) -> None:
        """Raise with the end of its log when it does not."""
        if self.pid is None:
            raise LabError(f"{self.name} has ended; the end of {self.log}:\n{self.tail()}")

    def tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 64 * 1024))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    @property
    def started_at(self) -> float:
        """When it was started, as seconds since the epoch."""
        return self._pid_file.stat().st_mtime

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"


def _stat(pid: int) -> tuple[str, str]:
    """State and start time of a process; the latter with its number names it for ever. Empty when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    return fields[0], fields[19]
