"""What a host in memory uses: a thousandth of a CPU and a MiB for each container that runs; and its journal."""

import re
import time

from vknix.core.facts import Uid
from vknix.core.usage import Filesystem, HostUsage, Interface, PodDisk, PodUsage, Usage
from vknix.errors import Refused
from vknix.fake.host import FakeHost
from vknix.provider import JournalQuery

_MIB = 1 << 20
_SHARE = 0.001


def usage_of(host: FakeHost) -> HostUsage:
    now = time.time()
    pods = {}
    for uid, facts in host.all_seen().items():
        runs = {name: _usage(now - each.started) for name, each in facts.containers.items() if each.started is not None}
        network = (Interface("host0", 0, 0, 0, 0),) if facts.addresses else ()
        if runs:
            cpu_ns = sum(each.cpu_ns or 0 for each in runs.values())
            size = len(runs) * _MIB
            whole = Usage(cpu_ns, size, size, size, processes=len(runs), interfaces=network)
            pods[uid] = PodUsage(whole, runs)
    size = (len(pods) + 64) * _MIB
    whole = Usage(int((now - host.booted) * _SHARE * 1e9) + 1, size, size, size)
    disk = Filesystem(host.facts.storage_bytes, host.facts.storage_bytes // 2, 1000, 500)
    return HostUsage(now, host.booted, whole, host.facts.memory_bytes, filesystems={"node": disk, "image": disk}, pods=pods)


def _usage(runs_s: float) -> Usage:
    return Usage(int(runs_s * _SHARE * 1e9) + 1, _MIB, _MIB, _MIB, processes=1, logs=(0, 1))


def disk_of(host: FakeHost, uid: Uid) -> PodDisk:
    """Of what runs, as `FakeHost.fill` says; a page where it does not."""
    runs = [name for name, each in host.seen(uid).containers.items() if each.started is not None]
    filled = host.filled.get(uid, {})
    empty = {name: size for name, size in filled.items() if name not in host.seen(uid).containers}
    return PodDisk(empty, {name: filled.get(name, 4096) for name in runs}, dict.fromkeys(runs, 0))


def journal(host: FakeHost, query: JournalQuery) -> bytes:
    """Two lines of one unit, written when it booted."""
    try:
        wanted = re.compile(query.pattern)
    except re.error as error:
        raise Refused("", f"{query.pattern!r} is no pattern: {error}", remedy="write a regular expression") from error
    if (query.since or 0) > host.booted or (query.units and "sshd" not in query.units):
        return b""
    lines = [f"{host.facts.name} sshd[1]: {text}\n" for text in ("Server listening.", "Accepted publickey for root.")]
    found = [line for line in lines if wanted.search(line)]
    return "".join(found if query.tail_lines is None else found[len(found) - query.tail_lines :]).encode()
