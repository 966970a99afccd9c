"""What a host has of a Pod, its files and its units -> PodFacts. Pure."""

import base64
import signal as signals
from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import Any

from vknix.core import restart
from vknix.core.facts import ContainerFacts, Exit, HostName, ImageFacts, PodFacts, Reason, State, StorePath
from vknix.nspawn import paths
from vknix.nspawn.listing import Found
from vknix.nspawn.unit_state import Unit, ended, waits

_STATES = {"active": State.RUNNING, "reloading": State.RUNNING, "activating": State.PREPARING, "deactivating": State.STOPPING}
_WENT_DOWN = "the host went down while it ran"


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


def _container(name: str, of: Found, unit: Unit | None) -> ContainerFacts | None:
    lines, logs = of.facts.get(name, ()), of.logs.get(name, {})
    waiting = unit is not None and waits(unit)
    state = State.STOPPED if unit is None or ended(unit) else _STATES.get(unit.active, State.PREPARING)
    if unit is not None and state is not State.STOPPED:
        lines = _before(unit, lines, max(logs, default=-1))
    elif unit is not None and waiting:
        lines = _until(unit, lines)
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


def _until(unit: Unit, lines: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """What ended up to the attempt after which a unit waits. A later one may have ended by now: it has yet to be told to begin."""
    last = next((number for number, line in enumerate(lines) if unit.id and line.get("id") == unit.id), len(lines))
    return lines[: last + 1]


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
    if name.isdecimal():
        return int(name)
    try:
        return int(signals.Signals[f"SIG{name}"])
    except KeyError:
        return int(signals.SIGKILL)
