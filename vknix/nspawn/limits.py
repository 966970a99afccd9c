"""Amounts -> what a container's cgroup and its Pod's slice are to have. Pure.

A container's limits are in the cgroup that it sees as its root, below its unit (vktool's limits.c); only its share of the processor
is the unit's as well, which competes with those of other containers. Rules: the kubelet's (cm/helpers_linux.go) and runc's.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from vknix.core import resources
from vknix.core.container import Container
from vknix.core.pod import Pod, members
from vknix.core.resources import Amounts

SLICE = "^"  # before what is an attribute of the Pod's slice that systemd does not know
_PERIOD_US = 100_000
_SUPERVISOR_BYTES, _SUPERVISOR_TASKS = 8 << 20, 4  # nspawn and vktool, a container: not the Pod's to pay


def cgroup(pod: Pod, container: Container, sizes: Iterable[str]) -> bytes:
    """The file `limits` of a container. Its first line is what its author asked for, which the Pod's status tells in turn.

    `sizes` are those of the host's huge pages.
    """
    limits = resources.effective(pod, container)
    lines = [
        f"# {msgspec.json.encode(resources.told(container.resources)).decode()}",
        f"cpu.weight {weight(resources.requests(container).cpu_milli)}",
        f"memory.max {'max' if not limits.memory_bytes else limits.memory_bytes}",
        "memory.swap.max 0",
        "memory.oom.group 1",
        f"cpu.max {quota(limits.cpu_milli)}",
        *(f"{SLICE}{line}" for line in _huge(resources.requested(pod), sizes)),
        *_huge(limits, sizes),
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _huge(of: Amounts, sizes: Iterable[str]) -> Iterator[str]:
    """Who says nothing has none: huge pages are kept for those that ask. What is too much can't be reserved (`rsvd`), which an mmap
    tells; a limit of use alone would kill by SIGBUS.
    """
    asked = dict(of.huge)
    for size in sizes:
        for kind in ("", ".rsvd"):
            yield f"hugetlb.{size.removesuffix('i')}B{kind}.max {asked.get(size, 0)}"


def read(file: bytes) -> Mapping[str, Any]:
    """What was asked for when this file was written."""
    line = file.partition(b"\n")[0]
    return msgspec.json.decode(line.removeprefix(b"# "), type=dict[str, Any]) if line.startswith(b"# ") else {}


def quota(cpu_milli: int | None) -> str:
    return f"{max(1000, cpu_milli * _PERIOD_US // 1000)} {_PERIOD_US}" if cpu_milli else f"max {_PERIOD_US}"


def weight(cpu_milli: int | None) -> int:
    """cpu.shares as a kubelet has them, made into a weight as runc does since 1.3: 1024 shares are the usual 100."""
    shares = min(262144, max(2, (cpu_milli or 0) * 1024 // 1000))
    if shares <= 2:
        return 1
    of = math.log2(shares)
    return math.ceil(10 ** ((of * of + 125 * of) / 612 - 7 / 34))


def unit(requests: Amounts) -> list[tuple[str, str]]:
    """Properties of the unit."""
    return [("CPUWeight", str(weight(requests.cpu_milli))), ("TasksMax", "infinity")]


def pod_slice(pod: Pod, pids: int | None) -> list[tuple[str, str]]:
    """Properties of the slice. Each container has its own quota: the whole has one where the Pod asks for it."""
    whole, count = resources.limited(pod), sum(1 for _ in members(pod))
    of = [("CPUWeight", str(weight(resources.requested(pod).cpu_milli)))]
    cpu_milli = resources.of_pod(pod).cpu_milli
    if cpu_milli:
        of.append(("CPUQuota", _percent(max(cpu_milli, 10))))
    if whole.memory_bytes:
        of += [("MemoryMax", str(whole.memory_bytes + count * _SUPERVISOR_BYTES)), ("MemorySwapMax", "0")]
    if pids is not None:
        of.append(("TasksMax", str(pids + count * _SUPERVISOR_TASKS)))
    return of


def _percent(cpu_milli: int) -> str:
    whole, tenth = divmod(cpu_milli, 10)
    return f"{whole}.{tenth}%" if tenth else f"{whole}%"
