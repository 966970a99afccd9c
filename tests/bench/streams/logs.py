"""scripts/bench logs: how fast a log comes, and how soon a line that was written is there; against journald's by SSH."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.bench.streams.ways import FOLDER, Figures, Way, Ways, said, timed, ways
from tests.lab.lab import Lab

BYTES = 100_000_000
RATES = (10, 500, 2000)  # lines a second
SECONDS = 8
SETTLE_S = 60.0
BARE = "bare: ssh, journalctl"
# None of journald's limits stands in its way, and it keeps as much as vknix does.
LIMITS = "[Journal]\\nStorage=persistent\\nSystemMaxUse=2G\\nRateLimitIntervalSec=0\\n"
CONF = "/run/systemd/journald.conf.d"
UNLIMITED = f"""mkdir -p /var/log/journal {CONF} && printf '{LIMITS}' > {CONF}/bench.conf &&
    systemctl restart systemd-journald && journalctl --flush"""
RUN = "systemd-run --quiet --collect --unit={unit} -p StandardError=journal " + f"{FOLDER}/payload"


@dataclass(frozen=True, slots=True)
class Bench:
    ways: Ways
    rounds: int

    async def backlog(self) -> None:
        """100 MB that are there already."""
        pod = await self.ways.pod("lines", "lines", str(BYTES))
        await self.ways.ended(pod)
        unit = f"bench-lines-{int(time.time())}"
        await self.ways.bare.run(f"{RUN.format(unit=unit)} lines {BYTES}; journalctl --sync")
        await self._settle(unit)
        figures, cpu = Figures(), dict[str, str]()
        for _ in range(self.rounds):
            for way in (self.ways.straight, self.ways.through):
                with self.ways.cpu() as used, timed(figures, way.name, lambda seconds: BYTES / 1e6 / seconds):
                    size = await self._read(way, pod)
                assert size == BYTES, size
                cpu[way.name] = said(used, 1)
            began = time.perf_counter()
            size = await self._journal(unit)
            figures.add(BARE, size / 1e6 / (time.perf_counter() - began))
        figures.show(f"backlog of {BYTES // 1_000_000} MB (of the journal: {size // 1_000_000} MB)", "MB/s", against=BARE)
        for name, seconds in cpu.items():
            print(f"    {name}: s of CPU: {seconds}")

    async def _settle(self, unit: str) -> None:
        """Until the unit has ended and journald has taken what it will."""
        async with asyncio.timeout(SETTLE_S):
            while b"active" in await self.ways.bare.run(f"systemctl show --property=ActiveState {unit} | grep -w active || :"):  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        await self.ways.bare.run("journalctl --sync")

    async def _read(self, way: Way, pod: object) -> int:
        async with way.log(pod) as content:  # type: ignore[arg-type]
            return sum([len(piece) async for piece in content.iter_any()])

    async def _journal(self, unit: str) -> int:
        size = 0
        async with self.ways.bare.stream(f"journalctl --no-pager -o cat -u {unit}") as process:
            while data := await process.stdout.read(1 << 16):
                size += len(data)
        return size

    async def follow(self) -> None:
        """From a line's writing to its coming, for one follower."""
        for rate in RATES:
            figures = Figures()
            for way in (self.ways.straight, self.ways.through):
                pod = await self.ways.pod(f"ticks-{rate}", "ticks", str(rate), str(SECONDS))
                async with way.log(pod, follow="true", **self._since(way)) as content:
                    lost = await self._lags(content.iter_any(), figures, way.name, rate)
                    assert lost == 0, f"{lost} lines are lost"
            await self._follow_journal(figures, rate)
            figures.show(f"lag of a follower at {rate} lines/s", "ms", against=BARE)

    def _since(self, way: Way) -> dict[str, str]:
        return {"tailLines": "1"} if way.through else {"tail": "1"}

    async def _follow_journal(self, figures: Figures, rate: int) -> None:
        unit = f"bench-ticks-{rate}-{int(time.time())}"
        async with self._stream(f"journalctl --no-pager -n 0 -f -o cat -u {unit}") as pieces:
            await asyncio.sleep(1)  # it has no word for being ready
            await self.ways.bare.run(f"{RUN.format(unit=unit)} ticks {rate} {SECONDS}")
            lost = await self._lags(pieces, figures, BARE, rate)
        if lost:
            print(f"    {BARE}: {lost} lines lost")

    @asynccontextmanager
    async def _stream(self, command: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self.ways.bare.stream(command) as process:

            async def pieces() -> AsyncIterator[bytes]:
                while data := await process.stdout.read(1 << 16):
                    yield data

            yield pieces()

    async def _lags(self, pieces: AsyncIterator[bytes], figures: Figures, who: str, rate: int) -> int:
        """How many lines are missing among those that came, of which the first second's do not count."""
        rest, last, lost = b"", None, 0
        async with asyncio.timeout(SECONDS * 3 + 20):
            async for piece in pieces:
                now = time.time_ns()
                *lines, rest = (rest + piece).split(b"\n")
                for words in (line.split() for line in lines):
                    if len(words) != 2 or not words[0].isdigit():
                        continue  # what systemd says of the unit
                    number = int(words[0])
                    lost += number - last - 1 if last is not None else 0
                    last = number
                    if number >= rate:
                        figures.add(who, (now - int(words[1])) / 1e6)
                if last == rate * SECONDS - 1:
                    break
        return lost


PARTS: dict[str, Callable[[Bench], Awaitable[None]]] = {"backlog": Bench.backlog, "follow": Bench.follow}


async def bench(lab: Lab, parts: tuple[str, ...], rounds: int) -> None:
    async with ways(lab) as there:
        await there.bare.run(UNLIMITED)
        for part in parts:
            print(f"\nlogs, {part}:", flush=True)
            await PARTS[part](Bench(there, rounds))
