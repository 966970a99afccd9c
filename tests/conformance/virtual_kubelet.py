"""virtual-kubelet's own end-to-end tests, unmodified, on a node of the lab: what they ask for, and what became of each.

They read a node's statistics without a certificate, through a Pod that has the node's name and address. Both is so for these tests
alone: `anonymousAuth` in vknix.yaml, and a role of system:anonymous on nodes/stats and nodes/metrics.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.report import Outcome
from tests.lab import upstream
from tests.lab.closures import roots
from tests.lab.lab import Lab
from tests.lab.shell import run
from tests.lab.vknixproc import NODE

TESTS = (
    "TestCreatePodWithMandatoryInexistentConfigMap",
    "TestCreatePodWithMandatoryInexistentSecrets",
    "TestCreatePodWithOptionalInexistentConfigMap",
    "TestCreatePodWithOptionalInexistentSecrets",
    "TestGetMetricsResource",
    "TestGetPods",
    "TestGetStatsSummary",
    "TestPodLifecycleForceDelete",
    "TestPodLifecycleGracefulDelete",
)
IMAGES = ("foo", "bar", "baz")
TIMEOUT_S = 400.0
_ROLE = "virtual-kubelet-tests"
_ENDED = re.compile(r"^\s*--- (?P<how>PASS|FAIL|SKIP): TestEndToEnd/(?P<name>\w+) \((?P<seconds>[\d.]+)s\)$", re.MULTILINE)
_NAMED = re.compile(r"^=== (?:RUN|CONT|NAME)\s+(?:TestEndToEnd/)?(?P<name>\w+)$")


def run_tests(lab: Lab, told: Callable[[str], None]) -> list[Outcome]:
    """On the lab's node, which is stopped at the end: its configuration is for these tests alone."""
    program = upstream.program(lab.layout.kubernetes, upstream.VIRTUAL_KUBELET)
    with _node(lab), _stats_for_anyone(lab), _pod_named_as_the_node(lab):
        command: list[str | Path] = [
            program,
            "-test.v",
            f"-test.timeout={TIMEOUT_S:.0f}s",
            f"-kubeconfig={lab.layout.admin_kubeconfig}",
        ]
        done = run([*command, "-namespace=default", f"-node-name={NODE}"], check=False, timeout_s=TIMEOUT_S + 30)
    outcomes = read(done.stdout)
    for outcome in outcomes:
        told(f"{'FAILED' if outcome.why else 'passed'}  {outcome.seconds:6.1f} s  {outcome.name}")
    return outcomes


def read(output: str) -> list[Outcome]:
    """`go test -v` says what became of each test, after what the test said. One that is not in it has not passed."""
    said: dict[str, list[str]] = {}
    current = ""
    for line in output.splitlines():
        named = _NAMED.match(line)
        if named is not None:
            current = named["name"]
        elif not line.lstrip().startswith(("---", "===")):
            said.setdefault(current, []).append(line.strip())
    ended = {match["name"]: match for match in _ENDED.finditer(output)}
    return [_outcome(name, ended.get(name), said.get(name, [])) for name in TESTS]


def _outcome(name: str, ended: re.Match[str] | None, said: list[str]) -> Outcome:
    if ended is None:
        return Outcome(name, 0.0, "it did not run")
    why = "" if ended["how"] == "PASS" else " ".join(said)[-400:] or "it said nothing"
    return Outcome(name, float(ended["seconds"]), why)


@contextmanager
def _node(lab: Lab) -> Iterator[None]:
    pause = {"path": roots(lab.layout)["pause"], "root": True, "entrypoint": ["/pause"]}
    lab.vknix.stop()
    lab.vknix.start({"kubelet": {"anonymousAuth": True}, "images": [{"name": name, **pause} for name in IMAGES]})
    try:
        yield
    finally:
        lab.vknix.stop()


@contextmanager
def _stats_for_anyone(lab: Lab) -> Iterator[None]:
    lab.kubectl("create", "clusterrole", _ROLE, "--verb=get", "--resource=nodes/stats,nodes/metrics")
    try:
        lab.kubectl("create", "clusterrolebinding", _ROLE, f"--clusterrole={_ROLE}", "--user=system:anonymous")
        yield
    finally:
        lab.kubectl("delete", "clusterrole,clusterrolebinding", _ROLE, "--ignore-not-found")


@contextmanager
def _pod_named_as_the_node(lab: Lab) -> Iterator[None]:
    """It runs nowhere; the API server's proxy only asks for its address."""
    spec = {"schedulerName": "nobody", "containers": [{"name": "none", "image": "none"}], "automountServiceAccountToken": False}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NODE, "namespace": "default"}, "spec": spec}
    lab.kubectl("create", "--filename=-", input=json.dumps(made))
    try:
        status = {"status": {"podIP": lab.address, "podIPs": [{"ip": lab.address}]}}
        lab.kubectl("patch", "pod", NODE, "--subresource=status", "--type=merge", f"--patch={json.dumps(status)}")
        yield
    finally:
        lab.kubectl("delete", "pod", NODE, "--force", "--grace-period=0")
