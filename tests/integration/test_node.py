"""The node, its identities and its configuration; and the words of `vknix check` and `vknix plan`."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.build import Json, Space, container, has_ended, identity, is_ready, phase, pod
from tests.integration.conftest import started
from tests.lab.lab import Lab
from tests.lab.layout import CHECKOUT, write
from tests.lab.shell import wait_for

pytestmark = pytest.mark.lab


def node(lab: Lab) -> Json:
    found: Json = json.loads(lab.kubectl("get", "node", "vknix", "--ignore-not-found", "--output=json").stdout or "{}")
    return found


def is_node_ready(lab: Lab) -> bool:
    conditions = node(lab).get("status", {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def own_node(lab: Lab, **changes: Any) -> dict[str, Any]:
    """Overrides of the configuration: the lab's one node, with some fields changed."""
    return {"nodes": [{**lab.vknix.config()["nodes"][0], **changes}]}


@contextmanager
def configured(lab: Lab, overrides: Mapping[str, Any]) -> Iterator[None]:
    """vknix on another configuration, for as long as the block lasts."""
    lab.vknix.stop()
    try:
        lab.vknix.start(overrides)
        yield
    finally:
        lab.vknix.stop()


def vknix(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vknix", *words]
    return subprocess.run(command, cwd=CHECKOUT, text=True, capture_output=True, timeout=60)


def test_node_is_ready_and_says_what_it_is(lab: Lab, space: Space) -> None:
    of = node(lab)
    assert is_node_ready(lab)
    assert {"type": "InternalIP", "address": lab.address} in of["status"]["addresses"]
    assert of["metadata"]["labels"]["kubernetes.io/hostname"] == "vknix"
    assert of["spec"]["taints"] == [{"key": "virtual-kubelet.io/provider", "value": "vknix", "effect": "NoSchedule"}]
    assert of["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("systemd-nspawn://")
    cpus = sum(int(host.run("nproc")) for host in lab.hosts)
    assert of["status"]["allocatable"]["cpu"] in (str(cpus), f"{cpus * 1000}m")
    assert of["status"]["allocatable"]["pods"] == str(110 * len(lab.hosts))


def test_deleted_node_comes_back_and_pods_go_on(lab: Lab, space: Space) -> None:
    space.create(pod("goes-on", container(lab.image_busybox)))
    before = space.wait(is_ready, "goes-on")["goes-on"]
    old = node(lab)["metadata"]["uid"]
    lab.kubectl("delete", "node", "vknix")
    wait_for(lambda: node(lab).get("metadata", {}).get("uid") not in (None, old), "the node is there again", timeout_s=15)
    wait_for(lambda: is_node_ready(lab), "the node is ready again", timeout_s=15)
    after = space.pod("goes-on")
    assert identity(after) == identity(before)
    assert space.exec("goes-on", "echo", "here") == "here\n"
    space.run(pod("new", container(lab.image_busybox, "exit 0")))


def test_labels_are_configured(lab: Lab, space: Space) -> None:
    with configured(lab, own_node(lab, labels={"example.com/pool": "blue"})):
        wait_for(lambda: node(lab)["metadata"]["labels"].get("example.com/pool") == "blue", "the label is there", timeout_s=10)


@pytest.mark.parametrize(
    ("taints", "expected"),
    [
        pytest.param([], None, id="none"),
        pytest.param([{"key": "example.com/own", "effect": "NoExecute"}], [("example.com/own", "NoExecute")], id="own"),
    ],
)
def test_taints_are_configured(lab: Lab, space: Space, taints: list[Json], expected: list[tuple[str, str]] | None) -> None:
    """A node's taints are set when it registers, as a kubelet's are."""
    lab.vknix.stop()
    lab.kubectl("delete", "node", "vknix")
    try:
        with configured(lab, own_node(lab, taints=taints)):
            told = [(taint["key"], taint["effect"]) for taint in node(lab)["spec"].get("taints") or ()]
            assert (told or None) == expected
    finally:
        lab.kubectl("delete", "node", "vknix")


@pytest.fixture
def account(lab: Lab) -> Path:
    """A kubeconfig with a token of the ServiceAccount of manifests/, and nothing more."""
    for name in ("namespace", "rbac"):
        lab.kubectl("apply", f"--filename={CHECKOUT}/manifests/{name}.yaml")
    token = lab.kubectl("create", "token", "vknix", "--namespace=vknix").stdout.strip()
    cluster = {"server": lab.plane.server, "certificate-authority": str(lab.layout.pki / "ca.crt")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": "vknix", "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "vknix"}}],
        "current-context": "lab",
    }
    file = lab.layout.folder / "account.kubeconfig"
    write(file, yaml.safe_dump(config), mode=0o600)
    return file


def test_service_account_of_the_manifests_is_identity_enough(lab: Lab, space: Space, account: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "word"}, "stringData": {"word": "open"}}
    reference = {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "word", "key": "word"}}}
    with configured(lab, {"cluster": {"kubeconfig": str(account)}}):
        space.create(
            secret,
            pod("ends", container(lab.image_busybox, "echo $WORD", env=[reference])),
            pod("runs", container(lab.image_busybox)),
        )
        ended = space.wait(has_ended, "ends")["ends"]
        space.wait(is_ready, "runs")
        assert phase(ended) == "Succeeded"
        assert space.logs("ends") == "open\n"
        assert space.exec("runs", "echo", "here") == "here\n"
        space.wait_event("ends", "Started")
        space.clear()
        checked = vknix("check", "--config", lab.vknix.config_file)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_serving_certificate_is_signed_by_the_cluster(lab: Lab, space: Space) -> None:
    space.create(pod("talks", container(lab.image_busybox, "echo hello; exec sleep 3600")))
    space.wait(is_ready, "talks")
    lab.kubectl("delete", "csr", "--all")
    with configured(lab, {"kubelet": {"certFile": None, "keyFile": None}}):
        wait_for(lambda: bool(requests(lab)), "there is a request", timeout_s=15)
        [request] = requests(lab)
        assert request["spec"]["signerName"] == "kubernetes.io/kubelet-serving"
        lab.kubectl("certificate", "approve", request["metadata"]["name"])
        wait_for(lambda: space.kubectl("logs", "talks", check=False) == "hello\n", "the kubelet API is served", timeout_s=15)
        space.clear()


def requests(lab: Lab) -> list[Json]:
    found: list[Json] = json.loads(lab.kubectl("get", "csr", "--output=json").stdout)["items"]
    return found


def configuration(lab: Lab, file: Path, overrides: Mapping[str, Any]) -> Path:
    """A file that differs from the lab's in whole top-level keys."""
    started(lab)
    write(file, yaml.safe_dump({**lab.vknix.config(), **overrides}), mode=0o600)
    return file


def test_all_mistakes_of_a_configuration_are_told_by_path(lab: Lab, tmp_path: Path) -> None:
    wrong = own_node(lab, address="nowhere", port=70000, colour="blue", hosts=[{"name": "Host_1", "address": "10.0.0.1"}])
    done = vknix("run", "--config", configuration(lab, tmp_path / "vknix.yaml", {**wrong, "kind": "Config"}))
    assert done.returncode == 78
    lines = [line.strip() for line in done.stderr.splitlines()]
    paths = ("kind", "nodes[0].address", "nodes[0].port", "nodes[0].colour", "nodes[0].hosts[0].name", "nodes[0].hosts[0].keyFile")
    assert [path for path in paths if not any(line.startswith(f"{path}:") for line in lines)] == []


def test_check_finds_the_lab_fit(lab: Lab, space: Space) -> None:
    done = vknix("check", "--config", lab.vknix.config_file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert all(any(f"host {host.name}:" in line for line in done.stdout.splitlines()) for host in lab.hosts)


OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
UNFIT = [
    pytest.param({"user": "nobody"}, "write user: root", id="user"),
    pytest.param({"hostKeys": [OTHER_KEY]}, "shows another host key than hostKeys has", id="host key"),
]


@pytest.mark.parametrize(("change", "fix"), UNFIT)
def test_check_says_what_is_wrong_with_a_host_and_the_fix(lab: Lab, tmp_path: Path, change: Json, fix: str) -> None:
    first, second = lab.vknix.config()["nodes"][0]["hosts"]
    overrides = own_node(lab, hosts=[{**first, **change}, second])
    done = vknix("check", "--config", configuration(lab, tmp_path / "vknix.yaml", overrides))
    assert done.returncode == 1
    [failed] = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert "host host1" in failed
    assert fix in failed


def test_plan_shows_what_a_host_would_get(lab: Lab) -> None:
    done = vknix("plan", CHECKOUT / "manifests" / "samples" / "pod.yaml")
    assert done.returncode == 0, done.stderr
    assert "-hello.service" in done.stdout
    for part in ("ExecStart=", "systemd-nspawn", "Type=notify", "## files", "config.json", "Mounts:", "/etc/resolv.conf"):
        assert part in done.stdout


def test_plan_refuses_with_the_field(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump(pod("bad", container(lab.image_busybox), resourceClaims=[{"name": "gpu"}])))
    done = vknix("plan", file)
    assert (done.returncode, "spec.resourceClaims" in done.stderr) == (1, True)
