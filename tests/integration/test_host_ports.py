"""Ports of a host that lead to Pods: on each of its addresses, from everywhere, and gone with the Pod."""

import socket
import urllib.request
from typing import Any

import pytest

from tests.integration.build import Json, Space, container, host_of, is_ready, pod, snapshots, wait_as_before
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

pytestmark = pytest.mark.lab

PORT = 18088
UDP = ["agnhost", "netexec", "--http-port=8079", "--udp-port=8080"]
READY = {"readinessProbe": {"httpGet": {"port": 8079, "path": "/healthz"}, "periodSeconds": 1}}


def serving(name: str, image: str, *ports: Json, **spec: Any) -> Json:
    """It answers with its name on 8080."""
    script = f"echo {name} > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"
    probe = {"exec": {"command": ["wget", "-qO-", "http://127.0.0.1:8080/"]}, "periodSeconds": 1}
    return pod(name, container(image, script, ports=list(ports), readinessProbe=probe), **spec)


def port(ip: str = "", number: int = PORT, protocol: str = "TCP") -> Json:
    return {"containerPort": 8080, "hostPort": number, "protocol": protocol, **({"hostIP": ip} if ip else {})}


def fetch(space: Space, client: str, ip: str) -> str:
    return space.exec(client, "wget", "-qO-", "-T", "5", f"http://{ip}:{PORT}/").strip()


def by_udp(ip: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"hostname", (ip, PORT))
        return client.recv(100).decode().strip()


def by_tcp(ip: str) -> str:
    with urllib.request.urlopen(f"http://{ip}:{PORT}/", timeout=5) as answer:
        return str(answer.read().decode().strip())


@pytest.fixture(scope="module")
def addresses(lab: Lab) -> list[str]:
    return [lab.layout.host_address(host.name) for host in lab.hosts]


@pytest.fixture(scope="module")
def before(lab: Lab, shared: Space) -> list[str]:
    assert shared.pods() == {}
    return snapshots(lab)


@pytest.fixture(scope="module")
def there(lab: Lab, shared: Space, addresses: list[str], before: list[str]) -> dict[str, Json]:
    """Three on one host with the same port of it, which differs in address or protocol; one beside them that is on the host's own
    network; and one on another host. A hostIP says which host is meant."""
    assert before is not None
    image, (one, other) = lab.image_busybox, addresses
    on_host = container(image, ports=[{"containerPort": 18090, "hostIP": one}])
    shared.create(
        serving("at-address", image, port(one)),
        serving("at-localhost", image, port("127.0.0.1"), port(one, 18091)),
        pod(
            "by-udp",
            {"name": "main", "image": lab.images["agnhost"], "command": UDP, "ports": [port(one, protocol="UDP")], **READY},
        ),
        serving("elsewhere", image, port(other)),
        pod("on-host", on_host, hostNetwork=True),
    )
    found = shared.wait(is_ready)
    assert {name: of["status"]["hostIP"] for name, of in found.items()} == {
        **dict.fromkeys(("at-address", "at-localhost", "by-udp", "on-host"), one),
        "elsewhere": other,
    }
    return found


def test_port_is_reached_from_outside(there: dict[str, Json], addresses: list[str]) -> None:
    assert "at-address" in there
    assert [by_tcp(ip) for ip in addresses] == ["at-address", "elsewhere"]
    assert by_udp(addresses[0]) == "by-udp"


def test_port_is_reached_from_its_host(there: dict[str, Json], shared: Space, addresses: list[str]) -> None:
    assert "on-host" in there
    assert fetch(shared, "on-host", addresses[0]) == "at-address"
    assert fetch(shared, "on-host", "127.0.0.1") == "at-localhost"


@pytest.mark.parametrize("client", ["at-address", "by-udp", "elsewhere"])
def test_port_is_reached_from_pods(there: dict[str, Json], shared: Space, addresses: list[str], client: str) -> None:
    """Also from the one that it leads to, and from another host's."""
    assert client in there
    assert fetch(shared, client, addresses[0]) == "at-address"


def test_port_that_is_taken_is_refused_as_by_a_kubelet(
    there: dict[str, Json], lab: Lab, shared: Space, addresses: list[str]
) -> None:
    """The scheduler would not have sent it; and no Pod gets the port by which vknix reaches its hosts."""
    image, node = lab.image_busybox, there["on-host"]["spec"]["nodeName"]
    shared.create(
        serving("taken", image, port(addresses[0]), nodeName=node),
        serving("everywhere", image, port(), nodeName=node),
        serving("of-ssh", image, port(number=22), nodeName=node),
    )
    found = shared.wait(lambda of: of.get("status", {}).get("reason") == "NodePorts", "taken", "everywhere", "of-ssh")
    assert {found[name]["status"]["phase"] for name in ("taken", "everywhere", "of-ssh")} == {"Failed"}


def test_port_goes_with_its_pod(there: dict[str, Json], lab: Lab, shared: Space, addresses: list[str], before: list[str]) -> None:
    shared.kubectl("delete", "pod", "at-address", "--grace-period=1", "--timeout=60s")
    with pytest.raises(OSError, match="refused"):
        by_tcp(addresses[0])
    shared.create(serving("next", lab.image_busybox, port(addresses[0])))
    found = shared.wait(is_ready, "next")
    assert host_of(found["next"]) == host_of(there["on-host"])
    wait_for(lambda: by_tcp(addresses[0]) == "next", "the next Pod has the port", timeout_s=10)
    shared.clear()
    wait_as_before(lab, before)
