"""scripts/bench exec: how soon, how fast and how surely a command in a container is reached."""

import asyncio
import hashlib
import os
import random
import shlex
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from tests.bench.streams.ways import BLOCK, FOLDER, NAMESPACE, PAYLOAD, PLAIN, Channel, Figures, Pod, Way, Ways, said, timed, ways
from tests.lab.lab import Lab

MIB = 1 << 20
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # MiB of stdin
TRIES = 42
STALL_S, IDLE_S = 30.0, 600.0
LOOK_S, GONE_S = 1.0, 60.0
SUCCESS = "Success"


@dataclass(frozen=True, slots=True)
class There:
    """What sessions hold: files of vknix, processes of sshd and cgroups of commands on the host."""

    descriptors: int
    sshds: int
    cgroups: int

    def less(self, other: "There") -> "There":
        return There(self.descriptors - other.descriptors, self.sshds - other.sshds, self.cgroups - other.cgroups)

    @property
    def is_more(self) -> bool:
        return max(self.descriptors, self.sshds, self.cgroups) > 0


@dataclass(frozen=True, slots=True)
class Bench:
    ways: Ways
    pod: Pod
    rounds: int
    mib: int

    @property
    def http(self) -> tuple[Way, Way]:
        return self.ways.straight, self.ways.through

    async def latency(self) -> None:
        """A no-op to its end: a new WebSocket each, against nsenter on an open SSH connection, and by the program ssh."""
        inside = f"nsenter --target {await self._leader()} --all"
        figures, cpu = Figures(), dict[str, str]()
        bare, program = "bare: ssh, nsenter", "the program ssh, nsenter"
        ssh = ["ssh", "-F", str(self.ways.lab.layout.ssh_config), self.ways.host.name, f"{inside} {PAYLOAD} true"]
        for block in range(5):
            for way in self.http:
                with self.ways.cpu() as used:
                    for _ in range(40):
                        with timed(figures, way.name, _ms):
                            await way.exec(self.pod, PAYLOAD, "true")
                cpu[way.name] = said({who: seconds * 1e3 for who, seconds in used.items()}, 40)
            for _ in range(40):
                with timed(figures, bare, _ms):
                    await self.ways.bare.run(f"{inside} {PAYLOAD} true")
            for _ in range(10):
                with timed(figures, program, _ms):
                    await asyncio.to_thread(subprocess.run, ssh, check=True)
            if block == 0:
                figures = Figures()
        figures.show("exec of a no-op", "ms", against=bare)
        for name, used_ms in cpu.items():
            print(f"    {name}: ms of CPU each: {used_ms}")

    async def bulk(self) -> None:
        """Out and in, hashed at both ends."""
        digest = (await self._say(f"head -c {self.mib * MIB} /dev/urandom > /bench/blob; sha256sum /bench/blob")).split()[0]
        out, into, cpu = Figures(), Figures(), list[str]()
        rate = lambda seconds: self.mib / seconds  # noqa: E731
        for _ in range(self.rounds):
            for who, channel in self.ways.channels.items():
                with timed(out, who, rate):
                    came = await self._bare_out(channel(f"cat {FOLDER}/blob"))
                assert came == digest
            for way in self.http:
                hashed = hashlib.sha256()
                with self.ways.cpu() as used, timed(out, way.name, rate):
                    await way.exec(self.pod, "cat", "/bench/blob", sink=hashed.update)
                assert hashed.hexdigest() == digest
                cpu.append(f"    out, {way.name}: s of CPU a GiB: {said(used, self.mib / 1024)}")
            for who, channel in self.ways.channels.items():
                sent = hashlib.sha256()
                with timed(into, who, rate):
                    await self._bare_in(channel(f"cat > {FOLDER}/came"), sent)
                assert await self._hash() == sent.hexdigest()
            for way in self.http:
                sent = hashlib.sha256()
                with self.ways.cpu() as used, timed(into, way.name, rate):
                    await way.exec(self.pod, "sh", "-c", "cat > /bench/came", stdin=_random(self.mib * MIB, sent))
                assert await self._hash() == sent.hexdigest()
                cpu.append(f"    in, {way.name}: s of CPU a GiB: {said(used, self.mib / 1024)}")
        out.show(f"{self.mib} MiB of stdout, hashed at both ends", "MiB/s", against=PLAIN)
        into.show(f"{self.mib} MiB of stdin, hashed at both ends", "MiB/s", against=PLAIN)
        print("\n".join(cpu[-4:]))

    async def _bare_out(self, channel: Channel) -> str:
        hashed = hashlib.sha256()
        async with channel as process:
            while data := await process.stdout.read(1 << 16):
                hashed.update(data)
        return hashed.hexdigest()

    async def _bare_in(self, channel: Channel, sent: "hashlib._Hash") -> None:
        async with channel as process:
            for block in _random(self.mib * MIB, sent):
                process.stdin.write(block)
                await process.stdin.drain()
            process.stdin.write_eof()
            await process.wait()

    async def stalled(self) -> None:
        """What it costs vknix that a client does not read on."""
        await self._say(f"[ -e /bench/blob ] || head -c {self.mib * MIB} /dev/urandom > /bench/blob")
        query = [("command", "cat"), ("command", "/bench/blob"), ("output", "1")]
        for number in range(2):
            await self._rest()
            before = self.ways.vknix_rss()
            async with self.ways.straight.websocket(self.pod, "exec", query, "v5.channel.k8s.io") as ws:
                await ws.receive_bytes()
                transport = ws.get_extra_info("socket")
                assert transport is not None
                highest = before
                for _ in range(int(STALL_S)):  # of this client's own buffers, none is large
                    await asyncio.sleep(1)
                    highest = max(highest, self.ways.vknix_rss())
            if number:  # the first has warmed up what is kept
                print(
                    f"  a reader that stalls for {STALL_S:.0f} s costs vknix {(highest - before) / MIB:.2f} MiB of RSS", flush=True
                )

    async def stdin(self) -> None:
        """Into `cat > file`, by WebSocket and by kubectl's SPDY in turn."""
        cut = 0
        for number in range(TRIES):
            size, sent = SIZES[number % len(SIZES)] * MIB, hashlib.sha256()
            command = ("sh", "-c", "cat > /bench/came")
            if number % 2:
                await asyncio.to_thread(self._kubectl_stdin, command, _random(size, sent))
            else:
                await self.ways.through.exec(self.pod, *command, stdin=_random(size, sent))
            cut += await self._hash() != sent.hexdigest()
        print(f"  stdin into a plain `cat > file`, {SIZES[0]} to {SIZES[-1]} MiB: cut in {cut} of {TRIES} tries", flush=True)

    def _kubectl_stdin(self, command: tuple[str, ...], blocks: Iterator[bytes]) -> None:
        layout = self.ways.lab.layout
        kubectl = [str(layout.bin / "kubectl"), f"--kubeconfig={layout.admin_kubeconfig}", f"--namespace={NAMESPACE}"]
        env = {**os.environ, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"}
        with subprocess.Popen([*kubectl, "exec", "-i", self.pod.name, "--", *command], stdin=subprocess.PIPE, env=env) as process:
            assert process.stdin is not None
            for block in blocks:
                process.stdin.write(block)
            process.stdin.close()
            assert process.wait(300) == 0

    async def many(self) -> None:
        """1,000 in a row and 100 at once, and what they leave."""
        await self.ways.through.exec(self.pod, PAYLOAD, "true")
        before = await self._rest()
        began, failed = time.perf_counter(), 0
        for _ in range(1000):
            failed += (await self.ways.through.exec(self.pod, PAYLOAD, "true"))["status"] != SUCCESS
        took = time.perf_counter() - began
        print(f"  1,000 execs in a row: {failed} failed, {1000 / took:.1f}/s", flush=True)
        began = time.perf_counter()
        each = await asyncio.gather(
            *(self.ways.through.exec(self.pod, PAYLOAD, "true") for _ in range(100)), return_exceptions=True
        )
        failed = sum(isinstance(one, BaseException) or one["status"] != SUCCESS for one in each)
        print(f"  100 at once: {failed} failed, {time.perf_counter() - began:.1f} s", flush=True)
        left = await self._left(before)
        print(f"    left: {left.descriptors} descriptors, {left.sshds} processes of sshd, {left.cgroups} cgroups", flush=True)

    async def _there(self) -> There:
        sshds = await self.ways.bare.run("cat /proc/[0-9]*/comm 2>/dev/null | grep -c '^sshd' || :")
        cgroups = await self.ways.bare.run("find /sys/fs/cgroup -type d -name 'exec-*' | wc -l")
        return There(self.ways.vknix_descriptors(), int(sshds), int(cgroups))

    async def _rest(self) -> There:
        """Once no command of a session is there, and three looks in a row find the same."""
        looks: list[There] = []
        async with asyncio.timeout(GONE_S):
            while len(looks) < 3 or len(set(looks[-3:])) > 1 or looks[-1].cgroups:
                looks.append(await self._there())
                await asyncio.sleep(LOOK_S)
        return looks[-1]

    async def _left(self, before: There) -> There:
        """What is there more than `before`, once it is nothing; after a minute it counts as left for good."""
        deadline = time.monotonic() + GONE_S
        while (more := (await self._there()).less(before)).is_more and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        return more

    async def idle(self) -> None:
        """A session in which nothing happens for long."""

        def lines() -> Iterator[bytes]:
            yield b"before\n"

        came = bytearray()
        query = [("command", "cat"), ("stdin", "true"), ("stdout", "true")]
        async with self.ways.through.websocket(self.pod, "exec", query, "v5.channel.k8s.io") as ws:
            for line in (*lines(), b"after\n"):
                await ws.send_bytes(b"\0" + line)
                async with asyncio.timeout(10):
                    while not came.endswith(line):
                        message = await ws.receive_bytes()
                        came += message[1:] if message[0] == 1 else b""
                if line == b"before\n":
                    await asyncio.sleep(IDLE_S)
        print(f"  a session lives after {IDLE_S / 60:.0f} idle minutes", flush=True)

    async def _leader(self) -> int:
        """The container's first process, in the host's numbers."""
        out = await self.ways.bare.run(
            f"for p in /proc/[0-9]*; do grep -qsz '^{PAYLOAD}$' $p/cmdline && echo ${{p#/proc/}}; done; :"
        )
        return max(int(pid) for pid in out.split())

    async def _say(self, script: str) -> str:
        """What a script in the container writes."""
        came = bytearray()
        status = await self.ways.straight.exec(self.pod, "sh", "-c", script, sink=came.extend)
        assert status["status"] == SUCCESS, (script, status)
        return came.decode()

    async def _hash(self) -> str:
        return (await self._say("sha256sum /bench/came")).split()[0]


def _ms(seconds: float) -> float:
    return seconds * 1e3


_NOISE = random.Random(0).randbytes(8 * MIB + 1)  # an odd length: no block of it comes again soon


def _random(size: int, sent: "hashlib._Hash") -> Iterator[bytes]:
    """So many bytes, hashed as they go."""
    at = 0
    while size > 0:
        block = _NOISE[at : at + min(BLOCK, size)]
        at = (at + len(block)) % len(_NOISE)
        size -= len(block)
        sent.update(block)
        yield block


PARTS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "latency": Bench.latency,
    "bulk": Bench.bulk,
    "stalled": Bench.stalled,
    "stdin": Bench.stdin,
    "many": Bench.many,
    "idle": Bench.idle,
}


async def bench(lab: Lab, parts: tuple[str, ...], rounds: int, mib: int) -> None:
    async with ways(lab) as there:
        made = Bench(there, await there.pod("execs", "wait"), rounds, mib)
        for part in parts:
            print(f"\nexec, {part}:", flush=True)
            await PARTS[part](made)
        await there.bare.run(f"rm -f {shlex.quote(FOLDER)}/blob {shlex.quote(FOLDER)}/came")
