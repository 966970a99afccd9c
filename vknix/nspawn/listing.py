"""What a host prints of the files that it has of Pods -> Found, which is what they say. Pure; knows no SSH."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vknix.core.facts import StorePath
from vknix.core.handlers import DEFAULT, Handler
from vknix.nspawn import limits, paths, tree
from vknix.nspawn.unit_state import Unit, ended

# Prints the logs' names and times, then a tar of the small files: of all Pods, or of some. Looks only where vknix itself writes: a
# container may have files of any name and size in its volumes. tar exits 1 where a file grew or went while it was read.
_LIST = r"""PATH=%(path)s; export PATH
cd / || exit 1
find %(logs)s -maxdepth 1 -name '*.log' -printf '%%p %%T@\n' 2>/dev/null
printf '\0'
find %(files)s -maxdepth 0 -type f -print0 2>/dev/null |
  tar --null --no-recursion --ignore-failed-read --warning=none -cf - -T - || [ $? = 1 ]
"""
_TORN: dict[str, Any] = {"result": "lost", "torn": True}


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


def _lines(data: bytes) -> tuple[dict[str, Any], ...]:
    """A line an attempt, as vktool counts them: of a torn one (a power cut) no more is known."""
    return tuple(_line(line) for line in data.removesuffix(b"\n").split(b"\n")) if data else ()


def _line(text: bytes) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        return _TORN
    return line if isinstance(line, dict) else _TORN
