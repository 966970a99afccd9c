"""One host: connect, register, list, follow, and carry out what is asked of it. Glue over ssh, bus, closures and the pure texts.

What it keeps in memory is what the host has said since the link came up; when the link is lost it is all forgotten.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path

from vknix.core.facts import HostFacts, HostName, HostState
from vknix.errors import HostFailed, Unreachable
from vknix.nspawn import bus as buses
from vknix.nspawn import network, paths, registration, tree, unit
from vknix.nspawn.closures import Source
from vknix.nspawn.plan import LOG_LIMITS, LogLimits, Settings
from vknix.nspawn.session import Network, Session, checked
from vknix.nspawn.ssh import Address, Link
from vknix.provider import HostSeen, Seen
from vknix.telemetry import Telemetry

log = logging.getLogger(__name__)

TOOL = Path(__file__).with_name("vktool")
NO_TOOL = "vktool was not built with this vknix: install a C compiler and a static libc, then install vknix again"
_BACKOFF_S = (1, 2, 4, 8, 15, 30)


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What is the same for all hosts of a pool."""

    epoch: int
    seccomp_default: bool
    cluster_cidrs: tuple[str, ...]
    pod_pids: int | None = None
    logs: LogLimits = LOG_LIMITS
    telemetry: Telemetry = field(default_factory=Telemetry)


class Host:
    """`run` keeps it connected; the rest raises Unreachable while it is not."""

    def __init__(
        self, to: Address, pods: int, settings: HostSettings, tell: Callable[[Seen], None], others: Callable[[], Iterable[Source]]
    ) -> None:
        self.to = to
        self.name = HostName(to.name)
        self.facts = HostFacts(self.name, HostState.UNKNOWN, to.address, pods=pods)
        self.warnings: tuple[str, ...] = ()
        self._settings = settings
        self._tell = tell
        self._others = others
        self._session: Session | None = None
        self._slice: IPv4Network | None = None
        self._peers: tuple[network.Peer, ...] = ()
        self._routed = asyncio.Event()  # a new network is to be made on the host

    @property
    def link(self) -> Link | None:
        return self._session.link if self._session is not None else None

    @property
    def session(self) -> Session:
        if self._session is None:
            raise Unreachable(f"host {self.name} is not connected: {self.facts.message or 'connecting'}")
        return self._session

    @property
    def ready(self) -> bool:
        return self._session is not None

    def configure(self, own: IPv4Network, peers: tuple[network.Peer, ...]) -> None:
        self._slice, self._peers = own, peers
        self._routed.set()

    async def run(self) -> None:
        """For ever: connect, follow until the link is lost, say so, connect again."""
        self._tell(HostSeen(self.facts))
        failures = 0
        while True:
            try:
                async with Link.open(self.to, self._settings.telemetry) as link:
                    await self._follow(link)
            except* (Unreachable, HostFailed) as group:
                error = next(iter(_leaves(group)))
                failures = 0 if self.facts.state is HostState.LISTED else failures + 1
                self.facts = replace(self.facts, state=HostState.LOST, message=str(error))
                log.warning("%s", error)
            finally:
                self._session = None
            self._tell(HostSeen(self.facts))
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S)) - 1] if failures else 0.2)

    async def _follow(self, link: Link) -> None:
        told = registration.parse((await link.run(registration.REGISTER)).decode(errors="replace"))
        facts = registration.host_facts(self.name, self.to.address, told, self.facts.pods)
        if facts.problems:
            raise HostFailed(f"host {self.name} can't run Pods: {'; '.join(facts.problems)}")
        self.warnings = tuple(registration.warnings(told))
        await _claim(link, self._settings.epoch)
        tool = await _install_tool(link)
        async with buses.connect(link, "vk-") as bus, asyncio.TaskGroup() as tasks:
            own = self._settings
            bounding = int(told["capabilities"], 16)
            memory, nft, huge = facts.memory_bytes, told["nft"], tuple(facts.huge)
            settings = Settings(tool, own.epoch, own.seccomp_default, bounding, own.pod_pids, memory, own.logs, nft, huge)
            session = Session(self, link, bus, settings, tasks)
            session.closures.farms.update(told["farms"].split())
            tasks.create_task(_until(link.lost(), f"host {self.name}: the link was lost"))
            tasks.create_task(_until(bus.lost(), f"host {self.name}: systemd's bus was lost"))
            await session.mirror.list_all()
            self._session = session
            self.facts = replace(facts, state=HostState.LISTED)
            log.info("host %s is listed: %d Pods", self.name, len(session.mirror.pods))
            self._tell(HostSeen(self.facts))
            tasks.create_task(session.route(self._routed))
            tasks.create_task(session.sweep())
            await session.mirror.follow()

    def network(self) -> Network | None:
        return (self._slice, self._peers, self._settings.cluster_cidrs) if self._slice is not None else None

    def tell(self, seen: Seen) -> None:
        self._tell(seen)

    def others(self) -> Iterable[Source]:
        return self._others()


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _until(end: Awaitable[None], message: str) -> None:
    await end
    raise Unreachable(message)


async def _claim(link: Link, epoch: int) -> None:
    """From here on older vknix processes can change nothing on this host.

    Without nsdelegate, which systemd sets unless something has unset it, root in a container could lift its own limits.
    """
    script = f"""PATH={paths.SEARCH}; export PATH
mkdir -p -m 700 {paths.RUN} {paths.VAR} {paths.FARMS}
mkdir -p {paths.ROOTS}
grep -q ' cgroup2 .*nsdelegate' /proc/mounts || mount -o remount,nsdelegate,memory_recursiveprot /sys/fs/cgroup 2>/dev/null || :
exec 9>{paths.RUN}/lock
flock 9
now=$(cat {paths.EPOCH} 2>/dev/null || echo 0)
[ "$now" -le {epoch} ] || exit {unit.DEPOSED}
echo {epoch} > {paths.EPOCH}
"""
    checked(await link.finish(script), link.to.name)


async def _install_tool(link: Link) -> str:
    """vktool's path in the host's store; it is put there once for each version of it."""
    try:
        data = TOOL.read_bytes()
    except FileNotFoundError as error:
        raise HostFailed(NO_TOOL) from error
    name = f"vktool-{hashlib.sha256(data).hexdigest()[:16]}"
    root, source = f"{paths.ROOTS}/{name}", f"{paths.RUN}/tool/{name}"
    there = await link.run(f"[ -x {root}/bin/vktool ] && readlink {root} || :")
    if there:
        return f"{there.decode().strip()}/bin/vktool"
    files: list[tree.Entry] = [
        tree.Dir(f"{paths.RUN}/tool", 0o700),
        tree.Dir(source),
        tree.Dir(f"{source}/bin"),
        tree.File(f"{source}/bin/vktool", data, 0o555),
    ]
    script = f"""PATH={paths.SEARCH}; export PATH
set -e
tar -xpf - -C /
path=$(nix-store --add {source})
ln -sfn "$path" {root}
rm -rf {source}
echo "$path"
"""
    return f"{(await link.run(script, tree.pack(files))).decode().strip()}/bin/vktool"
