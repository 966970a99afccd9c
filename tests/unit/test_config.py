"""vknix.config and vknix.strict: a good file becomes dataclasses, a bad one tells all its mistakes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from vknix.config import Config, Taint, load, parse
from vknix.errors import ConfigError

STORE = f"/nix/store/{'a' * 32}-x"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGRlYWRiZWVmZGVhZGJlZWZkZWFkYmVlZmRlYWRiZWVm"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("kubeconfig", "ca.crt", "id", "tls.crt", "tls.key"):
        (tmp_path / name).write_text("x")
    return tmp_path


def good() -> dict[str, Any]:
    """The shortest file that is complete."""
    host = {"name": "host1", "address": "10.90.0.11", "keyFile": "id", "hostKeys": [KEY]}
    return {
        "apiVersion": "vknix.io/v1alpha1",
        "kind": "Configuration",
        "kubelet": {"clientCAFile": "ca.crt"},
        "nodes": [{"name": "vknix", "address": "10.90.0.1", "hosts": [host]}],
    }


def change(tree: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Sets `nodes.0.name` and the like; None removes."""
    *way, last = path.split(".")
    inner: Any = tree
    for word in way:
        inner = inner[int(word)] if word.isdecimal() else inner.setdefault(word, {})
    if value is None:
        del inner[last]
    else:
        inner[int(last) if last.isdecimal() else last] = value
    return tree


def read(tree: object, folder: Path) -> Config:
    return parse(yaml.safe_dump(tree), folder)


def mistakes(tree: object, folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tree, folder)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_the_shortest_file_has_the_defaults(folder: Path) -> None:
    config = read(good(), folder)
    assert config.cluster.domain == "cluster.local"
    assert config.kubelet.client_ca_file == folder / "ca.crt"
    assert (config.kubelet.web_sockets, config.seccomp_default, config.strict_limits) == (True, False, False)
    node = config.nodes[0]
    assert (node.port, node.max_pods, node.kubeconfig) == (10250, 110, None)
    assert node.taints == (Taint("virtual-kubelet.io/provider", "NoSchedule", "vknix"),)
    host = node.hosts[0]
    assert (host.port, host.user, host.pod_cidr, host.host_keys) == (22, "root", None, (KEY,))


FULL = f"""
apiVersion: vknix.io/v1alpha1
kind: Configuration
cluster:
  kubeconfig: kubeconfig
  dns: [10.96.0.10]
  domain: cluster.test
  serviceCIDRs: [10.96.0.0/16, "fd00:0::/108"]
  podCIDRs: [10.244.0.0/16]
kubelet:
  listen: 0.0.0.0
  certFile: tls.crt
  keyFile: tls.key
  clientCAFile: ca.crt
  webSockets: true
images:
- {{name: "web:*", path: /nix/store/{"a" * 32}-web}}
- name: registry.example/tool:1
  path: /nix/store/{"a" * 32}-tool
  root: true
  entrypoint: [/tool]
  args: [serve]
  env: {{A: b}}
  user: "7:8"
  workingDir: /srv
  modes: {{/bin/su: "4755"}}
seccompDefault: true
strictLimits: true
containerLogMaxSize: 1.5Mi
containerLogMaxFiles: 3
nodes:
- name: vknix
  kubeconfig: ./kubeconfig
  address: 10.90.0.1
  port: 10251
  labels: {{disk: ssd}}
  taints: []
  podCIDRs: [10.244.3.0/24]
  maxPods: 200
  hosts:
  - {{name: host1, address: host1.lan, port: 2222, user: admin, keyFile: id, hostKeys: ["{KEY} me@here"], podCIDR: 10.244.3.0/25}}
  - {{name: host2, address: 10.90.0.12, keyFile: id, hostKeys: ["{KEY}"], podCIDR: null}}
"""


def test_every_key_is_read(folder: Path) -> None:
    (folder / "vknix.yaml").write_text(FULL)
    config = load(folder / "vknix.yaml")
    assert config.cluster.kubeconfig == folder / "kubeconfig"
    assert config.cluster.service_cidrs == ("10.96.0.0/16", "fd00::/108")
    assert (config.kubelet.cert_file, config.kubelet.web_sockets) == (folder / "tls.crt", True)
    plain, whole = config.images
    assert (plain.name, plain.root, plain.user, plain.modes) == ("web:*", False, None, ())
    assert (whole.entrypoint, whole.args, whole.env, whole.working_dir) == (("/tool",), ("serve",), {"A": "b"}, "/srv")
    assert (whole.root, whole.user, whole.modes) == (True, (7, 8), (("/bin/su", 0o4755),))
    assert (config.container_log_max_size, config.container_log_max_files) == (1572864, 3)
    node = config.nodes[0]
    assert (node.taints, node.labels, node.max_pods, node.pod_cidrs) == ((), {"disk": "ssd"}, 200, ("10.244.3.0/24",))
    host = node.hosts[0]
    assert (host.address, host.port, host.user, host.pod_cidr, host.host_keys) == (
        "host1.lan",
        2222,
        "admin",
        "10.244.3.0/25",
        (KEY,),
    )


def test_a_node_takes_the_clusters_kubeconfig(folder: Path) -> None:
    assert read(change(good(), "cluster.kubeconfig", "kubeconfig"), folder).nodes[0].kubeconfig == folder / "kubeconfig"


@pytest.mark.parametrize(
    ("path", "value", "mistake"),
    [
        ("apiVersion", "v1", "apiVersion: must be vknix.io/v1alpha1, not the string 'v1'"),
        ("kind", None, "kind: missing: must be Configuration"),
        ("nodes.0.adress", "x", "nodes[0].adress: unknown; did you mean address?"),
        ("nodes.0.hosts.0.hostkeys", [], "nodes[0].hosts[0].hostkeys: unknown; did you mean hostKeys?"),
        ("cluster.zzz", 1, "cluster.zzz: unknown; known here: dns, domain, kubeconfig, podCIDRs, serviceCIDRs"),
        ("nodes.0.name", None, "nodes[0].name: missing"),
        ("nodes.0.name", "Vknix", "nodes[0].name: must be a DNS name in lower case (at most 253 characters), not 'Vknix'"),
        ("nodes.0.address", "vknix.lan", "nodes[0].address: must be an IP address, not the string 'vknix.lan'"),
        ("nodes.0.port", "10250", "nodes[0].port: must be a number, not the string '10250'"),
        ("nodes.0.port", 70000, "nodes[0].port: must be from 1 to 65535, not 70000"),
        ("nodes.0.port", True, "nodes[0].port: must be a number, not the boolean true"),
        ("nodes.0.maxPods", 0, "nodes[0].maxPods: must be from 1 to 100000, not 0"),
        ("nodes.0.labels", {"a": 1}, "nodes[0].labels.a: must be a string, not the number 1; quote it"),
        ("nodes.0.labels", ["a"], "nodes[0].labels: must be a mapping, not a list"),
        ("nodes.0.taints", "none", "nodes[0].taints: must be a list, not the string 'none'"),
        (
            "nodes.0.taints",
            [{"key": "a", "effect": "Never"}],
            "nodes[0].taints[0].effect: must be one of NoSchedule, PreferNoSchedule, NoExecute, not the string 'Never'",
        ),
        ("nodes.0.hosts.0.keyFile", "gone", "nodes[0].hosts[0].keyFile: {folder}/gone does not exist"),
        ("nodes.0.hosts.0.keyFile", ".", "nodes[0].hosts[0].keyFile: {folder} is not a file"),
        ("nodes.0.hosts.0.address", "", "nodes[0].hosts[0].address: must not be empty"),
        (
            "nodes.0.hosts.0.hostKeys",
            ["ssh-ed25519 AAAA"],
            (
                "nodes[0].hosts[0].hostKeys[0]: must be a public key such as `ssh-ed25519 AAAA...`, as `ssh-keyscan HOST` prints it"
                " after the host's name"
            ),
        ),
        (
            "nodes.0.hosts.0.hostKeys",
            [],
            "nodes[0].hosts[0].hostKeys: must name at least one key; without, anybody could be this host",
        ),
        (
            "nodes.0.hosts.0.podCIDR",
            "10.244.3.1/24",
            "nodes[0].hosts[0].podCIDR: must be the CIDR of a network, not of an address in it; did you mean 10.244.3.0/24?",
        ),
        ("cluster.dns", ["kube-dns"], "cluster.dns[0]: must be an IP address, not the string 'kube-dns'"),
        ("cluster.podCIDRs", ["x"], "cluster.podCIDRs[0]: must be a CIDR such as 10.244.3.0/24, not the string 'x'"),
        ("containerLogMaxSize", 10, "containerLogMaxSize: must be a string, not the number 10"),
        (
            "containerLogMaxSize",
            "10 MB",
            "containerLogMaxSize: must be a quantity of bytes: '10 MB' is no quantity, such as 500m or 1Gi",
        ),
        ("containerLogMaxSize", "1k", "containerLogMaxSize: must be at least 4Ki, not 1k"),
        ("containerLogMaxFiles", 1, "containerLogMaxFiles: must be from 2 to 1000, not 1"),
        ("strictLimits", "yes", "strictLimits: must be true or false, not the string 'yes'"),
        (
            "kubelet.clientCAFile",
            None,
            (
                "kubelet.clientCAFile: missing: the CA of the API server's kubelet client certificate; a node may not read it from"
                " the cluster"
            ),
        ),
        (
            "kubelet.certFile",
            "tls.crt",
            "kubelet: certFile and keyFile go together; leave both out to have the cluster sign a certificate",
        ),
        ("kubelet.certDirectory", "gone", "kubelet.certDirectory: {folder}/gone does not exist"),
        ("kubelet.certDirectory", "id", "kubelet.certDirectory: {folder}/id is not a directory"),
        (
            "kubelet",
            {"clientCAFile": "ca.crt", "certFile": "tls.crt", "keyFile": "tls.key", "certDirectory": "."},
            "kubelet.certDirectory: is for certificates that the cluster signs; leave it out beside certFile",
        ),
        ("nodes", [], "nodes: must have at least one node"),
        ("nodes.0.hosts", [], "nodes[0].hosts: must have at least one host"),
        ("nodes", "x", "nodes: must be a list, not the string 'x'"),
        ("nodes.0", "x", "nodes[0]: must be a mapping, not the string 'x'"),
        ("images", [{"name": "a", "path": "/x"}], "images[0].path: must be a store path, /nix/store/HASH-NAME, not '/x'"),
        (
            "images",
            [{"name": "a", "path": STORE, "user": "me"}],
            "images[0].user: must be a user's number, or user:group, as a quoted string, not 'me'",
        ),
        ("images", [{"name": "a", "path": STORE, "modes": {"su": "4755"}}], "images[0].modes: has 'su', which is no absolute path"),
        (
            "images",
            [{"name": "a", "path": STORE, "modes": {"/su": 4755}}],
            'images[0].modes: /su: must be an octal mode as a quoted string such as "4755"',
        ),
    ],
)
def test_a_mistake_is_told_by_its_path(folder: Path, path: str, value: object, mistake: str) -> None:
    assert mistakes(change(good(), path, value), folder) == [mistake.format(folder=folder)]


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    tree = good()
    for path, value in (("kind", "Pod"), ("kubelet.clientCAFile", "gone"), ("nodes.0.prot", 1), ("nodes.0.hosts.0.port", -1)):
        change(tree, path, value)
    assert [mistake.split(":")[0] for mistake in mistakes(tree, folder)] == [
        "kind",
        "kubelet.clientCAFile",
        "nodes[0].prot",
        "nodes[0].hosts[0].port",
    ]


def test_twins_are_refused(folder: Path) -> None:
    tree = good()
    tree["nodes"] *= 2
    assert mistakes(tree, folder) == [
        "nodes[1].name: the node name vknix is that of nodes[0].name already",
        "nodes[1].port: the address and port 10.90.0.1 10250 is that of nodes[0].port already",
        "nodes[1].hosts[0].name: the host name host1 is that of nodes[0].hosts[0].name already",
        "nodes[1].hosts[0].address: the address and port 10.90.0.11 22 is that of nodes[0].hosts[0].address already",
    ]


def test_slices_of_hosts_lie_apart_and_in_the_nodes_own(folder: Path) -> None:
    tree = change(good(), "nodes.0.podCIDRs", ["10.244.3.0/24"])
    hosts = tree["nodes"][0]["hosts"]
    hosts[0]["podCIDR"] = "10.244.3.0/25"
    hosts.append({**hosts[0], "name": "host2", "address": "h2", "podCIDR": "10.244.3.64/26"})
    hosts.append({**hosts[0], "name": "host3", "address": "h3", "podCIDR": "10.244.4.0/25"})
    assert mistakes(tree, folder) == [
        "nodes[0].hosts[1].podCIDR: 10.244.3.64/26 overlaps 10.244.3.0/25 of nodes[0].hosts[0].podCIDR; each host needs its own",
        "nodes[0].hosts[2].podCIDR: 10.244.4.0/25 is not in the node's podCIDRs (10.244.3.0/24)",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("a: [", "not YAML"),
        ("a: 1\na: 2", "the key 'a' is there twice"),
        ("", "must be a mapping that begins with"),
        ("- a", "must be a mapping that begins with"),
        ("{[a]: 1}", "not YAML"),
    ],
    ids=["syntax", "twice", "empty", "list", "odd-key"],
)
def test_what_is_no_configuration_at_all(folder: Path, text: str, mistake: str) -> None:
    with pytest.raises(ConfigError, match=mistake):
        parse(text, folder)


def test_a_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        load(folder / "none.yaml")
