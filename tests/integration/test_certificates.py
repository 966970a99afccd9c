"""The serving certificate that the cluster signs: asked for, renewed before it ends, taken into use by the process that runs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.integration.callers import serial
from tests.integration.conftest import started
from tests.lab.lab import Lab
from tests.lab.shell import wait_for
from vknix.kube.csr import SIGNER

pytestmark = pytest.mark.lab

ASKED_S = 60.0  # of a certificate's 85


@dataclass(frozen=True, slots=True)
class Cluster:
    lab: Lab
    before: frozenset[str]  # requests that were there when vknix was started

    def pending(self) -> list[str]:
        """Requests of this vknix that nobody has approved."""
        listed = json.loads(self.lab.kubectl("get", "certificatesigningrequests", "--output=json").stdout)["items"]
        mine = [of for of in listed if of["spec"]["signerName"] == SIGNER and of["metadata"]["name"] not in self.before]
        return [of["metadata"]["name"] for of in mine if not of["status"]]

    def approve(self) -> None:
        """The one request that waits, once it does."""
        wait_for(lambda: len(self.pending()) == 1, "vknix asks for a certificate", timeout_s=ASKED_S)
        self.lab.kubectl("certificate", "approve", *self.pending())

    def restart(self) -> None:
        config = yaml.safe_load(self.lab.vknix.config_file.read_text())
        self.lab.vknix.stop()
        self.lab.vknix.start(config)

    def serves(self) -> bool:
        """Through the API server, which verifies the node's certificate."""
        healthz = ("get", "--raw", "/api/v1/nodes/vknix/proxy/healthz")
        return self.lab.kubectl(*healthz, check=False).stdout == "ok"


@pytest.fixture
def cluster(lab: Lab, tmp_path: Path) -> Iterator[Cluster]:
    """vknix runs without files of a certificate."""
    listed = json.loads(lab.kubectl("get", "certificatesigningrequests", "--output=json").stdout)["items"]
    lab.vknix.stop()
    lab.vknix.start({"kubelet": {"certFile": None, "keyFile": None, "certDirectory": str(tmp_path)}})
    yield Cluster(lab, frozenset(of["metadata"]["name"] for of in listed))
    lab.vknix.stop()
    started(lab)


def test_a_signed_certificate_is_renewed_without_a_restart(cluster: Cluster) -> None:
    process = cluster.lab.vknix.pid
    assert not cluster.serves()
    cluster.approve()
    wait_for(cluster.serves, "the certificate is served", timeout_s=30)
    first = serial(cluster.lab)
    wait_for(lambda: bool(cluster.pending()), "vknix asks for the next one", timeout_s=ASKED_S)
    assert serial(cluster.lab) == first  # it is good until another is there
    cluster.approve()
    wait_for(lambda: serial(cluster.lab) != first, "the next one is served", timeout_s=30)
    assert cluster.serves()
    assert cluster.lab.vknix.pid == process


def test_a_certificate_is_kept_for_the_next_start(cluster: Cluster) -> None:
    cluster.approve()
    wait_for(cluster.serves, "the certificate is served", timeout_s=30)
    first = serial(cluster.lab)
    cluster.restart()
    wait_for(cluster.serves, "the certificate is served again", timeout_s=30)
    assert serial(cluster.lab) == first
