"""Small builders of Pods and facts: what a test does not name is plain and valid."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from vknix.core import pod as pods
from vknix.core.container_status import View
from vknix.core.facts import (
    ContainerFacts,
    Exit,
    HostFacts,
    HostName,
    HostState,
    ImageFacts,
    PodFacts,
    Reason,
    State,
    StorePath,
    Uid,
)
from vknix.core.fetched import Fetched, Surroundings
from vknix.core.image import Alias, Aliases, Image
from vknix.core.inputs import Inputs, resolve
from vknix.core.pod import Pod
from vknix.nspawn import plan as plans
from vknix.nspawn.plan import PodPlan, Settings

ROOT = StorePath(f"/nix/store/{'a' * 32}-hello-1.0")
UID = "11111111-2222-3333-4444-555555555555"
UID32 = UID.replace("-", "")
DELETED = "2026-01-02T03:04:05Z"
SETTINGS = Settings("/tool", 7)
GOLDEN = Path(__file__).with_name("golden")


def container(name: str = "main", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": ROOT, "command": ["/bin/hello"], **fields}


def pod(
    *containers: dict[str, Any],
    name: str = "web",
    restart: str = "Always",
    leaving: bool = False,
    status: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    **spec: Any,
) -> Pod:
    """As the API server would send it."""
    deletion = {"deletionTimestamp": DELETED, "deletionGracePeriodSeconds": 30} if leaving else {}
    document = {
        "metadata": {"name": name, "namespace": "shop", "uid": UID, "generation": 3, **deletion, **(metadata or {})},
        "spec": {"containers": list(containers) or [container()], "restartPolicy": restart, **spec},
        "status": status or {},
    }
    return pods.decode(json.dumps(document).encode())


def aliased(of: Pod, image: Image) -> Pod:
    """The same Pod on a node where each image name stands for `image`."""
    return msgspec.structs.replace(of, aliases=Aliases((Alias("*", image),)))


def told(of: Pod, status: dict[str, Any], **metadata: Any) -> Pod:
    """The same Pod with another status."""
    raw = json.loads(msgspec.json.encode(of))
    return pods.decode(json.dumps({**raw, "metadata": {**raw["metadata"], **metadata}, "status": status}).encode())


def ended(code: int = 0, attempt: int = 0, *, started: float | None = 10.0, finished: float = 20.0, message: str = "") -> Exit:
    reason = Reason.COMPLETED if code == 0 else Reason.ERROR
    return Exit(attempt, f"id-{attempt}", code, code - 128 if code > 128 else 0, reason, started, finished, message)


def running(name: str = "main", attempt: int = 0, *exits: Exit) -> ContainerFacts:
    return ContainerFacts(name, State.RUNNING, attempt, f"id-{attempt}", 30.0, exits, streak=len(exits))


def stopped(name: str = "main", *exits: Exit, host_restarts: bool = False) -> ContainerFacts:
    return ContainerFacts(name, State.STOPPED, exits[-1].attempt, exits=exits, streak=len(exits), host_restarts=host_restarts)


def facts(*containers: ContainerFacts, images: tuple[ImageFacts, ...] = (), since: float = 0.0) -> PodFacts:
    return PodFacts(
        Uid(UID),
        HostName("a"),
        "shop",
        "web",
        ("10.0.0.2",),
        {each.name: each for each in containers},
        {each.path: each for each in images},
        since,
    )


def view(of: PodFacts | None = None, now: float = 100.0, **fields: Any) -> View:
    return View(of, now, **{"host_ips": ("192.0.2.1",), "pod_ips": ("10.0.0.2",), "placed": True, **fields})


def host(name: str = "a", state: HostState = HostState.LISTED, **fields: Any) -> HostFacts:
    amounts = {"cpu_milli": 4000, "memory_bytes": 8 << 30, "storage_bytes": 100 << 30, "pods": 62}
    return HostFacts(HostName(name), state, "192.0.2.1", **{**amounts, **fields})


def around(**fields: Any) -> Surroundings:
    usual = {
        "node_name": "pool",
        "host_ips": ("192.0.2.1",),
        "pod_ips": ("10.0.0.2",),
        "cpu_milli": 4000,
        "memory_bytes": 8 << 30,
        "storage_bytes": 100 << 30,
        "cluster_dns": ("10.96.0.10",),
        "cluster_domain": "cluster.local",
        "host_resolv_conf": "nameserver 9.9.9.9\nsearch lan\n",
    }
    return Surroundings(**{**usual, **fields})


def inputs(of: Pod, fetched: Fetched | None = None) -> Inputs:
    return resolve(of, fetched or Fetched(), around())


def plan(of: Pod, fetched: Fetched | None = None) -> PodPlan:
    return plans.pod_plan(of, inputs(of, fetched), ("10.0.0.2",), SETTINGS, {})


def golden(name: str, text: str) -> None:
    """Compares with a file that reviews read; `scripts/golden` writes it anew."""
    file = GOLDEN / name
    if os.environ.get("VKNIX_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text(), f"{name} is not as it was: look at it, then run scripts/golden"


def parses(script: str) -> None:
    """As `sh -n` does on hosts of both kinds."""
    for shell in ("sh", "dash"):
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), script
