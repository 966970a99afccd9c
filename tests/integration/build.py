"""Pods for the tests on the lab, made in few words; and a namespace as a user has it in hand, through kubectl."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from difflib import unified_diff
from typing import Any

from tests.lab.hosts import Host
from tests.lab.lab import Lab
from tests.lab.shell import LabError, wait_for

Json = dict[str, Any]
HOST = "vknix.io/host"
SLEEP = "exec sleep 3600"
WHILE_NOT_TOLD = "until [ -e /data/go ]; do sleep 0.1; done"  # with `data` mounted, see `tell`


def container(image: str, script: str = SLEEP, *, name: str = "main", **fields: Any) -> Json:
    """One that runs a shell script of busybox."""
    return {"name": name, "image": image, "command": ["sh", "-c", script], **fields}


def sidecar(image: str, script: str = SLEEP, *, name: str = "side", **fields: Any) -> Json:
    """An init container that runs beside the others."""
    return container(image, script, name=name, restartPolicy="Always", **fields)


def pod(name: str, *containers: Json, restart: str = "Never", grace_s: int = 2, **spec: Any) -> Json:
    """A Pod that means a virtual node, as a user writes one."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"type": "virtual-kubelet"},
            "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": grace_s,
            "containers": list(containers),
            **spec,
        },
    }


def with_data(of: Json) -> Json:
    """The Pod with an emptyDir, at /data in each container."""
    of["spec"].setdefault("volumes", []).append({"name": "data", "emptyDir": {}})
    for each in (*of["spec"].get("initContainers", ()), *of["spec"]["containers"]):
        each.setdefault("volumeMounts", []).append({"name": "data", "mountPath": "/data"})
    return of


def held(of: Json) -> Json:
    """The Pod with a finalizer: its last status can be read when vknix is done with it; see `Space.let_go`."""
    of["metadata"]["finalizers"] = ["example.com/hold"]
    return of


def most_of_a_host() -> Json:
    """Resources of which each host has room for one alone: two such Pods are on two hosts."""
    return {"requests": {"cpu": f"{(os.cpu_count() or 1) * 600}m"}}


def third_of_a_host() -> Json:
    """Beside one that has most of it, a host has room for one such Pod."""
    return {"requests": {"cpu": f"{(os.cpu_count() or 1) * 300}m"}}


def status(of: Json, name: str = "main") -> Json:
    """The status of one container, of whichever kind; empty while there is none."""
    told = of.get("status", {})
    every = (*(told.get("initContainerStatuses") or ()), *(told.get("containerStatuses") or ()))
    return next((dict(each) for each in every if each["name"] == name), {})


def terminated(of: Json, name: str = "main") -> Json:
    return dict(status(of, name).get("state", {}).get("terminated") or {})


def waiting(of: Json, name: str = "main") -> str:
    """Why a container waits; empty where it does not."""
    return str(status(of, name).get("state", {}).get("waiting", {}).get("reason", ""))


def runs(of: Json, name: str = "main") -> bool:
    return "running" in status(of, name).get("state", {})


def condition(of: Json, kind: str) -> Json:
    return next((dict(each) for each in of.get("status", {}).get("conditions") or () if each["type"] == kind), {})


def phase(of: Json) -> str:
    return str(of.get("status", {}).get("phase", ""))


def host_of(of: Json) -> str:
    return str((of.get("metadata", {}).get("annotations") or {}).get(HOST, ""))


def uid32(of: Json) -> str:
    return str(of["metadata"]["uid"]).replace("-", "")


def is_ready(of: Json) -> bool:
    return phase(of) == "Running" and condition(of, "Ready").get("status") == "True"


def has_ended(of: Json) -> bool:
    return phase(of) in ("Succeeded", "Failed")


def identity(of: Json) -> tuple[str, int, str]:
    """What stays the same as long as nothing restarts: container ID, restartCount, startedAt."""
    known = status(of)
    return known["containerID"], known["restartCount"], known["state"]["running"]["startedAt"]


def seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def tell(host: Host, of: Json) -> None:
    """What a container waits for that runs `WHILE_NOT_TOLD`: it works without vknix, and without the network."""
    host.inside(f"touch /var/lib/vknix/{uid32(of)}/empty/data/go")


def snapshots(lab: Lab) -> list[str]:
    """What vknix has on each host."""
    return [host.snapshot() for host in lab.hosts]


def wait_as_before(lab: Lab, before: list[str], *, timeout_s: float = 20) -> None:
    """Until each host has what it had, and nothing else; LabError shows what differs."""
    try:
        wait_for(lambda: snapshots(lab) == before, "the hosts are as before", timeout_s=timeout_s)
    except LabError as error:
        pairs = zip(before, snapshots(lab), strict=True)
        differences = [
            line for one, other in pairs for line in unified_diff(one.splitlines(), other.splitlines(), lineterm="", n=0)
        ]
        raise LabError(f"{error}:\n{chr(10).join(differences)}") from error


@dataclass(frozen=True, slots=True)
class Space:
    """One namespace."""

    lab: Lab
    name: str

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """What kubectl prints."""
        return self.lab.kubectl(f"--namespace={self.name}", *args, input=stdin, check=check).stdout

    def create(self, *objects: Json) -> None:
        """All in one call."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("create", "--filename=-", stdin=text)

    def pods(self) -> dict[str, Json]:
        """All that are there, by name."""
        listed = json.loads(self.kubectl("get", "pods", "--output=json"))["items"]
        return {of["metadata"]["name"]: of for of in listed}

    def pod(self, name: str) -> Json:
        return self.pods()[name]

    def wait(self, done: Callable[[Json], bool], *names: str, timeout_s: float = 40) -> dict[str, Json]:
        """The Pods of these names (none: all) once each is `done`. LabError tells how those are that are not."""
        now: dict[str, Json] = {}

        def lacking() -> list[str]:
            now.clear()
            now.update(self.pods())
            return [name for name in names or now if name not in now or not done(now[name])]

        try:
            wait_for(lambda: not lacking(), "Pods are as wanted", timeout_s=timeout_s)
        except LabError as error:
            shown = {name: now.get(name, {}).get("status") for name in lacking()}
            raise LabError(f"{error}: {json.dumps(shown, indent=1)}\n{self.kubectl('get', 'events')}") from error
        return now

    def wait_gone(self, *names: str, timeout_s: float = 40) -> None:
        wait_for(lambda: not self.pods().keys() & set(names), f"{', '.join(names)} are gone", timeout_s=timeout_s)

    def clear(self) -> None:
        """Deletes all Pods, and waits until they are gone."""
        self.kubectl("delete", "pods", "--all", "--grace-period=1", "--timeout=60s")

    def run(self, of: Json, *, timeout_s: float = 40) -> Json:
        """Makes a Pod, and waits for its end."""
        name = of["metadata"]["name"]
        self.create(of)
        return self.wait(has_ended, name, timeout_s=timeout_s)[name]

    def shown(self, name: str) -> str:
        """What kubectl has in its column STATUS."""
        return self.kubectl("get", "pod", name, "--no-headers").split()[2]

    def exec(self, name: str, *argv: str) -> str:
        return self.kubectl("exec", name, "--", *argv)

    def logs(self, name: str, *flags: str) -> str:
        return self.kubectl("logs", name, *flags)

    def let_go(self, name: str) -> None:
        """Takes a held Pod's finalizer away."""
        self.kubectl("patch", "pod", name, "--type=merge", '--patch={"metadata":{"finalizers":null}}')

    def events(self, name: str) -> list[tuple[str, str]]:
        """Reason and message of each Event about a Pod."""
        selector = f"--field-selector=involvedObject.name={name}"
        return [
            (event["reason"], event["message"])
            for event in json.loads(self.kubectl("get", "events", selector, "--output=json"))["items"]
        ]

    def wait_event(self, name: str, reason: str, *, timeout_s: float = 20) -> str:
        """The message of the first such Event, once there is one."""
        found: list[str] = []

        def there() -> bool:
            found[:] = [message for kind, message in self.events(name) if kind == reason]
            return bool(found)

        wait_for(there, f"an Event {reason} about {name}", timeout_s=timeout_s)
        return found[0]


def at_once(*work: Callable[[], object]) -> None:
    """Runs all of it side by side; raises what the first of them raised."""
    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(each) for each in work]:
            done.result()
