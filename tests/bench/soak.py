"""Random Pods, made and deleted on the lab in every way: vknix lives on, hosts are left as they were, each status is a kubelet's.

Each status that the API server shows is kept and judged by kubelet_rules; a Pod that breaks a rule is named with its seed.
"""

import asyncio
import json
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

from tests.bench import kubelet_rules, random_pods
from tests.bench.random_pods import Case
from tests.integration.build import snapshots, wait_as_before
from tests.lab.lab import Lab
from tests.lab.shell import LabError, wait_for
from vknix.kube import auth, watch
from vknix.kube.client import Client

NAMESPACE = "soak"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_BUG = "a bug in the work on this Pod"
_GONE_S = 90.0

Json = dict[str, Any]


class Story:
    """All that the API server has shown of each Pod, by name."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._news = asyncio.Condition()
        self.seen: dict[str, list[Json]] = {}
        self.gone: set[str] = set()
        self.ready = asyncio.Event()

    async def run(self) -> None:
        async with aclosing(watch.follow(self._client, _PODS, query={}, decode=json.loads)) as events:
            async for event in events:
                match event:
                    case watch.Listed(_):
                        self.ready.set()
                    case watch.Changed(pod):
                        await self._saw(pod, gone=False)
                    case watch.Gone(pod):
                        await self._saw(pod, gone=True)
                    case watch.Lost(error):
                        raise error

    async def _saw(self, pod: Json, *, gone: bool) -> None:
        async with self._news:
            name = pod["metadata"]["name"]
            self.seen.setdefault(name, []).append(pod)
            if gone:
                self.gone.add(name)
            self._news.notify_all()

    async def until(self, name: str, what: str, *, timeout_s: float) -> bool:
        """Whether it came so far in time: `begun` is that vknix has taken it up and something of it ran, or never can."""
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: name in self.gone or (what != "gone" and _is(self.seen.get(name, []), what)))
        except TimeoutError:
            return False
        return True


def _is(seen: list[Json], what: str) -> bool:
    status = seen[-1].get("status", {}) if seen else {}
    if what == "made":
        return bool(seen)
    ended = status.get("phase") in ("Succeeded", "Failed")
    return ended or (what == "begun" and status.get("phase") == "Running")


async def _one(client: Client, story: Story, case: Case, folder: Path) -> list[str]:
    """What was wrong; then what was seen is left in `folder`."""
    name, treatment = case.pod["metadata"]["name"], case.treatment
    await client.request("POST", _PODS, body=json.dumps(case.pod).encode())
    await story.until(name, treatment.until, timeout_s=20)  # what never begins is deleted as well
    await asyncio.sleep(treatment.after_s)
    options = {} if treatment.grace_s is None else {"gracePeriodSeconds": treatment.grace_s}
    await client.request("DELETE", f"{_PODS}/{name}", body=json.dumps(options).encode())
    if not await story.until(name, "gone", timeout_s=_GONE_S):
        return [f"not gone {_GONE_S:.0f} s after its deletion"]
    seen = story.seen.pop(name)
    wrong = [*kubelet_rules.broken(seen), *kubelet_rules.last_word(seen, forced=treatment.forced)]
    if wrong:
        (folder / f"{name}.json").write_text(json.dumps(seen, indent=1))
    return wrong


async def _all(lab: Lab, seed: int, pods: int, at_once: int) -> dict[str, list[str]]:
    """What was wrong, by Pod."""
    wrong: dict[str, list[str]] = {}
    room = asyncio.Semaphore(at_once)
    folder = lab.layout.folder / "soak"
    folder.mkdir(exist_ok=True)

    async def one(client: Client, story: Story, number: int) -> None:
        case = random_pods.case(seed, number, lab.image_busybox)
        async with room:
            found = await _one(client, story, case, folder)
        if found:
            wrong[case.pod["metadata"]["name"]] = found
            print(f"{case.pod['metadata']['name']} ({case.treatment}): {'; '.join(found)}", flush=True)

    async with Client(await auth.load(Path(lab.env()["KUBECONFIG"]))) as client, asyncio.TaskGroup() as tasks:
        story = Story(client)
        following = tasks.create_task(story.run())
        await story.ready.wait()
        async with asyncio.TaskGroup() as work:
            for number in range(pods):
                work.create_task(one(client, story, number))
        following.cancel()
    return wrong


def soak(lab: Lab, *, pods: int, at_once: int, seed: int) -> list[str]:
    """What was wrong, in words; prints how it goes."""
    lab.vknix.start()
    lab.kubectl("create", "namespace", NAMESPACE, check=False)
    account = ("get", "serviceaccount", "default", f"--namespace={NAMESPACE}")
    wait_for(lambda: lab.kubectl(*account, check=False).returncode == 0, "the namespace has an account", timeout_s=30)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(random_pods.OBJECTS)})
    lab.kubectl("apply", f"--namespace={NAMESPACE}", "--filename=-", input=text)
    before, process, began = snapshots(lab), lab.vknix.pid, time.monotonic()
    logged = len(lab.vknix.log())
    broken = asyncio.run(_all(lab, seed, pods, at_once))
    print(f"{pods} Pods in {time.monotonic() - began:.0f} s, seed {seed}; {len(broken)} broke a rule")
    for rule, count in Counter(rule for rules in broken.values() for rule in rules).most_common():
        print(f"  {count:4} {rule}")
    return [*(f"{name}: {'; '.join(rules)}" for name, rules in broken.items()), *_after(lab, before, process, logged)]


def _after(lab: Lab, before: list[str], process: int | None, logged: int) -> list[str]:
    found = []
    if lab.vknix.pid != process:
        found.append("vknix ended")
    bugs = lab.vknix.log()[logged:].count(_BUG)
    if bugs:
        found.append(f"workers met a bug {bugs} times: see {lab.vknix.log_file}")
    try:
        wait_as_before(lab, before, timeout_s=60)
    except LabError as error:
        found.append(str(error))
    return found
