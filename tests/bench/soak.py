"""Random Pods, made and deleted on the lab in every way: vknix lives on, hosts are left as they were, each status is a kubelet's.

Each status that the API server shows is kept and judged by kubelet_rules and truths; a Pod that breaks a rule is named with its
seed, and left in a folder with all that was seen of it.
"""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.bench import kubelet_rules, random_pods, truths, volumes
from tests.bench.mishaps import Mishaps
from tests.bench.programs import FOLDER
from tests.bench.random_pods import Case
from tests.bench.story import Story
from tests.bench.volumes import NAMESPACE
from tests.integration.build import snapshots, wait_as_before
from tests.lab.lab import Lab
from tests.lab.shell import LabError, wait_for
from tests.lab.vknixproc import NODE
from vknix.errors import VknixError
from vknix.kube import auth
from vknix.kube.client import Client
from vknix.node import first

_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_VOLUMES = "/api/v1/persistentvolumes"
_PATCH = "application/strategic-merge-patch+json"
_BUGS = ("a bug in the work on this Pod", "Traceback (most recent call last)")
_CLASSES = ("nspawn", "unit", "nixos", "nobody-has-it")
_REACHED_S, _ENDED_S, _GONE_S = 60.0, 90.0, 20.0  # _GONE_S: after its grace; on a machine that is busy with the others
_MISHAPS_S = 60.0  # more, where vknix is killed or hosts are cut

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """`only`: these numbers of all; `kill` and `cut`: what befalls vknix and its hosts. `out`: where to leave what went wrong."""

    pods: int
    at_once: int
    seed: int
    only: Collection[int]
    kill: bool
    cut: bool
    out: Path

    @property
    def away(self) -> bool:
        return self.kill or self.cut

    @property
    def patience_s(self) -> float:
        return _MISHAPS_S if self.away else 0.0

    def again(self, number: int) -> str:
        return f"scripts/bench soak --seed {self.seed} --only {number}"


@dataclass
class Run:
    """What came of it. `told`: what was seen of each Pod, with its case."""

    plan: Plan
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    told: dict[str, tuple[Case, list[Json]]] = field(default_factory=dict)
    reached_s: list[float] = field(default_factory=list)
    over_grace_s: list[float] = field(default_factory=list)


async def _one(client: Client, story: Story, case: Case, run: Run) -> list[str]:
    """What was wrong."""
    name, treatment, plan = case.pod["metadata"]["name"], case.treatment, run.plan
    began, found = time.monotonic(), []
    for each in case.beside:
        await client.request("POST", _VOLUMES, body=json.dumps(each).encode())
    await client.request("POST", _PODS, body=json.dumps(case.pod).encode())
    if treatment.until == "made":
        await story.until(name, lambda pod: True, timeout_s=_REACHED_S)
    elif not await story.until(name, lambda pod: truths.reached(pod, case.reaches), timeout_s=_REACHED_S + plan.patience_s):
        found.append(f"has not come to {case.reaches.value}")
    else:
        run.reached_s.append(time.monotonic() - began)
    await _meddle(client, case)
    if treatment.until == "ended" and not await story.until(name, _has_ended, timeout_s=_ENDED_S + plan.patience_s):
        found.append("has not ended")
    await asyncio.sleep(treatment.after_s)
    options = {} if treatment.grace_s is None else {"gracePeriodSeconds": treatment.grace_s}
    await client.request("DELETE", f"{_PODS}/{name}", body=json.dumps(options).encode())
    grace = case.pod["spec"]["terminationGracePeriodSeconds"] if treatment.grace_s is None else treatment.grace_s
    if not await story.until_gone(name, timeout_s=grace + _GONE_S + plan.patience_s):
        found.append(f"not gone {_GONE_S + plan.patience_s:.0f} s after its grace")
        await story.until_gone(name, timeout_s=90)
    for each in case.beside:
        await client.request("DELETE", f"{_VOLUMES}/{each['metadata']['name']}")
    return found


async def _meddle(client: Client, case: Case) -> None:
    """What is done to a Pod that is there."""
    path = f"{_PODS}/{case.pod['metadata']['name']}"
    if case.treatment.relabel:
        labels = {"metadata": {"labels": {"part": "another"}}}
        await client.request("PATCH", path, body=json.dumps(labels).encode(), content_type=_PATCH)
    if case.treatment.look is not None:
        late = {"spec": {"ephemeralContainers": [case.treatment.look]}}
        await client.request("PATCH", f"{path}/ephemeralcontainers", body=json.dumps(late).encode(), content_type=_PATCH)


def _has_ended(pod: Json) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _judged(case: Case, story: Story, run: Run) -> list[str]:
    """What its statuses say that they may not."""
    name, forced = case.pod["metadata"]["name"], case.treatment.forced
    seen, plan = story.told(name), run.plan
    if not seen:
        return ["was never seen"]
    run.told[name] = (case, list(seen))
    if name in story.gone and not forced:
        run.over_grace_s.append(truths.over_grace_s(seen, story.gone[name]))
    found = [*kubelet_rules.broken(seen, lost=plan.cut), *truths.broken(seen, case.truths, away=plan.away)]
    if case.treatment.until != "made":
        found += truths.held_back(seen, case.reaches)
    return [*found, *truths.last_word(seen, forced=forced)]


def _leave(case: Case, seen: Sequence[Json], out: Path) -> None:
    name = case.pod["metadata"]["name"]
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.yaml").write_text(yaml.safe_dump(case.pod, sort_keys=False))
    (out / f"{name}.seen.json").write_text(json.dumps(seen, indent=1))


async def _all(lab: Lab, plan: Plan, run: Run) -> Counter[str]:
    """Makes all of them; how often which mishap befell them."""
    room = asyncio.Semaphore(plan.at_once)
    mishaps = Mishaps(lab, Random(plan.seed), plan.kill, plan.cut)

    async def one(client: Client, story: Story, number: int) -> None:
        async with room:
            case = random_pods.case(plan.seed, number, lab.images)
            name = case.pod["metadata"]["name"]
            try:
                found = await _one(client, story, case, run)
            except VknixError as error:
                found = [f"the API server says: {error}"]
        found += _judged(case, story, run)
        if found:
            run.wrong[name] += found
            _leave(case, story.told(name), plan.out)
            print(f"{name} ({case.reaches.value}, {case.treatment}): {'; '.join(found)}\n    {plan.again(number)}", flush=True)

    async with Client(await auth.load(Path(lab.env()["KUBECONFIG"]))) as client, asyncio.TaskGroup() as tasks:
        story = Story(client, _PODS)
        following = tasks.create_task(story.run())
        await story.ready.wait()
        tasks.create_task(mishaps.run())
        try:
            async with asyncio.TaskGroup() as work:
                for number in plan.only or range(plan.pods):
                    work.create_task(one(client, story, number))
        finally:
            mishaps.over.set()
            following.cancel()
    return mishaps.count


def _prepare(lab: Lab) -> None:
    lab.kubectl("create", "namespace", NAMESPACE, check=False)
    account = ("get", "serviceaccount", "default", f"--namespace={NAMESPACE}")
    wait_for(lambda: lab.kubectl(*account, check=False).returncode == 0, "the namespace has an account", timeout_s=30)
    classes = [{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": of}, "handler": of} for of in _CLASSES]
    there = volumes.objects(NODE, lab.hosts[0].name)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [*there, *classes]})
    lab.kubectl("delete", "persistentvolumes", f"--selector={NAMESPACE}=one", "--timeout=60s")
    lab.kubectl("apply", f"--namespace={NAMESPACE}", "--filename=-", input=text)
    for host in lab.hosts:
        host.run(f"rm -rf {FOLDER}; mkdir -m 0777 {FOLDER}; mkdir -p -m 0777 {volumes.LOCAL}")


def _begun(lab: Lab) -> dict[str, dict[str, dict[str, int]]]:
    """By Pod, host and container: how often it began."""
    begun: dict[str, dict[str, dict[str, int]]] = {}
    for host in lab.hosts:
        for line in host.run(f"cd {FOLDER} && for file in $(ls); do echo $(wc -l < $file) $file; done").splitlines():
            count, _, file = line.partition(" ")
            pod, _, container = file.partition(".")
            begun.setdefault(pod, {}).setdefault(host.name, {})[container] = int(count)
    return begun


def soak(lab: Lab, plan: Plan) -> list[str]:
    """What was wrong, in words; prints how it goes."""
    lab.vknix.start()
    _prepare(lab)
    before, process, began = snapshots(lab), lab.vknix.pid, time.monotonic()
    logged, files = len(lab.vknix.log()), _files(lab)
    run = Run(plan)
    try:
        mishaps = asyncio.run(_all(lab, plan, run))
    except* LabError as group:
        raise first(group) from group
    lab.vknix.start()
    begun = _begun(lab)
    for name, (case, seen) in run.told.items():
        forced = truths.was_forced(seen, forced=case.treatment.forced)
        if found := list(truths.starts(seen[-1], case.truths, begun.get(name, {}), forced=forced, cut=plan.cut)):
            run.wrong[name] += found
            _leave(case, seen, plan.out)
    broken = dict(run.wrong)
    _tell(run, broken, mishaps, time.monotonic() - began)
    after = _after(lab, before, None if mishaps["kill -9 of vknix"] else process, logged, files)
    return [*(f"{name}: {'; '.join(rules)}" for name, rules in broken.items()), *after]


def _tell(run: Run, broken: Mapping[str, Sequence[str]], mishaps: Counter[str], took_s: float) -> None:
    befell = "".join(f", {count} times {what}" for what, count in mishaps.items())
    print(f"{len(run.told)} Pods in {took_s:.0f} s, seed {run.plan.seed}{befell}; {len(broken)} broke a rule")
    for what, times in (
        ("from POST to as far as they come", run.reached_s),
        ("from the end of the grace to gone", run.over_grace_s),
    ):
        if times:
            ordered = sorted(times)
            shown = (f"p{share} {ordered[int((len(ordered) - 1) * share / 100)]:.1f}" for share in (50, 90, 99, 100))
            print(f"  {what}, s: {'  '.join(shown)}")
    for rule, count in Counter(rule.partition(": ")[2] or rule for rules in broken.values() for rule in rules).most_common():
        print(f"  {count:4} {rule}")
    if broken:
        print(f"  what was seen of them: {run.plan.out}")


def _files(lab: Lab) -> int:
    return len(list(Path(f"/proc/{lab.vknix.pid}/fd").iterdir()))


def _after(lab: Lab, before: list[str], process: int | None, logged: int, files: int) -> list[str]:
    """`process`: vknix's, where it was not ended on purpose."""
    found = []
    if process is not None and lab.vknix.pid != process:
        found.append("vknix ended")
    for bug in _BUGS:
        if count := lab.vknix.log()[logged:].count(bug):
            found.append(f"{count} times in {lab.vknix.log_file}: {bug}")
    try:
        wait_as_before(lab, before, timeout_s=60)
    except LabError as error:
        found.append(str(error))
    try:
        if process is not None:  # a few streams to hosts are kept for the next exec
            wait_for(lambda: _files(lab) <= files + 8, f"vknix closes files: it had {files} open", timeout_s=60)
    except LabError as error:
        found.append(f"{error}, and now has {_files(lab)}")
    return found
