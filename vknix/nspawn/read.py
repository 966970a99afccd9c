"""What a host says -> facts: the inverse of unit.py, in the same vocabulary. Pure; knows no SSH and no D-Bus."""

import base64
import json
import signal as signals
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from vknix.core import restart
from vknix.core.facts import ContainerFacts, Exit, HostName, ImageFacts, PodFacts, Reason, State, StorePath
from vknix.core.handlers import DEFAULT, Handler
from vknix.nspawn import limits, paths, tree

# Prints the logs' names and times, then a tar of the small files: of all Pods, or of some. Looks only where vknix itself writes: a
# container may have files of any name and size in its volumes. tar exits 1 where a file grew or went while it was read.
_LIST = r"""PATH=%(path)s; export PATH
cd / || exit 1
find %(logs)s -maxdepth 1 -name '*.log' -printf '%%p %%T@\n' 2>/dev/null
printf '\0'
find %(files)s -maxdepth 0 -type f -print0 2>/dev/null |
  tar --null --no-recursion --ignore-failed-read --warning=none -cf - -T - || [ $? = 1 ]
"""


def list_script(only: Collection[str] = ()) -> str:
    """`only`: UIDs without dashes; none: all Pods."""
    of = only or ("*",)
    files = [
        (
            f"{paths.var(each)}/pod.json",
            paths.var_of(each, "*") + "/facts",
            paths.var_of(each, "*") + "/again",
            f"{paths.run(each)}/net",
            paths.run_of(each, "*") + "/limits",
            paths.run_of(each, "*") + "/limits.new",
        )
        for each in of
    ]
    return _LIST % {
        "path": paths.SEARCH,
        "logs": " ".join(paths.var_of(each, "*")[1:] + "/log" for each in of),
        "files": " ".join(path[1:] for each in files for path in each),
    }


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of a container as systemd tells it. `since`: when it became active. `image`: what it runs, as its Pod named it.

    `attempt`: how many had ended before, of one that vknix has just started and systemd has not told of.
    """

    active: str
    sub: str
    id: str = ""
    since: float | None = None
    image: str = ""
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The files of one Pod on a host."""

    uid32: str
    namespace: str
    name: str
    addresses: tuple[str, ...]
    closures: Mapping[str, StorePath]
    facts: Mapping[str, tuple[dict[str, Any], ...]] = field(default_factory=dict)
    logs: Mapping[str, Mapping[int, float]] = field(default_factory=dict)  # attempt -> last written
    since: float | None = None  # when its network was made; None: it has none
    handler: Handler = DEFAULT
    users: int | None = None  # where its own users begin
    images: tuple[StorePath, ...] = ()  # the closures that are volumes
    listed: Mapping[str, int] | None = None  # the last attempt that had begun when its host was listed; None: it is listed now
    resources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # in force, by container
    errors: Mapping[str, str] = field(default_factory=dict)  # why others could not be had
    again: Mapping[str, frozenset[int]] = field(default_factory=dict)  # attempts that were stopped for the next to start

    def lost(self, container: str) -> int | None:
        """The attempt of which there is no more than a log; only what began out of sight can be lost."""
        last = max(self.logs.get(container, {}), default=-1)
        if self.listed is not None:
            last = self.listed.get(container, -1)
        return last if last >= len(self.facts.get(container, ())) else None

    def all_lost(self, units: Mapping[str, Unit]) -> Iterator[str]:
        """The containers of which an attempt seems lost: it began, and neither runs nor has its fact."""
        for name in self.closures:
            unit = units.get(paths.unit(self.uid32, name))
            if self.lost(name) is not None and (unit is None or ended(unit)):
                yield name

    def since_listed(self) -> Mapping[str, int]:
        return self.listed if self.listed is not None else {name: max(logs) for name, logs in self.logs.items() if logs}

    @property
    def roots(self) -> frozenset[StorePath]:
        """All closures that it uses."""
        return frozenset((*self.closures.values(), *self.images))


def found(listing: bytes) -> Iterator[Found]:
    """What list_script printed."""
    names, _, archive = listing.partition(b"\0")
    logs, unpack = _logs(names), tree.unpack(archive)
    for path, data in unpack.items():
        parts = path.split("/")
        if parts[-1] == "pod.json" and path == f"{paths.var(parts[-2])}/pod.json":
            uid32 = parts[-2]
            try:
                record = json.loads(data)
            except ValueError:  # a power cut left it empty; what is wanted of the Pod is made anew
                continue
            yield Found(
                uid32,
                record["namespace"],
                record["name"],
                tuple(record["addresses"]),
                {name: StorePath(closure) for name, closure in record["closures"].items()},
                {name: _lines(unpack.get(f"{paths.var_of(uid32, name)}/facts", b"")) for name in record["closures"]},
                logs.get(uid32, {}),
                moment(net) if (net := unpack.get(f"{paths.run(uid32)}/net")) is not None else None,
                Handler(record.get("handler", DEFAULT.value)),
                record.get("users"),
                tuple(StorePath(image) for image in record.get("images", ())),
                resources={name: of for name in record["closures"] if (of := _limits(unpack, uid32, name)) is not None},
                again={
                    name: _numbers(unpack[file])
                    for name in record["closures"]
                    if (file := f"{paths.var_of(uid32, name)}/again") in unpack
                },
            )


def _numbers(text: bytes) -> frozenset[int]:
    return frozenset(int(word) for word in text.split() if word.isdigit())


def _limits(files: Mapping[str, bytes], uid32: str, container: str) -> Mapping[str, Any] | None:
    """In force; of one that has not begun: those that it begins with."""
    folder = paths.run_of(uid32, container)
    return next((limits.read(files[file]) for file in (f"{folder}/limits", f"{folder}/limits.new") if file in files), None)


def again(before: Found, found: Found) -> Found:
    """What was found once more, with what no file says. Limits that vknix itself has set are known: a container that begins with
    other ones than it had has them in its files a moment later."""
    return replace(found, listed=before.since_listed(), errors=before.errors, resources={**found.resources, **before.resources})


def refused_limits(answer: bytes) -> dict[str, str]:
    """`limit CONTAINER WHY` lines of a sync."""
    lines = (line.split(" ", 2) for line in answer.decode(errors="replace").splitlines() if line.startswith("limit "))
    return {words[1]: words[2] for words in lines if len(words) == 3 and words[2]}


def ahead(answer: bytes) -> list[str]:
    """`ahead CONTAINER` lines of a sync."""
    return [line.removeprefix("ahead ") for line in answer.decode(errors="replace").splitlines() if line.startswith("ahead ")]


def moment(marker: bytes) -> float:
    """By the host's clock; what stands before the last line is no part of it."""
    return float(marker.split()[-1]) if marker.strip() else 0.0


def _logs(listing: bytes) -> dict[str, dict[str, dict[int, float]]]:
    """`var/lib/vknix/UID/c/NAME/log/N.log TIME` lines."""
    logs: dict[str, dict[str, dict[int, float]]] = {}
    for line in listing.decode(errors="replace").splitlines():
        path, _, at = line.rpartition(" ")
        parts = path.split("/")
        attempt = parts[-1].removesuffix(".log")
        if len(parts) >= 5 and attempt.isdigit():
            logs.setdefault(parts[-5], {}).setdefault(parts[-3], {})[int(attempt)] = float(at)
    return logs


_WENT_DOWN = "the host went down while it ran"
_TORN: dict[str, Any] = {"result": "lost", "torn": True}


def _lines(data: bytes) -> tuple[dict[str, Any], ...]:
    """A line an attempt, as vktool counts them: of a torn one (a power cut) no more is known."""
    return tuple(_line(line) for line in data.removesuffix(b"\n").split(b"\n")) if data else ()


def _line(text: bytes) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        return _TORN
    return line if isinstance(line, dict) else _TORN


def pod_facts(of: Found, host: HostName, units: Mapping[str, Unit], images: Mapping[StorePath, ImageFacts]) -> PodFacts:
    """`units` by name; containers that never began are left out."""
    containers = {}
    for name in of.closures:
        unit = units.get(paths.unit(of.uid32, name))
        facts = _container(name, of, unit)
        if facts is not None:
            containers[name] = replace(facts, resources=of.resources.get(name), resize_error=of.errors.get(name, ""))
    return PodFacts(
        uid=paths.uid(of.uid32),
        host=host,
        namespace=of.namespace,
        name=of.name,
        addresses=of.addresses if of.since is not None else (),
        since=of.since if of.since is not None else inf,
        containers=containers,
        images={path: images[path] for path in sorted(of.roots) if path in images},
        handler=of.handler,
    )


def image(description: str) -> str:
    """The end of what unit.description says."""
    return description.partition(", image ")[2]


def ended(unit: Unit) -> bool:
    """Its attempt is over, and its fact written. One without an ID has been made and is about to begin."""
    return unit.active == "failed" or (unit.active == "inactive" and unit.id != "") or waits(unit)


def waits(unit: Unit) -> bool:
    """systemd will start it again by itself: auto-restart, auto-restart-queued, failed-before-auto-restart, ..."""
    return "auto-restart" in unit.sub


_STATES = {"active": State.RUNNING, "reloading": State.RUNNING, "activating": State.PREPARING, "deactivating": State.STOPPING}


def _container(name: str, of: Found, unit: Unit | None) -> ContainerFacts | None:
    lines, logs = of.facts.get(name, ()), of.logs.get(name, {})
    waiting = unit is not None and waits(unit)
    state = State.STOPPED if unit is None or ended(unit) else _STATES.get(unit.active, State.PREPARING)
    if unit is not None and state is not State.STOPPED:
        lines = _before(unit, lines, max(logs, default=-1))
    again = of.again.get(name, frozenset())
    ends = [_exit(line, number, logs, again=number in again) for number, line in enumerate(lines)]
    lost = of.lost(name)
    if state is State.STOPPED and lost is not None:  # it began, and its host went down before it could say how it ended
        ends.append(Exit(lost, "", 137, 0, Reason.UNKNOWN, None, logs.get(lost, 0.0), _WENT_DOWN))
    if state is State.STOPPED and not ends:
        return None
    running = state is not State.STOPPED
    return ContainerFacts(
        name=name,
        state=state,
        attempt=len(ends) if running else max(len(ends) - 1, 0),
        id=unit.id if unit is not None and running else "",
        started=unit.since if unit is not None and running else None,
        exits=tuple(ends[-2:]),
        streak=restart.streak(tuple(ends)),
        host_restarts=waiting,
        image=unit.image if unit is not None and (waiting or state is not State.STOPPED) else "",
    )


def _before(unit: Unit, lines: tuple[dict[str, Any], ...], logged: int) -> tuple[dict[str, Any], ...]:
    """What ended before the attempt of a unit that is not through: its own end may be there already, and is told once it is."""
    if lines and ((lines[-1].get("torn") and logged < len(lines)) or (unit.id and lines[-1].get("id") == unit.id)):
        return lines[:-1]
    return lines if unit.id else lines[: unit.attempt]


def _exit(line: Mapping[str, Any], number: int, logs: Mapping[int, float], *, again: bool) -> Exit:
    finished = line.get("finished")
    started = line.get("started")
    code, signal, reason = _end(line)
    return Exit(
        attempt=number,
        id=str(line.get("id") or ""),
        code=code,
        signal=signal,
        reason=reason,
        started=started / 1e9 if started else None,
        finished=finished / 1e9 if finished else logs.get(number, 0.0),
        message=_WENT_DOWN if reason is Reason.UNKNOWN else base64.b64decode(line.get("message") or "").decode(errors="replace"),
        again=again,
    )


def _end(line: Mapping[str, Any]) -> tuple[int, int, Reason]:
    """Exit code, signal and reason. nspawn exits 1 for a signal too: `signal` then names it."""
    name = str(line.get("signal") or "")
    if line.get("result") == "lost":
        return 137, 0, Reason.UNKNOWN
    if name == "START":
        return 128, 0, Reason.START_ERROR
    if line.get("code") in ("killed", "dumped"):
        name = str(line.get("status") or "KILL")
    if line.get("oom"):
        return 137, int(signals.SIGKILL), Reason.OOM_KILLED
    if name:
        number = _signal(name)
        return 128 + number, number, Reason.ERROR
    if not line.get("code"):  # its program never ran: SERVICE_RESULT says no more
        return 128, 0, Reason.START_ERROR
    code = int(line.get("status") or 0)
    return code, 0, Reason.COMPLETED if code == 0 else Reason.ERROR


def _signal(name: str) -> int:
    try:
        return int(signals.Signals[f"SIG{name}"])
    except KeyError:
        return int(signals.SIGKILL)


# Prints what registration needs, `key value` lines; values are one line each, resolv.conf comes last.
