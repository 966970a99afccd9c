"""Warm Pod start: POST sent to Running seen by a watcher, in turn with the bare start of the unit that `vknix plan` prints.

The watcher is this process, not vknix's. The bare side is timed on the host itself, from the call of systemd-run to the unit's
READY, with the same files, network and closure. The stop: DELETE sent to DELETED seen, against systemctl stop.
"""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab
from vknix import planning
from vknix.kube import auth, watch
from vknix.kube.client import Client

NAMESPACE = "bench"
WAIT_S = 60.0
# It obeys TERM at once, so that a stop is measured and not a grace period.
PROGRAM = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]


@dataclass
class Times:
    """Milliseconds."""

    start: list[float] = field(default_factory=list)
    stop: list[float] = field(default_factory=list)


class Watcher:
    """What the API server tells of the Pods, as events with the time at which they were seen."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._news = asyncio.Condition()
        self._phase: dict[str, str] = {}
        self._at: dict[tuple[str, str], float] = {}
        self.ready = asyncio.Event()

    async def run(self) -> None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        async with aclosing(watch.follow(self._client, path, query={}, decode=json.loads)) as events:
            async for event in events:
                now = time.perf_counter()
                match event:
                    case watch.Listed(_):
                        self.ready.set()
                    case watch.Changed(pod):
                        await self._saw(pod["metadata"]["name"], pod.get("status", {}).get("phase", ""), now)
                    case watch.Gone(pod):
                        await self._saw(pod["metadata"]["name"], "Gone", now)
                    case watch.Lost(error):
                        raise error

    async def _saw(self, name: str, phase: str, now: float) -> None:
        async with self._news:
            self._at.setdefault((name, phase), now)
            self._news.notify_all()

    async def when(self, name: str, phase: str) -> float:
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(lambda: (name, phase) in self._at)
            return self._at[name, phase]


def pod(lab: Lab, name: str, *, seccomp: bool) -> dict[str, Any]:
    profile = {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}} if seccomp else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "nodeName": "vknix",
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "main", "image": lab.image_busybox, "command": PROGRAM}],
            **profile,
        },
    }


async def one_pod(client: Client, watcher: Watcher, of: dict[str, Any], times: Times) -> None:
    name = of["metadata"]["name"]
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    sent = time.perf_counter()
    await client.request("POST", path, body=json.dumps(of).encode())
    times.start.append((await watcher.when(name, "Running") - sent) * 1e3)
    await asyncio.sleep(0.3)  # both sides rest between start and stop
    sent = time.perf_counter()
    await client.request("DELETE", f"{path}/{name}")
    times.stop.append((await watcher.when(name, "Gone") - sent) * 1e3)


# Prints the milliseconds of a start and of a stop of one unit.
_BARE = """
t0=$(date +%s%N)
{start}
t1=$(date +%s%N)
sleep 0.3
t2=$(date +%s%N)
systemctl stop {unit}
t3=$(date +%s%N)
echo $(( (t1 - t0) / 1000 )) $(( (t3 - t2) / 1000 ))
"""


def bare_script(lab: Lab, *, seccomp: bool) -> str:
    """Makes the twin's files on the host; the script that starts and stops it once."""
    host = lab.hosts[0]
    tool = host.run("readlink /nix/var/nix/gcroots/vknix/vktool-*").split()[-1] + "/bin/vktool"
    options = planning.Options(tool, f"10.255.255.{2 + seccomp}")
    twin = pod(lab, "bare", seccomp=seccomp)
    twin["metadata"]["uid"] = f"{'1' if seccomp else '0'}0000000-0000-4000-8000-00000000ba4e"
    text = json.dumps(twin)
    host.run("sh -s", stdin=planning.preparation(text, options))
    command = planning.commands(text, options).strip()
    unit = next(word for word in command.split() if word.startswith("--unit=")).removeprefix("--unit=")
    return _BARE.format(start=command, unit=unit)


def one_bare(lab: Lab, script: str, times: Times) -> None:
    started, stopped = lab.hosts[0].run("sh -s", stdin=script).split()
    times.start.append(int(started) / 1e3)
    times.stop.append(int(stopped) / 1e3)


@asynccontextmanager
async def watching(lab: Lab) -> AsyncIterator[tuple[Client, Watcher]]:
    kubeconfig = Path(lab.env()["KUBECONFIG"])
    async with Client(await auth.load(kubeconfig)) as client, asyncio.TaskGroup() as tasks:
        watcher = Watcher(client)
        running = tasks.create_task(watcher.run())
        await watcher.ready.wait()
        yield client, watcher
        running.cancel()


async def bench(lab: Lab, rounds: int) -> None:
    await asyncio.to_thread(lab.vknix.start)
    lab.kubectl("create", "namespace", NAMESPACE, check=False)
    for seccomp in (True, False):
        ours, bare = Times(), Times()
        async with watching(lab) as (client, watcher):
            await one_pod(client, watcher, pod(lab, f"warm-{seccomp}".lower(), seccomp=seccomp), Times())
            script = bare_script(lab, seccomp=seccomp)
            one_bare(lab, script, Times())
            for number in range(rounds):
                name = f"pod-{'filter' if seccomp else 'plain'}-{number}"
                await one_pod(client, watcher, pod(lab, name, seccomp=seccomp), ours)
                one_bare(lab, script, bare)
        print(f"\nwith{'' if seccomp else 'out'} nspawn's seccomp filter, {rounds} rounds, ms:")
        report("start", ours.start, bare.start)
        report("stop", ours.stop, bare.stop)


def report(what: str, ours: list[float], bare: list[float]) -> None:
    def p90(of: list[float]) -> float:
        return sorted(of)[int(len(of) * 0.9) - 1]

    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"  {what}: ratio of medians {ratio:.2f}, of p90 {p90(ours) / p90(bare):.2f}")
    for side, of in (("vknix", ours), ("bare", bare)):
        print(f"    {side:5} p50 {statistics.median(of):6.1f}  p90 {p90(of):6.1f}  (min {min(of):.1f}, max {max(of):.1f})")
