"""Programs in, their output or a `LabError` out; and a line with the elapsed seconds for what takes long."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

TICK_S = 15.0


class LabError(Exception):
    """The lab can't do what was asked; the text says why, and what to do about it."""


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with its output caught as text. A failure raises with the last lines of its stderr."""
    try:
        done = subprocess.run(
            argv, input=stdin, env=env, cwd=cwd, timeout=timeout_s, text=True, errors="replace", capture_output=True
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]}: no such program") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{_shown(argv)}: no end after {timeout_s:.0f} s") from error
    if check and done.returncode:
        tail = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-15:])
        raise LabError(f"{_shown(argv)}: exit code {done.returncode}\n{tail}")
    return done


def say(text: str) -> None:
    """A line for the person in front of the lab. stdout is for answers."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Say what goes on: again every 15 seconds while it lasts, and how long it took."""
    began = time.monotonic()
    done = threading.Event()

    def tick() -> None:
        while not done.wait(TICK_S):
            say(f"  {time.monotonic() - began:5.0f} s  {text} ...")

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    except BaseException:
        say(f"  {time.monotonic() - began:5.0f} s  FAILED: {text}")
        raise
    else:
        say(f"  {time.monotonic() - began:5.0f} s  {text}")
    finally:
        done.set()
        ticker.join()


def wait_for(question: Callable[[], bool], what: str, *, timeout_s: float, every_s: float = 0.1) -> None:
    """Ask until the answer is yes."""
    end = time.monotonic() + timeout_s
    while not question():
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(every_s)


def _shown(argv: Sequence[str | Path]) -> str:
    text = " ".join(str(word) for word in argv)
    return text if len(text) < 200 else text[:200] + " ..."
