"""The real metrics-server beside a lab's control plane, and `kubectl top` on it: what it says of Pods whose use is known."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.conformance.report import Outcome
from tests.lab import pki, upstream
from tests.lab.lab import Lab
from tests.lab.process import Daemon
from tests.lab.shell import LabError, wait_for
from tests.lab.vknixproc import NODE

Json = dict[str, Any]
PORT = 4443
HELD_MIB = 48
TOP_S = 120.0  # two scrapes, each 15 s after the one before
_NAME, _NAMESPACE, _POD_SPACE = "metrics-server", "kube-system", "top"
_SCRIPTS = {"burns": "while :; do :; done", "holds": f'x=$(head -c {HELD_MIB << 20} /dev/zero | tr "\\0" x); sleep 3600 & wait'}
_CPU, _MEMORY = re.compile(r"(\d+)m"), re.compile(r"(\d+)Mi")


def run_tests(lab: Lab, told: Callable[[str], None]) -> list[Outcome]:
    """On the lab's usual node."""
    lab.vknix.start()
    with _pods(lab), _server(lab):
        outcomes = [_tried(name, try_it, lab, told) for name, try_it in (("kubectl top pod", _pod), ("kubectl top node", _node))]
    for outcome in outcomes:
        told(f"{'FAILED' if outcome.why else 'passed'}  {outcome.seconds:6.1f} s  {outcome.name}")
    return outcomes


def _tried(name: str, try_it: Callable[[str], str], lab: Lab, told: Callable[[str], None]) -> Outcome:
    """Until it answers as it should: it has nothing to say before two scrapes."""
    kind, began, said = name.split()[-1], time.monotonic(), ""

    def is_right() -> bool:
        nonlocal said
        space = [f"--namespace={_POD_SPACE}"] if kind == "pod" else []
        answer = lab.kubectl("top", kind, *space, check=False)
        said = answer.stdout or answer.stderr
        return not try_it(said)

    try:
        wait_for(is_right, name, timeout_s=TOP_S, every_s=1)
    except LabError:
        return Outcome(name, time.monotonic() - began, f"{try_it(said)}; it says: {said.strip()}")
    told(said.rstrip())
    return Outcome(name, time.monotonic() - began)


def rows(said: str) -> dict[str, tuple[int, int]]:
    """Milli-CPUs and MiB by name."""
    found = {}
    for line in said.splitlines()[1:]:
        cpu, memory = _CPU.search(line), _MEMORY.search(line)
        if cpu and memory:
            found[line.split()[0]] = int(cpu[1]), int(memory[1])
    return found


def _pod(said: str) -> str:
    """What is wrong with it."""
    found = rows(said)
    if set(found) != set(_SCRIPTS):
        return "it does not have each Pod"
    if found["burns"][0] < 100 or found["burns"][0] < 5 * found["holds"][0]:
        return "the Pod that burns has not most of the CPU"
    return "" if HELD_MIB <= found["holds"][1] <= 2 * HELD_MIB else f"the Pod that holds {HELD_MIB} MiB has not that memory"


def _node(said: str) -> str:
    found = rows(said).get(NODE)
    if found is None:
        return "it does not have the node"
    return "" if found[0] > 100 and found[1] > HELD_MIB else "the node uses less than one of its Pods"


@contextmanager
def _pods(lab: Lab) -> Iterator[None]:
    lab.kubectl("create", "namespace", _POD_SPACE)
    try:
        account = ("get", "serviceaccount", "default", f"--namespace={_POD_SPACE}")
        wait_for(lambda: lab.kubectl(*account, check=False).returncode == 0, "the namespace has an account", timeout_s=30)
        for name, script in _SCRIPTS.items():
            spec = {
                "nodeName": NODE,
                "terminationGracePeriodSeconds": 1,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "main", "image": lab.image_busybox, "command": ["sh", "-c", script]}],
            }
            _create(lab, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": _POD_SPACE}, "spec": spec})
        lab.kubectl("wait", "pod", "--all", f"--namespace={_POD_SPACE}", "--for=condition=Ready", "--timeout=60s")
        yield
    finally:
        lab.kubectl("delete", "namespace", _POD_SPACE)


@contextmanager
def _server(lab: Lab) -> Iterator[None]:
    """On this machine, as the aggregated API of a Service without a selector. Its rights are those of its own manifests."""
    ca, layout = lab.plane.authority, lab.layout
    program = upstream.program(layout.kubernetes, upstream.METRICS_SERVER)
    user = ca.issue(_NAME, common_name=_NAME)
    serving = ca.issue(f"{_NAME}-serving", common_name=_NAME, sans=[f"{_NAME}.{_NAMESPACE}.svc"])
    kubeconfig = layout.pki / f"{_NAME}.kubeconfig"
    pki.kubeconfig(kubeconfig, server=lab.plane.server, authority=ca.identity.cert, identity=user)
    daemon = Daemon(layout.folder / "run", _NAME)
    objects = list(_objects(lab, ca.identity.cert.read_bytes()))
    try:
        for each in objects:
            _create(lab, each)
        daemon.start(
            [
                program,
                *(f"--{what}kubeconfig={kubeconfig}" for what in ("", "authentication-", "authorization-")),
                f"--bind-address={lab.address}",
                f"--secure-port={PORT}",
                f"--tls-cert-file={serving.cert}",
                f"--tls-private-key-file={serving.key}",
                f"--kubelet-certificate-authority={ca.identity.cert}",
                "--kubelet-preferred-address-types=InternalIP",
                "--kubelet-use-node-status-port",
                "--metric-resolution=15s",
            ]
        )
        yield
        daemon.must_run()
    finally:
        daemon.end()
        for each in reversed(objects):
            metadata = each["metadata"]
            space = [f"--namespace={metadata['namespace']}"] if "namespace" in metadata else []
            lab.kubectl("delete", each["kind"].lower(), metadata["name"], *space, "--ignore-not-found")


def _objects(lab: Lab, authority: bytes) -> Iterator[Json]:
    rbac = "rbac.authorization.k8s.io/v1"
    subject = {"kind": "User", "name": _NAME, "apiGroup": "rbac.authorization.k8s.io"}
    rules = [
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
    ]
    yield {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": f"system:{_NAME}"}, "rules": rules}
    for name, role in ((_NAME, f"system:{_NAME}"), (f"{_NAME}-delegator", "system:auth-delegator")):
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        yield {"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": name}, "roleRef": ref, "subjects": [subject]}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "extension-apiserver-authentication-reader"}
    named = {"name": _NAME, "namespace": _NAMESPACE}
    yield {"apiVersion": rbac, "kind": "RoleBinding", "metadata": named, "roleRef": ref, "subjects": [subject]}
    ports = [{"name": "https", "port": 443, "targetPort": PORT}]
    yield {"apiVersion": "v1", "kind": "Service", "metadata": named, "spec": {"ports": ports}}
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**named, "labels": {"kubernetes.io/service-name": _NAME}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [lab.address], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": PORT, "protocol": "TCP"}],
    }
    yield {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"name": _NAME, "namespace": _NAMESPACE},
            "caBundle": base64.b64encode(authority).decode(),
        },
    }


def _create(lab: Lab, of: Json) -> None:
    lab.kubectl("create", "--filename=-", input=json.dumps(of))
