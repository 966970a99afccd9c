"""Programs of random Pods, and what is known of how each ends: the truth against which statuses are held."""

from collections.abc import Mapping
from dataclasses import dataclass

STOPPED = frozenset({137, 143})
FOLDER = "/var/lib/soak"  # on each host: a file for each container, with a line for each of its starts


@dataclass(frozen=True, slots=True)
class Truth:
    """`codes`: what it exits with by itself; none: it runs until it is stopped. `stopped`: what else, once it is told to stop.

    `disturbed`: something of its Pod may stop it while the Pod is wanted. `once`: it is never started again.
    `witnessed`: each of its starts leaves a line in FOLDER.
    """

    codes: frozenset[int] = frozenset()
    stopped: frozenset[int] = STOPPED
    disturbed: bool = False
    once: bool = False
    witnessed: bool = True


def _ends(*codes: int) -> Truth:
    return Truth(codes=frozenset(codes))


def _runs(*codes: int) -> Truth:
    return Truth(stopped=STOPPED | set(codes))


# `$$$$` is the shell's `$$`, as Kubernetes takes `$$` for an escaped `$`. What is the first process of its tree can't kill itself.
SHORT: Mapping[str, Truth] = {
    "exit 0": _ends(0),
    "exit 3": _ends(3),
    "exit 255": _ends(255),
    "echo done; echo said > /dev/termination-log": _ends(0),
    "yes | head -c 6000 > /dev/termination-log; exit 9": _ends(9),
    "kill -9 $$$$; exit 5": _ends(5, 137),
    "kill -11 $$$$; exit 6": _ends(6, 139),
    "seq 2000; sleep 0.2": _ends(0),
    "head -c 300000 /dev/zero | tr '\\0' x; exit 7": _ends(7),
    "sleep 0.5; exit 1": _ends(1),
    "sleep 2; exit 42": _ends(42),
    "sh -c 'sleep 100 & exit 0'": _ends(0),
    "exec 1>&- 2>&-; exit 0": _ends(0),
}
LONG: Mapping[str, Truth] = {
    "exec sleep 1000": _runs(),
    "trap 'exit 0' TERM; sleep 1000 & wait": _runs(0),
    "trap 'exit 6' TERM; while :; do sleep 0.1; done": _runs(6),
    "trap 'sleep 1; exit 8' TERM; sleep 1000 & wait": _runs(8),
    "trap '' TERM; sleep 1000": _runs(),
    "(sleep 900 &); (sleep 900 &); exec sleep 1000": _runs(),
    "while :; do date; sleep 1; done": _runs(),
    "while :; do seq 200; sleep 0.5; done": _runs(),
}
SERVES = "exec httpd -f -p 8080 -h /"  # of one container of a Pod that has a network of its own
SYSTEM = _runs(0, 1)  # what boots as an init: it halts when it is told to, or gives up where it had hardly begun
ABSENT = Truth(codes=frozenset({128}), witnessed=False)  # a program that is not there

_SIGNALS = {"SIGHUP": 1, "SIGINT": 2, "SIGQUIT": 3, "SIGUSR1": 10, "SIGTERM": 15, "SIGRTMIN+3": 37}
STOP_SIGNALS = tuple(_SIGNALS)


def by_signal(name: str) -> int:
    """The exit code of what that signal has ended."""
    return 128 + _SIGNALS[name]


def witness(root: str, pod: str, container: str) -> str:
    """The line of a script with which a start is written down; `root` is where FOLDER is mounted."""
    return f"echo begins >> {root}/{pod}.{container}\n"
