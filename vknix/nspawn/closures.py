"""The closures of one host: which are there, how fetching goes, and that each has a root and a farm before it is used.

A closure comes from the host itself, else its substituters, else the machine that vknix runs on, else another host of the pool.
"""

import asyncio
import logging
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from vknix.core.facts import HostName, ImageFacts, ImageState, StorePath
from vknix.errors import HostFailed, Unreachable, VknixError
from vknix.nspawn import nix, tree
from vknix.nspawn.ssh import Link

log = logging.getLogger(__name__)

_FETCH_S = 3600.0
_RETRY_S = (10, 20, 40, 80, 160, 300)  # the kubelet's back-off of image pulls
KEPT_S = 600.0  # how long an unused closure stays


class Source(Protocol):
    """Another host that may have a closure."""

    @property
    def name(self) -> HostName: ...

    @property
    def link(self) -> Link | None: ...


@dataclass(slots=True)
class Closures:
    """`changed` is called with each path whose facts changed. Fetches run in `tasks`, which ends with the link."""

    name: HostName
    link: Link
    others: Callable[[], Iterable[Source]]
    changed: Callable[[StorePath], None]
    farms: set[str]
    facts: dict[StorePath, ImageFacts] = field(default_factory=dict)
    _known: dict[StorePath, nix.Closure] = field(default_factory=dict)
    _failures: dict[StorePath, int] = field(default_factory=dict)
    _used: dict[StorePath, float] = field(default_factory=dict)

    def present(self, root: StorePath) -> bool:
        return root in self._known

    @property
    def known(self) -> Mapping[StorePath, nix.Closure]:
        return self._known

    def use(self, root: StorePath) -> None:
        self._used[root] = time.monotonic()

    def want(self, root: StorePath, tasks: asyncio.TaskGroup) -> None:
        """Starts to fetch a closure, unless that is under way, done, or failed a moment ago."""
        known = self.facts.get(root)
        if known is not None and (known.state is not ImageState.FAILED or (known.retry_at or 0) > time.time()):
            return
        self._tell(ImageFacts(root, ImageState.PULLING))
        tasks.create_task(self._prepare(root), name=f"closure {root} on {self.name}")

    def _tell(self, facts: ImageFacts) -> None:
        self.facts[facts.path] = facts
        self.changed(facts.path)

    async def _prepare(self, root: StorePath) -> None:
        began = time.monotonic()
        try:
            closure = await self._query(root)
            fetched = closure is None
            if closure is None:
                await self._fetch(root)
                closure = await self._query(root)
            if closure is None:
                raise HostFailed(f"{root} is still missing after it was fetched")
            await self._make_farm(closure)
        except VknixError as error:
            self._failed(root, str(error))
            return
        self._failures.pop(root, None)
        self._known[root] = closure
        self.use(root)
        took_s = time.monotonic() - began if fetched else None
        self._tell(ImageFacts(root, ImageState.PRESENT, took_s=took_s, accounts=closure.accounts))

    def _failed(self, root: StorePath, message: str) -> None:
        failures = self._failures[root] = self._failures.get(root, 0) + 1
        wait_s = _RETRY_S[min(failures, len(_RETRY_S)) - 1]
        log.warning("%s can't be had on %s, again in %s s: %s", root, self.name, wait_s, message)
        self._tell(ImageFacts(root, ImageState.FAILED, message, retry_at=time.time() + wait_s))

    async def _query(self, root: StorePath) -> nix.Closure | None:
        told = await _output(self.link, nix.query(root), absent=nix.MISSING)
        return nix.closure(root, told) if told is not None else None

    async def _make_farm(self, closure: nix.Closure) -> None:
        if closure.root.rsplit("/", 1)[1] in self.farms:
            return
        nonce = secrets.token_hex(4)
        unpack = "tar --xattrs --xattrs-include='trusted.*' -xpf - -C / && " + nix.finish_farm(closure.root, nonce)
        await self.link.run(unpack, tree.pack(nix.farm(closure, nonce)))
        self.farms.add(closure.root.rsplit("/", 1)[1])

    async def _fetch(self, root: StorePath) -> None:
        """HostFailed with all that was tried where none has it."""
        tried = []
        try:
            await self.link.run(nix.fetch(root), timeout_s=_FETCH_S)
        except HostFailed as error:
            tried.append(f"substituters of {self.name}: {_last_line(error)}")
        else:
            return
        if shutil.which("nix-store") and await self._copy_from_here(root):
            return
        for other in self.others():
            if other.link is not None and other.name != self.name:
                try:
                    if await self._copy(root, other.link):
                        return
                except VknixError as error:
                    tried.append(f"host {other.name}: {_last_line(error)}")
        raise HostFailed(
            f"no such store path anywhere: neither on host {self.name} nor on its substituters, vknix's machine or another host "
            f"({'; '.join(tried)}); copy it to a host with nix copy, or add a substituter that has it"
        )

    async def _copy(self, root: StorePath, source: Link) -> bool:
        paths = await _output(source, nix.requisites(root), absent=1)
        if paths is None:
            return False
        missing = (await self.link.run(nix.INVALID, paths.encode())).decode().split()
        async with source.stream(nix.export(tuple(missing))) as export:
            await self._import(_blocks(export.stdout.read))
        return True

    async def _copy_from_here(self, root: StorePath) -> bool:
        process = await asyncio.create_subprocess_exec(
            "nix-store", "--query", "--requisites", root, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        paths, _ = await process.communicate()
        if process.returncode != 0:
            return False
        missing = (await self.link.run(nix.INVALID, paths)).decode().split()
        async with _local_export(missing) as read:
            await self._import(_blocks(read))
        return True

    async def _import(self, blocks: AsyncIterator[bytes]) -> None:
        async with asyncio.timeout(_FETCH_S), self.link.stream(nix.IMPORT) as into:
            async for block in blocks:
                into.stdin.write(block)
                await into.stdin.drain()
            into.stdin.write_eof()
            await into.wait()
            if into.exit_status is None:
                raise Unreachable(f"host {self.name}: the link was lost during an import")
            if into.exit_status != 0:
                why = (await into.stderr.read()).decode(errors="replace").strip()[-300:]
                raise HostFailed(f"host {self.name}: nix-store --import failed: {why}")

    async def forget_unused(self, in_use: set[StorePath]) -> None:
        """Roots and farms that no Pod on the host has used for KEPT_S go."""
        now = time.monotonic()
        for root in in_use:
            self.use(root)
        for root, at in list(self._used.items()):
            if now - at >= KEPT_S:
                await self.link.run(nix.forget(root))
                log.info("forgot %s on %s", root, self.name)
                for of in (self._used, self._known, self.facts):
                    of.pop(root, None)
                self.farms.discard(root.rsplit("/", 1)[1])


def _last_line(error: VknixError) -> str:
    return str(error).splitlines()[-1]


async def _output(link: Link, command: str, *, absent: int) -> str | None:
    """What a command prints; None where it exits with `absent`."""
    done = await link.finish(command)
    if done.status == absent:
        return None
    return done.checked(link.to.name).decode(errors="replace")


_Read = Callable[[int], Awaitable[bytes]]


async def _blocks(read: _Read) -> AsyncIterator[bytes]:
    while block := await read(1 << 18):
        yield block


@asynccontextmanager
async def _local_export(paths: list[str]) -> AsyncIterator[_Read]:
    process = await asyncio.create_subprocess_exec("nix-store", "--export", *paths, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process.stdout.read
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
