"""vknix as a process on a lab: its identity, its vknix.yaml, started and ended as an operator would."""

import datetime as dt
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.lab import network, pki
from tests.lab.controlplane import ControlPlane
from tests.lab.hosts import Host
from tests.lab.layout import CHECKOUT, Layout, write
from tests.lab.process import Daemon
from tests.lab.shell import LabError, say, step, wait_for

NODE = "vknix"
KUBELET_PORT = 10250
READY_S, ROUTES_S, STOP_S = 60.0, 15.0, 60.0
SLICES = "vknix.io/pod-cidrs"


class Vknix:
    """The one vknix of a lab."""

    def __init__(self, lab: Layout, hosts: list[Host], plane: ControlPlane) -> None:
        self._lab = lab
        self._hosts = hosts
        self._plane = plane
        self._daemon = Daemon(lab.folder / "run", "vknix")
        self.config_file = lab.folder / "vknix.yaml"

    @property
    def pid(self) -> int | None:
        """Of the running process, None when it does not run."""
        return self._daemon.pid

    def config(self, *, nodes: int = 1) -> dict[str, Any]:
        """What vknix.yaml says when nothing is overridden: the lab's hosts, dealt out to that many nodes."""
        lab = self._lab
        return {
            "apiVersion": "vknix.io/v1alpha1",
            "kind": "Configuration",
            "cluster": {"kubeconfig": str(lab.folder / "node.kubeconfig"), "serviceCIDRs": [lab.service_cidr]},
            "kubelet": {
                "certFile": str(lab.pki / "kubelet.crt"),
                "keyFile": str(lab.pki / "kubelet.key"),
                "clientCAFile": str(lab.pki / "ca.crt"),
            },
            "nodes": [self._node(number, self._hosts[number::nodes]) for number in range(nodes)],
        }

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes that vknix.yaml has."""
        return [node["name"] for node in yaml.safe_load(self.config_file.read_text())["nodes"]]

    def has_default_config(self) -> bool:
        """Whether vknix.yaml says what it says when nothing is overridden."""
        return self.config_file.exists() and self.config_file.read_text() == _yaml(self.config())

    def write_config(self, overrides: Mapping[str, Any] | None = None) -> None:
        """Identity and vknix.yaml. Mappings in `overrides` are merged into the default, all else replaces what is there."""
        config = _merged(self.config(), overrides or {})
        self._certify(config["nodes"])
        write(self.config_file, _yaml(config), mode=0o600)

    def start(self, overrides: Mapping[str, Any] | None = None) -> None:
        """Start it unless it runs; returns when it has made its Nodes ready and this machine has routes to their Pods."""
        if self._daemon.pid is None:
            self.write_config(overrides)
            run_it = [sys.executable, "-m", "vknix", "run", "--config", str(self.config_file)]
            self._daemon.start(run_it, cwd=CHECKOUT)
        what = f"{' and '.join(self.nodes)} ready"
        with step(f"vknix makes {what}"):
            try:
                wait_for(self._is_ready, what, timeout_s=READY_S, every_s=0.2)
            except LabError as error:
                raise LabError(f"{error}; the end of {self._daemon.log}:\n{self._daemon.tail()}") from error
        self.route_pods()

    def route_pods(self) -> None:
        """Point this machine's routes at the hosts' slices as the Nodes tell them now."""
        for node in self.nodes:
            self._route(node)

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        self._daemon.stop(within_s=STOP_S)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._daemon.stop(by=signal.SIGKILL)

    def end(self) -> None:
        """The end of it in any case."""
        self._daemon.end()

    @property
    def log_file(self) -> Path:
        return self._daemon.log

    def log(self) -> str:
        """All that it has logged since the lab came up."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def _route(self, node: str) -> None:
        try:
            wait_for(lambda: bool(self._slices(node)), f"node {node} has the annotation {SLICES}", timeout_s=ROUTES_S)
        except LabError as error:
            say(f"no routes to Pods from here: {error}")
        network.route_pods(self._lab, self._slices(node))

    def _node(self, number: int, hosts: list[Host]) -> dict[str, Any]:
        """The first has the credentials of all that have none, each other its own."""
        lab, name = self._lab, f"{NODE}{number + 1 if number else ''}"
        return {
            "name": name,
            "address": lab.address,
            "port": KUBELET_PORT + number,
            **({"kubeconfig": str(lab.folder / f"{name}.kubeconfig")} if number else {}),
            "hosts": [
                {
                    "name": host.name,
                    "address": host.address,
                    "port": 22,
                    "user": "root",
                    "keyFile": str(lab.folder / "ssh_key"),
                    "hostKeys": [host.public_key],
                }
                for host in hosts
            ],
        }

    def _certify(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        lab, ca, group = self._lab, self._plane.authority, ["system:nodes"]
        for node in nodes:
            identity = ca.issue(f"node-{node['name']}", common_name=f"system:node:{node['name']}", groups=group)
            path = Path(node.get("kubeconfig", lab.folder / "node.kubeconfig"))
            pki.kubeconfig(path, server=self._plane.server, authority=ca.identity.cert, identity=identity)
        ca.issue("kubelet", common_name=f"system:node:{NODE}", groups=group, sans=[lab.address, NODE])

    def _is_ready(self) -> bool:
        """Whether the process that runs now, and not one before it, says that its nodes are ready: it has asked all hosts then."""
        self._daemon.must_run()
        return all(self._says_ready(node) for node in self.nodes)

    def _says_ready(self, node: str) -> bool:
        return any(
            condition["type"] == "Ready"
            and condition["status"] == "True"
            and dt.datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp() >= int(self._daemon.started_at)
            for condition in self._get("node", node).get("status", {}).get("conditions", [])
        )

    def _slices(self, node: str) -> dict[str, str]:
        annotations = self._get("node", node).get("metadata", {}).get("annotations", {})
        slices: dict[str, str] = json.loads(annotations.get(SLICES, "{}"))
        return slices

    def _get(self, kind: str, name: str) -> dict[str, Any]:
        """The object, empty when there is none."""
        answer = self._plane.kubectl("get", kind, name, "--ignore-not-found", "--output=json")
        found: dict[str, Any] = json.loads(answer or "{}")
        return found


def _yaml(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(config, sort_keys=False)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        there = result.get(key)
        result[key] = _merged(there, value) if isinstance(there, Mapping) and isinstance(value, Mapping) else value
    return result
