"""Resources as the kernel of a host keeps them, where its cgroups have controllers.

All Pods that only run are made at once. An emulated processor may be slow: nothing here is faster than it need be.
"""

import base64
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.build import (
    Json,
    Space,
    condition,
    container,
    has_ended,
    identity,
    is_ready,
    pod,
    status,
    terminated,
    uid32,
)
from tests.integration.conftest import made_namespace
from tests.lab.hosts import Host
from tests.lab.lab import Lab
from tests.lab.shell import run, wait_for
from tests.lab.vknixproc import NODE
from tests.lab.vm import HUGE_PAGES

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

PIDS = 40
SLOW_S = 120.0
MIB = 1 << 20
SUPERVISOR = 8 * MIB  # what the slice has more, a container
BUSY = "while :; do :; done"
HUGE_FOLDER = "/var/tmp/vknix-huge"
PROGRAMS: Json = {"name": "programs", "mountPath": "/programs"}
MAPS = "for mib in 2 4 6; do /programs/map $mib; done; sleep 3600"
HUGE_C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
    size_t size = strtoul(argv[argc - 1], NULL, 10) << 20;
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

    if (at == MAP_FAILED)
        return printf("%s: %m\n", argv[1]), 1;
    memset(at, 1, size);
    return printf("%s: fine\n", argv[1]), 0;
}
"""
EATS = "dd if=/dev/zero of=/dev/null bs=200M count=1; echo it had enough; sleep 3600"


def sized(cpu: str, memory: str) -> Json:
    return {"cpu": cpu, "memory": memory}


def guaranteed(cpu: str, memory: str) -> Json:
    return {"limits": sized(cpu, memory), "requests": sized(cpu, memory)}


@pytest.fixture(scope="module")
def machine(virtual: Lab) -> Iterator[Space]:
    """A namespace on vknix with the one host."""
    virtual.vknix.stop()
    virtual.vknix.start({"podPidsLimit": PIDS})
    with made_namespace(virtual) as name:
        yield Space(virtual, name)


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Attributes by path: of a Pod's slice, and of what each container sees as its root."""

    of: dict[str, str]

    def slice(self, name: str) -> str:
        return self.of[name]

    def container(self, container: str, name: str) -> str:
        return next(value for path, value in self.of.items() if path.endswith(f"-{container}.service/payload/{name}"))


def cgroups(host: Host, of: Json) -> Cgroups:
    kinds = " ".join(f"{kind}.* */payload/{kind}.*" for kind in ("cpu", "memory", "hugetlb"))
    script = f"cd /sys/fs/cgroup/vk.slice/vk-{uid32(of)}.slice && grep -s . pids.* {kinds} || :"
    lines = (line.partition(":") for line in host.run(script).splitlines())
    return Cgroups({path: value for path, _, value in lines})


def huge(of: Json, amount: str) -> Json:
    return {kind: {**amounts, "hugepages-2Mi": amount} for kind, amounts in of.items()}


def put_program(host: Host, source: str, target: str) -> None:
    """A static program on the host, made of C."""
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "program"
        run(["cc", "-Os", "-s", "-static", "-x", "c", "-o", built, "-"], stdin=source)
        packed = base64.b64encode(built.read_bytes()).decode()
    host.run(f"mkdir -p {Path(target).parent} && base64 -d > {target} && chmod 755 {target}", stdin=packed)


@pytest.fixture(scope="module")
def running(machine: Space) -> dict[str, Json]:
    image = machine.lab.image_busybox
    put_program(machine.lab.hosts[0], HUGE_C, f"{HUGE_FOLDER}/map")
    burst = {"limits": sized("200m", "64Mi"), "requests": sized("100m", "32Mi")}
    half = {"requests": {"cpu": "500m"}}
    machine.create(
        pod("burst", container(image, BUSY, resources=burst), container(image, name="free", resources=half)),
        pod("sure", container(image, resources=guaranteed("250m", "48Mi"))),
        pod("best", container(image)),
        pod("whole", container(image), container(image, name="other"), resources=huge(guaranteed("300m", "100Mi"), "6Mi")),
        pod("eater", container(image, EATS, resources={"limits": {"memory": "32Mi"}})),
        pod(
            "huge",
            container(image, MAPS, resources=huge({"limits": sized("200m", "32Mi")}, "4Mi"), volumeMounts=[PROGRAMS]),
            container(image, MAPS, name="none", volumeMounts=[PROGRAMS]),
            volumes=[{"name": "programs", "hostPath": {"path": HUGE_FOLDER, "type": "Directory"}}],
        ),
        pod("forks", container(image, f"for n in $(seq {2 * PIDS}); do sleep 3600 & done; wait")),
    )
    machine.wait(has_ended, "eater", "forks", timeout_s=SLOW_S)
    return machine.wait(is_ready, "burst", "sure", "best", "whole", "huge", timeout_s=SLOW_S)


def test_limits_and_shares_of_a_container_are_in_its_cgroup(machine: Space, running: dict[str, Json]) -> None:
    made = cgroups(machine.lab.hosts[0], running["burst"])
    names = ("cpu.max", "cpu.weight", "memory.max", "memory.swap.max", "memory.oom.group")
    assert [made.container("main", name) for name in names] == ["20000 100000", "17", str(64 * MIB), "0", "1"]
    assert [made.container("free", name) for name in names[:3]] == ["max 100000", "59", "max"]
    assert machine.exec("burst", "cat", "/sys/fs/cgroup/memory.max").strip() == str(64 * MIB)


def test_slice_is_limited_where_all_containers_are(machine: Space, running: dict[str, Json]) -> None:
    sure, burst = (cgroups(machine.lab.hosts[0], running[name]) for name in ("sure", "burst"))
    assert (sure.slice("memory.max"), burst.slice("memory.max")) == (str(48 * MIB + SUPERVISOR), "max")


def test_limits_of_the_whole_pod_hold_for_its_slice_and_each_container(machine: Space, running: dict[str, Json]) -> None:
    made = cgroups(machine.lab.hosts[0], running["whole"])
    assert (made.slice("cpu.max"), made.slice("memory.max")) == ("30000 100000", str(100 * MIB + 2 * SUPERVISOR))
    assert [made.container(name, "memory.max") for name in ("main", "other")] == [str(100 * MIB)] * 2


def test_quality_of_service_says_who_is_killed_first(machine: Space, running: dict[str, Json]) -> None:
    classes = {name: running[name]["status"]["qosClass"] for name in ("sure", "burst", "best", "whole")}
    assert classes == {"sure": "Guaranteed", "burst": "Burstable", "best": "BestEffort", "whole": "Guaranteed"}
    scores = {name: int(machine.exec(name, "cat", "/proc/1/oom_score_adj")) for name in ("sure", "burst", "best")}
    assert (scores["sure"], scores["best"]) == (-997, 1000)
    assert 2 < scores["burst"] < 1000


@pytest.mark.usefixtures("running")
def test_busy_container_gets_no_more_than_its_part_of_the_processor(machine: Space) -> None:
    """By the kernel's own count of periods, of which each is 100 ms: whoever else is busy."""

    def now() -> dict[str, int]:
        lines = machine.exec("burst", "cat", "/sys/fs/cgroup/cpu.stat").splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines)}

    before = now()
    wait_for(lambda: now()["nr_periods"] >= before["nr_periods"] + 20, "20 periods are over", timeout_s=SLOW_S)
    gone = {name: value - before[name] for name, value in now().items()}
    assert gone["nr_throttled"] > 0
    assert gone["usage_usec"] <= (gone["nr_periods"] + 2) * 20_000 * 1.25


def test_container_that_wants_too_much_memory_is_killed(machine: Space, running: dict[str, Json]) -> None:
    ended = machine.pod("eater")
    assert (terminated(ended)["reason"], terminated(ended)["exitCode"]) == ("OOMKilled", 137)
    assert "it had enough" not in machine.logs("eater")
    assert identity(machine.pod("sure")) == identity(running["sure"])


def test_container_has_the_huge_pages_that_it_asks_for_and_no_more(machine: Space, running: dict[str, Json]) -> None:
    """Who asks for none has none; what is too much can't be reserved, rather than being missed when it is used."""
    names = [f"hugetlb.2MB{kind}.max" for kind in ("", ".rsvd")]
    made, whole = (cgroups(machine.lab.hosts[0], running[name]) for name in ("huge", "whole"))
    assert {made.slice(name) for name in names} == {made.container("main", name) for name in names} == {str(4 * MIB)}
    assert {made.container("none", name) for name in names} == {"0"}
    assert {whole.slice(name) for name in names} == {whole.container("other", name) for name in names} == {str(6 * MIB)}
    assert machine.exec("huge", "cat", f"/sys/fs/cgroup/{names[0]}").strip() == str(4 * MIB)
    lines = {name: machine.logs("huge", f"--container={name}").splitlines() for name in ("main", "none")}
    no = "Cannot allocate memory"
    assert lines == {"main": ["2: fine", "4: fine", f"6: {no}"], "none": [f"2: {no}", f"4: {no}", f"6: {no}"]}


def test_node_tells_its_huge_pages_and_takes_no_pod_that_wants_more(machine: Space) -> None:
    """What is kept for them is nobody's memory."""
    told = json.loads(machine.lab.kubectl("get", "node", NODE, "--output=json").stdout)["status"]
    kept = HUGE_PAGES * 2
    for kind in ("capacity", "allocatable"):
        assert (told[kind]["hugepages-2Mi"], told[kind]["hugepages-1Gi"]) == (str(kept * MIB), "0")
    memory = {kind: int(told[kind]["memory"].removesuffix("Ki")) for kind in ("capacity", "allocatable")}
    assert memory["capacity"] - memory["allocatable"] == kept * 1024
    more = huge({"limits": sized("100m", "16Mi")}, f"{kept + 2}Mi")
    ended = machine.run(pod("too-huge", container(machine.lab.image_busybox, resources=more), nodeName=NODE))
    assert ended["status"]["reason"] == "OutOfhugepages-2Mi"


@pytest.mark.usefixtures("running")
def test_pod_has_no_more_processes_than_are_configured(machine: Space) -> None:
    assert "can't fork" in machine.logs("forks")


def resize(space: Space, name: str, of: str, resources: Json) -> None:
    patch = {"spec": {"containers": [{"name": of, "resources": resources}]}}
    space.kubectl("patch", "pod", name, "--subresource=resize", f"--patch={json.dumps(patch)}")


def is_resized(of: Json) -> bool:
    told = of["status"]
    pending = condition(of, "PodResizePending") or condition(of, "PodResizeInProgress")
    return not pending and told.get("observedGeneration") == of["metadata"]["generation"] and is_ready(of)


def test_resize_is_in_force_and_told(machine: Space) -> None:
    """Without a restart, but where the container asks for one; what a host can't have is told, and nothing changes."""
    image, host = machine.lab.image_busybox, machine.lab.hosts[0]
    restarts = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    fills = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); touch /tmp/full; while :; do sleep 1000; done"
    full = {"exec": {"command": ["test", "-e", "/tmp/full"]}, "periodSeconds": 1, "timeoutSeconds": 60}
    machine.create(
        pod(
            "moves",
            container(image, resources=guaranteed("100m", "32Mi")),
            container(image, name="again", resources=guaranteed("100m", "32Mi"), resizePolicy=restarts),
            restart="Always",
        ),
        pod("full", container(image, fills, resources={"limits": {"memory": "64Mi"}}, readinessProbe=full)),
    )
    before = machine.wait(is_ready, "moves", "full", timeout_s=SLOW_S)["moves"]
    more = guaranteed("250m", "64Mi")
    resize(machine, "moves", "main", more)
    now = machine.wait(is_resized, "moves", timeout_s=SLOW_S)["moves"]
    made = cgroups(host, now)
    assert [made.container("main", name) for name in ("cpu.max", "memory.max")] == ["25000 100000", str(64 * MIB)]
    assert made.slice("memory.max") == str(96 * MIB + 2 * SUPERVISOR)
    assert (status(now)["resources"], status(now)["allocatedResources"]) == (more, more["requests"])
    assert identity(now) == identity(before)

    resize(machine, "moves", "again", guaranteed("100m", "40Mi"))
    now = machine.wait(lambda of: is_resized(of) and status(of, "again")["restartCount"] == 1, "moves", timeout_s=SLOW_S)["moves"]
    assert cgroups(host, now).container("again", "memory.max") == str(40 * MIB)
    assert status(now)["restartCount"] == 0

    resize(machine, "moves", "main", guaranteed("1900m", "64Mi"))
    resize(machine, "full", "main", {"limits": {"memory": "8Mi"}, "requests": {"memory": "8Mi"}})
    now = machine.wait(lambda of: condition(of, "PodResizePending") != {}, "moves", timeout_s=SLOW_S)["moves"]
    assert condition(now, "PodResizePending")["reason"] == "Deferred"
    assert status(now)["resources"] == more
    less = machine.wait(lambda of: condition(of, "PodResizeInProgress").get("reason") == "Error", "full", timeout_s=SLOW_S)["full"]
    assert "below current usage" in condition(less, "PodResizeInProgress")["message"]
    assert cgroups(host, less).container("main", "memory.max") == str(64 * MIB)
