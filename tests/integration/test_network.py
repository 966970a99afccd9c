"""The Pod network: who reaches whom, under which address, and what a Pod is told about names."""

import http.server
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.build import Json, Space, container, host_of, is_ready, most_of_a_host, pod
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

pytestmark = pytest.mark.lab

SERVE = "hostname > /tmp/index.html; exec httpd -f -v -p 8080 -h /tmp"


def ip(of: Json) -> str:
    return str(of["status"]["podIP"])


@pytest.fixture(scope="module")
def servers(shared: Space) -> dict[str, Json]:
    """far-0 and far-1 are on two hosts, near with one of them; each answers with its name."""
    image = shared.lab.image_busybox
    shared.create(*(pod(f"far-{number}", container(image, SERVE, resources=most_of_a_host())) for number in range(2)))
    shared.wait(is_ready, "far-0", "far-1")
    shared.create(pod("near", container(image, SERVE)))
    return shared.wait(is_ready)


def fetch(space: Space, client: str, of: Json) -> str:
    return space.exec(client, "wget", "-qO-", "-T", "5", f"http://{ip(of)}:8080/").strip()


def beside(servers: dict[str, Json]) -> str:
    """The Pod that is on the host of `near`."""
    return next(name for name in ("far-0", "far-1") if host_of(servers[name]) == host_of(servers["near"]))


def test_pods_of_one_host_reach_each_other(servers: dict[str, Json], shared: Space) -> None:
    other = beside(servers)
    assert fetch(shared, "near", servers[other]) == other
    assert fetch(shared, other, servers["near"]) == "near"


def test_pods_of_two_hosts_reach_each_other(servers: dict[str, Json], shared: Space) -> None:
    assert host_of(servers["far-0"]) != host_of(servers["far-1"])
    assert fetch(shared, "far-0", servers["far-1"]) == "far-1"
    assert fetch(shared, "far-1", servers["far-0"]) == "far-0"


@pytest.mark.parametrize("name", ["far-0", "far-1", "near"])
def test_pod_is_reached_from_the_control_plane(servers: dict[str, Json], name: str) -> None:
    with urllib.request.urlopen(f"http://{ip(servers[name])}:8080/", timeout=5) as answer:
        assert answer.read().decode().strip() == name


def test_pod_reaches_itself_by_its_own_address(servers: dict[str, Json], shared: Space) -> None:
    assert fetch(shared, "near", servers["near"]) == "near"


def test_pod_shows_its_own_address_to_another_hosts_pod(servers: dict[str, Json], shared: Space) -> None:
    fetch(shared, "far-0", servers["far-1"])
    wait_for(lambda: ip(servers["far-0"]) in shared.logs("far-1"), "far-1 has seen far-0's address", timeout_s=5)


@contextmanager
def listener(address: str) -> Iterator[tuple[int, list[str]]]:
    """An HTTP server on this machine: its port, and the addresses of its clients."""
    clients: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            clients.append(self.client_address[0])
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name for it
            """Says nothing."""

    with http.server.ThreadingHTTPServer((address, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], clients
        finally:
            server.shutdown()
            thread.join()


def test_pod_shows_its_hosts_address_to_the_outside(lab: Lab, servers: dict[str, Json], shared: Space) -> None:
    with listener(lab.address) as (port, clients):
        for name in ("far-0", "far-1"):
            shared.exec(name, "wget", "-qO-", "-T", "5", f"http://{lab.address}:{port}/")
    assert clients == [lab.host(host_of(servers[name])).address for name in ("far-0", "far-1")]


def test_addresses_are_of_the_hosts_slices(lab: Lab, servers: dict[str, Json]) -> None:
    node = json.loads(lab.kubectl("get", "node", "vknix", "--output=json").stdout)
    slices = json.loads(node["metadata"]["annotations"]["vknix.io/pod-cidrs"])
    seen = {host_of(of): ip(of) for of in servers.values()}
    assert seen.keys() == slices.keys()
    for host, address in seen.items():
        assert address.rsplit(".", 1)[0] == slices[host].rsplit(".", 1)[0]


@pytest.fixture(scope="module")
def files(shared: Space) -> dict[str, str]:
    """What Pods are told about names: hosts, resolv.conf and host name of each, as text."""
    image = shared.lab.image_busybox
    show = container(image, "hostname; cat /etc/hosts; cat /etc/resolv.conf")
    config = {
        "nameservers": ["192.0.2.53"],
        "searches": ["example.com"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    aliases = [{"ip": "192.0.2.7", "hostnames": ["seven", "seven.example.com"]}]
    pods = (
        pod("default", show),
        pod("none", show, dnsPolicy="None", dnsConfig=config),
        pod("named", show, hostname="web", subdomain="site", hostAliases=aliases),
        pod("whole", show, hostname="web", subdomain="site", setHostnameAsFQDN=True),
        pod("overridden", show, hostnameOverride="over.example.com", subdomain="site"),
        pod("a-name-that-is-longer-than-a-host-name-may-be-and-so-is-cut-off-by-a-kubelet", show),
    )
    shared.create(*pods)
    names = [of["metadata"]["name"] for of in pods]
    ended = shared.wait(lambda of: of.get("status", {}).get("phase") == "Succeeded", *names)
    return {name: f"{ip(ended[name])}\n{shared.logs(name)}" for name in names}


def test_hostname_is_the_pods_name(files: dict[str, str]) -> None:
    address, hostname, *lines = files["default"].splitlines()
    assert hostname == "default"
    assert "127.0.0.1\tlocalhost" in lines
    assert f"{address}\tdefault" in lines


def test_long_name_is_cut_to_a_hostname(files: dict[str, str]) -> None:
    name = next(name for name in files if len(name) > 63)
    assert files[name].splitlines()[1] == name[:63].rstrip("-")


def test_hostname_subdomain_and_aliases_are_in_the_hosts_file(files: dict[str, str], shared: Space) -> None:
    address, hostname, *lines = files["named"].splitlines()
    assert hostname == "web"
    assert f"{address}\tweb.site.{shared.name}.svc.cluster.local\tweb" in lines
    assert "192.0.2.7\tseven\tseven.example.com" in lines


def test_whole_name_is_the_hostname_where_it_is_asked_for(files: dict[str, str], shared: Space) -> None:
    assert files["whole"].splitlines()[1] == f"web.site.{shared.name}.svc.cluster.local"


def test_hostname_can_be_overridden(files: dict[str, str]) -> None:
    address, hostname, *lines = files["overridden"].splitlines()
    assert hostname == "over.example.com"
    assert f"{address}\tover.example.com" in lines


def test_dns_config_is_all_there_is_with_policy_none(files: dict[str, str]) -> None:
    assert files["none"].endswith("search example.com\nnameserver 192.0.2.53\noptions ndots:2 edns0\n")


def test_missing_cluster_dns_is_told(files: dict[str, str], shared: Space) -> None:
    assert "cluster.dns" in shared.wait_event("default", "MissingClusterDNS")


def test_cluster_dns_is_found_and_used(lab: Lab, space: Space) -> None:
    spec = {"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}
    dns = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"}, "spec": spec}
    lab.kubectl("create", "--filename=-", input=json.dumps(dns))
    try:
        address = lab.kubectl("get", "service", "kube-dns", "--namespace=kube-system", "--output=jsonpath={.spec.clusterIP}").stdout
        space.run(pod("dns", container(lab.image_busybox, "cat /etc/resolv.conf")))
        search, server, options = space.logs("dns").splitlines()
    finally:
        lab.kubectl("delete", "service", "kube-dns", "--namespace=kube-system")
    assert search.startswith(f"search {space.name}.svc.cluster.local svc.cluster.local cluster.local")
    assert (server, options) == (f"nameserver {address}", "options ndots:5")
