"""vknix.nspawn.mirror: what a host is told to have when its link comes up, whatever happens between two questions."""

import asyncio
import json
from collections.abc import Collection, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from tests.unit.build import ROOT, UID32
from vknix.core.facts import ContainerFacts, HostName, State
from vknix.nspawn import paths, tree
from vknix.nspawn.bus import Bus
from vknix.nspawn.closures import Source
from vknix.nspawn.mirror import Mirror
from vknix.nspawn.ssh import Link
from vknix.nspawn.unit_state import Unit
from vknix.provider import PodSeen, Seen

UNIT = paths.unit(UID32, "main")
RECORD = {"namespace": "shop", "name": "web", "addresses": ["10.0.0.2"], "closures": {"main": ROOT}}
WAITS = Unit("activating", "auto-restart", "id-0")
RUNS = Unit("active", "running", "id-1", 30.0)


def fact(number: int, code: int) -> dict[str, Any]:
    times = {"started": 10_000_000_000, "finished": 20_000_000_000}
    return {"attempt": number, "id": f"id-{number}", **times, "result": "exit-code", "code": "exited", "status": str(code)}


@dataclass
class FakeBus:
    """`units` is what each question in turn is answered with; the last answer stays."""

    answers: list[dict[str, Unit]]

    async def subscribe(self) -> None: ...

    async def units(self, names: Collection[str] = ()) -> dict[str, Unit]:
        now = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return {name: of for name, of in now.items() if not names or name in names}


@dataclass
class Host:
    """The owner of a mirror, and its link. `files`: how many logs there are, and the facts, at each question; the last stays."""

    bus: FakeBus
    files: list[tuple[int, list[dict[str, Any]]]]
    seen: list[Seen] = field(default_factory=list)
    name = HostName("a")

    def tell(self, seen: Seen) -> None:
        self.seen.append(seen)

    def others(self) -> Iterable[Source]:
        return ()

    async def run(self, script: str) -> bytes:
        logs, facts = self.files.pop(0) if len(self.files) > 1 else self.files[0]
        var = paths.var_of(UID32, "main")
        names = "".join(f"{var[1:]}/log/{number}.log 15.0\n" for number in range(logs)).encode()
        lines = "".join(f"{json.dumps(each)}\n" for each in facts).encode()
        files = {f"{paths.var(UID32)}/pod.json": json.dumps(RECORD).encode(), f"{var}/facts": lines}
        files[f"{paths.run(UID32)}/net"] = b"1.0\n"
        return names + b"\0" + tree.pack([tree.File(path, data) for path, data in files.items()])


class NoTasks:
    """The closures of Pods are fetched by nobody."""

    def create_task(self, work: Coroutine[Any, Any, None], **_: Any) -> None:
        work.close()


def made(host: Host) -> Mirror:
    return Mirror(host, cast(Link, host), cast(Bus, host.bus), cast(asyncio.TaskGroup, NoTasks()))


def told(host: Host) -> ContainerFacts:
    """What is told of the container."""
    return [each.facts for each in host.seen if isinstance(each, PodSeen)][-1].containers["main"]


async def listed(host: Host) -> ContainerFacts:
    await made(host).list_all()
    return told(host)


@pytest.mark.parametrize("first", [{UNIT: WAITS}, {}], ids=["its host starts it again", "another vknix had asked for it"])
@pytest.mark.parametrize("facts", [[fact(0, 3)], [fact(0, 3), fact(1, 4)]], ids=["it runs", "it has ended"])
async def test_what_begins_while_a_host_is_listed_is_not_lost(first: dict[str, Unit], facts: list[dict[str, Any]]) -> None:
    then = {UNIT: RUNS} if len(facts) == 1 else {}
    of = await listed(Host(FakeBus([first, then]), [(2, [fact(0, 3)]), (2, facts)]))
    assert of.state is (State.RUNNING if then else State.STOPPED)
    assert (of.attempt, [each.code for each in of.exits]) == (1, [3] if then else [3, 4])


async def test_what_has_neither_a_unit_nor_a_fact_is_lost() -> None:
    of = await listed(Host(FakeBus([{}]), [(2, [fact(0, 3)])]))
    assert (of.state, of.attempt, [each.code for each in of.exits]) == (State.STOPPED, 1, [3, 137])


async def test_what_is_about_to_be_started_counts_as_being_made_until_starting_fails() -> None:
    host = Host(FakeBus([{}]), [(1, [fact(0, 3)])])
    mirror = made(host)
    await mirror.list_all()
    with suppress(ConnectionError), mirror.guessing(UID32, {UNIT: (1, "image")}):
        of = told(host)
        assert (of.state, of.attempt, of.image) == (State.PREPARING, 1, "image")
        raise ConnectionError
    assert told(host).state is State.STOPPED
