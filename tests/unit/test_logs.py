"""vknix.nspawn.logs: who reads and who follows a log, over a host that is a list of records."""

import asyncio
import shlex
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from vknix.core.facts import HostName
from vknix.errors import HostFailed, Unreachable
from vknix.nspawn.logs import Logs
from vknix.nspawn.records import Frame, stamp
from vknix.provider import LogOptions

HOST = HostName("host1")
STEP_S = 5.0


def record(number: int, text: str, flag: str = "F") -> bytes:
    return stamp(1_767_366_000 + number) + f" stdout {flag} {text}\n".encode()


class Pipe:
    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()

    async def read(self, n: int, /) -> bytes:
        return await self.reader.read(n)

    async def readline(self) -> bytes:
        return await self.reader.readline()

    async def readexactly(self, n: int, /) -> bytes:
        return await self.reader.readexactly(n)


@dataclass
class Command:
    words: list[str]
    stdout: Pipe = field(default_factory=Pipe)
    stderr: Pipe = field(default_factory=Pipe)
    exit_status: int | None = None

    async def wait(self) -> None:
        pass

    def end(self, status: int | None = 0, said: bytes = b"") -> None:
        self.exit_status = status
        self.stderr.reader.feed_data(said)
        for pipe in (self.stdout, self.stderr):
            pipe.reader.feed_eof()


@dataclass
class Machine:
    """A host with one log, whose positions count bytes of records; its text is what `vktool logs` would say."""

    log: list[bytes] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    running: list[Command] = field(default_factory=list)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str = ""

    @asynccontextmanager
    async def start(self, line: str) -> AsyncIterator[Command]:
        command = Command(shlex.split(line)[2:])
        self.commands.append(command)
        self.running.append(command)
        self.idle.clear()
        try:
            if self.failure:
                raise Unreachable(self.failure)
            if command.words[0] == "follow":
                self._frame(command, b"")
            else:
                self._past(command)
            yield command
        finally:
            self.running.remove(command)
            if not self.running:
                self.idle.set()

    def _past(self, command: Command) -> None:
        first, tail, _, _, until = (int(word) for word in command.words[3:8])
        whole = b"".join(self.log)[first : until if until >= 0 else None]
        records = whole.splitlines(keepends=True)
        command.stdout.reader.feed_data(Frame(0, False, b"".join(records[-tail:] if tail > 0 else records)).text(stamps=False))
        command.end()

    def _frame(self, command: Command, records: bytes) -> None:
        command.stdout.reader.feed_data(b"%d 0 %d\n" % (sum(map(len, self.log)), len(records)) + records)

    def write(self, *records: bytes) -> None:
        self.log.extend(records)
        for command in self.running:
            if command.words[0] == "follow":
                self._frame(command, b"".join(records))

    def end(self, status: int | None = 0) -> None:
        for command in self.running:
            if command.words[0] == "follow":
                command.end(status)

    def count(self, verb: str) -> int:
        return sum(command.words[0] == verb for command in self.commands)


def run(story: Callable[[Machine, Logs], Awaitable[None]]) -> None:
    async def play() -> None:
        machine = Machine()
        async with asyncio.timeout(STEP_S * 4), asyncio.TaskGroup() as tasks:
            await story(machine, Logs(HOST, "/tool", machine.start, tasks))
        assert machine.running == []

    asyncio.run(play())


async def whole(logs: Logs, options: LogOptions) -> bytes:
    async with aclosing(logs.read("/log", options)) as pieces:
        return b"".join([piece async for piece in pieces])


async def next_of(pieces: AsyncGenerator[bytes, None]) -> bytes:
    async with asyncio.timeout(STEP_S):
        return await anext(pieces)


def test_who_does_not_follow_reads_once() -> None:
    async def story(machine: Machine, logs: Logs) -> None:
        machine.write(record(1, "one"), record(2, "two"))
        assert await whole(logs, LogOptions(3, tail_lines=1, limit_bytes=9)) == b"two\n"
        assert [command.words for command in machine.commands] == [["logs", "/log", "3", "0", "1", "0", "9", "-1", "plain"]]

    run(story)


def test_50_followers_are_one_reader_on_the_host() -> None:
    async def story(machine: Machine, logs: Logs) -> None:
        machine.write(record(1, "one"))
        followers = [logs.read("/log", LogOptions(0, follow=True)) for _ in range(50)]
        assert [await next_of(each) for each in followers] == [b"one\n"] * 50
        machine.write(record(2, "two"))
        assert [await next_of(each) for each in followers] == [b"two\n"] * 50
        assert machine.count("follow") == 1
        machine.end()
        assert [[piece async for piece in each] for each in followers] == [[]] * 50

    run(story)


def test_nothing_is_lost_between_the_past_and_what_comes() -> None:
    """A line that comes while a follower reads what there was."""

    async def story(machine: Machine, logs: Logs) -> None:
        machine.write(record(1, "one"))
        first = logs.read("/log", LogOptions(0, follow=True))
        assert await next_of(first) == b"one\n"
        second = logs.read("/log", LogOptions(0, follow=True))
        machine.write(record(2, "two"))
        assert await next_of(first) == b"two\n"
        assert await next_of(second) == b"one\ntwo\n"
        machine.write(record(3, "three"))
        assert (await next_of(first), await next_of(second)) == (b"three\n", b"three\n")
        await first.aclose()
        await second.aclose()

    run(story)


def test_each_log_and_attempt_has_a_reader_of_its_own() -> None:
    async def story(machine: Machine, logs: Logs) -> None:
        machine.write(record(1, "one"))
        followers = [logs.read(log, LogOptions(attempt, follow=True)) for log, attempt in (("/log", 0), ("/log", 1), ("/other", 0))]
        for each in followers:
            await next_of(each)
        assert machine.count("follow") == 3
        for each in followers:
            await each.aclose()

    run(story)


def test_the_last_who_leaves_ends_the_reader_and_the_next_begins_one() -> None:
    async def story(machine: Machine, logs: Logs) -> None:
        for number in (1, 2):
            machine.write(record(number, "line"))
            follower = logs.read("/log", LogOptions(0, follow=True, tail_lines=1))
            assert await next_of(follower) == b"line\n"
            assert machine.count("follow") == number
            await follower.aclose()
            async with asyncio.timeout(STEP_S):
                await machine.idle.wait()

    run(story)


def test_who_falls_behind_catches_up() -> None:
    """20 MB come while one does not read; another has them all the same."""

    async def story(machine: Machine, logs: Logs) -> None:
        machine.write(record(0, "first"))
        slow, quick = (logs.read("/log", LogOptions(0, follow=True)) for _ in range(2))
        assert [await next_of(slow), await next_of(quick)] == [b"first\n"] * 2
        block = record(1, "x" * 9000) * 100
        wanted = (b"x" * 9000 + b"\n") * 100
        for _ in range(20):
            machine.write(block)
            assert await next_of(quick) == wanted
        machine.end()
        assert [piece async for piece in quick] == []
        assert b"".join([piece async for piece in slow]) == wanted * 20
        assert machine.count("logs") > 2
        assert machine.count("follow") == 1

    run(story)


def test_limit_and_since_hold_for_what_comes() -> None:
    async def story(machine: Machine, logs: Logs) -> None:
        machine.write(record(1, "one"))
        limited = logs.read("/log", LogOptions(0, follow=True, limit_bytes=6))
        later = logs.read("/log", LogOptions(0, follow=True, tail_lines=1, timestamps=True, since=1_767_366_003))
        assert await next_of(limited) == b"one\n"
        assert await next_of(later) == b"one\n"  # this machine leaves it to vktool
        machine.write(record(2, "two"), record(3, "three"))
        assert await next_of(limited) == b"tw"
        assert [piece async for piece in limited] == []
        assert await next_of(later) == b"2026-01-02T15:00:03.000000000Z three\n"
        await later.aclose()

    run(story)


@pytest.mark.parametrize(("status", "error"), [(None, Unreachable), (2, HostFailed)])
def test_all_hear_how_their_reader_failed(status: int | None, error: type[Exception]) -> None:
    async def story(machine: Machine, logs: Logs) -> None:
        machine.write(record(1, "one"))
        followers = [logs.read("/log", LogOptions(0, follow=True)) for _ in range(3)]
        for each in followers:
            await next_of(each)
        machine.end(status)
        for each in followers:
            with pytest.raises(error):
                await next_of(each)

    run(story)


def test_a_session_that_ends_ends_its_followers() -> None:
    async def play() -> None:
        machine = Machine([record(1, "one")])
        over = asyncio.Event()
        async with asyncio.timeout(STEP_S), asyncio.TaskGroup() as session:
            tasks = asyncio.TaskGroup()
            ready: asyncio.Future[Logs] = asyncio.get_running_loop().create_future()

            async def link() -> None:
                async with tasks:
                    ready.set_result(Logs(HOST, "/tool", machine.start, tasks))
                    await over.wait()
                    raise Unreachable("cut")

            async def serve() -> None:
                with pytest.raises(ExceptionGroup):
                    await link()

            session.create_task(serve())
            follower = (await ready).read("/log", LogOptions(0, follow=True))
            assert await next_of(follower) == b"one\n"
            over.set()
            with pytest.raises(Unreachable):
                await next_of(follower)

    asyncio.run(play())


def test_a_host_that_is_not_there_is_said() -> None:
    async def story(machine: Machine, logs: Logs) -> None:
        machine.failure = "host host1: no session"
        with pytest.raises(Unreachable, match="no session"):
            await whole(logs, LogOptions(0, follow=True))

    run(story)


PIECES = record(1, "a", "P") + record(2, "b") + record(3, "") + record(4, "c", "P")


@pytest.mark.parametrize(
    ("inside", "stamps", "since", "text"),
    [
        (False, False, 0, b"ab\n\nc"),
        (False, True, 0, b"%(1)s ab\n%(3)s \n%(4)s c"),
        (True, True, 0, b"ab\n%(3)s \n%(4)s c"),
        (True, False, 3, b"\nc"),
        (False, True, 4, b"%(4)s c"),
        (False, True, 5, b""),
    ],
)
def test_records_are_rendered(inside: bool, stamps: bool, since: int, text: bytes) -> None:
    at = {b"%d" % number: stamp(1_767_366_000 + number) for number in range(5)}
    frame = Frame(0, inside, PIECES)
    for _ in range(2):
        assert frame.text(stamps=stamps, since=stamp(1_767_366_000 + since) if since else b"") == text % at
