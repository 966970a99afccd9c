"""What vktool says of volumes: how much is in them, and the files that were asked for. Pure."""

from vknix.core.facts import Uid
from vknix.core.usage import PodDisk
from vknix.errors import HostFailed
from vknix.nspawn import paths

_END = "that was all"


def disks(host: str, text: str) -> dict[Uid, PodDisk]:
    """What `vktool disk` prints. HostFailed where it is no whole answer."""
    lines, made, of = text.splitlines(), dict[Uid, dict[str, dict[str, int]]](), dict[str, dict[str, int]]()
    if not text.endswith("\n") or lines[-1] != _END:
        raise HostFailed(f"host {host}: `vktool disk` broke off")
    try:
        for kind, name, *size in (line.split(" ") for line in lines[:-1]):
            if kind == "of":
                of = made[paths.uid(name)] = {"empty": {}, "root": {}, "logs": {}}
            else:
                of[kind][name] = int(" ".join(size))
    except (ValueError, KeyError) as error:
        raise HostFailed(f"host {host}: `vktool disk` said what can't be read: {error!r}") from error
    return {uid: PodDisk(found["empty"], found["root"], found["logs"]) for uid, found in made.items()}


def files(host: str, answer: bytes) -> list[bytes | None]:
    """What `vktool read` printed. HostFailed where it broke off."""
    found: list[bytes | None] = []
    while answer:
        head, newline, rest = answer.partition(b"\n")
        size = _size(head)
        if not newline or size is None or len(rest) < size:
            raise HostFailed(f"host {host}: `vktool read` broke off, or said what can't be read")
        found.append(rest[:size] if size >= 0 else None)
        answer = rest[max(size, 0) :]
    return found


def _size(text: bytes) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
