"""What `vktool usage` prints -> usage. Pure. Rules: the kubelet's and cadvisor's (working set: all but inactive file pages)."""

from collections.abc import Mapping

from vknix.core.facts import Uid
from vknix.core.usage import Filesystem, HostUsage, Interface, PodUsage, Pressure, Stalls, Throttling, Usage
from vknix.errors import HostFailed
from vknix.nspawn import paths

_END = "that was all"
_Section = Mapping[str, str]


def parse(host: str, text: str) -> HostUsage:
    """HostFailed where it is no whole answer."""
    head, *parts = text.split("\nof ")
    if not text.endswith(f"\n{_END}\n") or not parts:
        raise HostFailed(f"host {host}: `vktool usage` broke off")
    try:
        return _host(float(head.split()[1]) / 1e9, [_section(part) for part in parts])
    except (ValueError, IndexError, KeyError) as error:
        raise HostFailed(f"host {host}: `vktool usage` said what can't be read: {error!r}") from error


def _section(part: str) -> tuple[tuple[str, ...], _Section, list[list[str]]]:
    """Whose it is; its lines; and those of which there are many: interfaces and file systems."""
    title, *lines = part.splitlines()
    words = [line.split(" ") for line in lines if line != _END]
    many = [of for of in words if of[0] in ("net", "fs")]
    return tuple(title.split(" ")), {of[0]: " ".join(of[1:]) for of in words if of[0] not in ("net", "fs")}, many


def _host(at: float, sections: list[tuple[tuple[str, ...], _Section, list[list[str]]]]) -> HostUsage:
    containers: dict[Uid, dict[str, Usage]] = {}
    pods: dict[Uid, PodUsage] = {}
    (_, own, own_many), *rest = sections
    for title, lines, many in rest:
        uid = paths.uid(title[1])
        if title[0] == "container":
            containers.setdefault(uid, {})[title[2]] = _usage(lines, many)
        else:
            pods[uid] = PodUsage(_usage(lines, many), containers.get(uid, {}))
    ticks, total = own["ticks.cpu"].split(), _kib(own, "memory.MemTotal")
    used = total - _kib(own, "memory.MemFree")
    whole = Usage(
        cpu_ns=_cpu(own) or sum(map(int, (*ticks[:3], *ticks[5:8]))) * 10**9 // int(own["hertz"]),
        working_set=max(0, used - _kib(own, "memory.Inactive(file)")),
        memory=used,
        rss=_kib(own, "memory.AnonPages"),
        page_faults=int(own["memory.pgfault"]),
        major_page_faults=int(own["memory.pgmajfault"]),
        swap=_kib(own, "memory.SwapTotal") - _kib(own, "memory.SwapFree"),
        interfaces=_interfaces(own_many),
        stalls=_stalls(own),
    )
    tasks = own["load"].split()[3].split("/")[1]
    filesystems = {of[1]: Filesystem(*map(int, of[2:6])) for of in own_many if of[0] == "fs"}
    boot = float(own["ticks.btime"])
    return HostUsage(at, boot, whole, total, _kib(own, "memory.SwapFree"), (int(tasks), int(own["pid_max"])), filesystems, pods)


def _usage(lines: _Section, many: list[list[str]]) -> Usage:
    """Without the memory controller, what its processes have; shared pages then count for each."""
    faults = lines["faults"].split()
    there = int(lines["processes"]) > 0
    resident = int(lines["resident"]) if there else None
    current = _number(lines, "memory")
    return Usage(
        cpu_ns=_cpu(lines),
        working_set=max(0, current - int(lines["memory.inactive_file"])) if current is not None else resident,
        memory=current if current is not None else resident,
        rss=_number(lines, "memory.anon") if current is not None else resident,
        limit=_number(lines, "memory.max"),
        page_faults=_number(lines, "memory.pgfault") if current is not None else int(faults[0]),
        major_page_faults=_number(lines, "memory.pgmajfault") if current is not None else int(faults[1]),
        swap=_number(lines, "swap"),
        swap_limit=_number(lines, "swap.max"),
        processes=int(lines["processes"]),
        throttling=_throttling(lines),
        logs=(int(lines["logs"].split()[0]), int(lines["logs"].split()[1])) if "logs" in lines else None,
        interfaces=_interfaces(many),
        stalls=_stalls(lines),
    )


def _cpu(lines: _Section) -> int | None:
    used = _number(lines, "cpu.usage_usec")
    return used * 1000 if used is not None else None


def _throttling(lines: _Section) -> Throttling | None:
    if "cpu.nr_periods" not in lines:
        return None
    return Throttling(int(lines["cpu.nr_periods"]), int(lines["cpu.nr_throttled"]), int(lines["cpu.throttled_usec"]) * 1000)


def _number(lines: _Section, key: str) -> int | None:
    """None also for `max`."""
    text = lines.get(key, "")
    return int(text) if text.isdecimal() else None


def _kib(lines: _Section, key: str) -> int:
    return int(lines[key].removesuffix(" kB")) * 1024


def _interfaces(many: list[list[str]]) -> tuple[Interface, ...]:
    return tuple(Interface(of[1], *map(int, of[2:6])) for of in many if of[0] == "net")


def _stalls(lines: _Section) -> dict[str, Stalls]:
    """A kernel without pressure information says nothing; one before 5.13 has no `full` for the CPU."""
    found = {}
    for kind in ("cpu", "memory", "io"):
        some, full = lines.get(f"psi.{kind}.some"), lines.get(f"psi.{kind}.full")
        if some is not None:
            found[kind] = Stalls(_pressure(some), _pressure(full) if full is not None else Pressure(0, 0, 0, 0))
    return found


def _pressure(text: str) -> Pressure:
    of = dict(pair.split("=") for pair in text.split())
    return Pressure(float(of["avg10"]), float(of["avg60"]), float(of["avg300"]), int(of["total"]))
