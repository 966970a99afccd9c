"""vknix.core.dns: hostname, hosts and resolv.conf as a kubelet writes them."""

from typing import Any

import pytest

from tests.unit.build import pod
from vknix.core import dns
from vknix.errors import Refused

HOST = "# made by hand\nnameserver 9.9.9.9\nnameserver 149.112.112.112\nsearch lan. corp\noptions edns0 ndots:1\n; no\n"
CLUSTER = ("10.96.0.10",)
FIRST = "search shop.svc.cluster.local svc.cluster.local cluster.local lan corp\nnameserver 10.96.0.10\noptions ndots:5\n"
DEFAULT = "search lan corp\nnameserver 9.9.9.9\nnameserver 149.112.112.112\noptions edns0 ndots:1\n"


@pytest.mark.parametrize(
    ("spec", "cluster", "text", "events"),
    [
        pytest.param({}, CLUSTER, FIRST, [], id="ClusterFirst"),
        pytest.param({}, (), DEFAULT, ["MissingClusterDNS"], id="no cluster DNS"),
        pytest.param({"hostNetwork": True}, CLUSTER, DEFAULT, [], id="ClusterFirst on the host's network"),
        pytest.param({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": True}, CLUSTER, FIRST, [], id="WithHostNet"),
        pytest.param({"dnsPolicy": "Default"}, CLUSTER, DEFAULT, [], id="Default"),
        pytest.param({"dnsPolicy": "None"}, CLUSTER, "", [], id="None without a config"),
        pytest.param(
            {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a"], "options": [{"name": "rotate"}]}},
            CLUSTER,
            "search a\nnameserver 1.1.1.1\noptions rotate\n",
            [],
            id="None",
        ),
        pytest.param(
            {"dnsConfig": {"searches": ["lan", "more"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}},
            CLUSTER,
            FIRST.replace("corp", "corp more").replace("ndots:5", "ndots:2 edns0"),
            [],
            id="config is merged without duplicates",
        ),
        pytest.param(
            {"dnsPolicy": "Default", "dnsConfig": {"nameservers": ["9.9.9.9", "1.1.1.1", "8.8.8.8"]}},
            CLUSTER,
            DEFAULT.replace("112.112\n", "112.112\nnameserver 1.1.1.1\n"),
            ["DNSConfigForming"],
            id="three nameservers",
        ),
    ],
)
def test_resolv_conf(spec: dict[str, Any], cluster: tuple[str, ...], text: str, events: list[str]) -> None:
    made, notes = dns.resolv_conf(pod(**spec), cluster, "cluster.local", HOST)
    assert (made.decode(), list(notes)) == (text, events)


def test_searches_are_32_at_most() -> None:
    made, _ = dns.resolv_conf(pod(dnsConfig={"searches": [f"s{n}" for n in range(40)]}), CLUSTER, "cluster.local", HOST)
    assert len(made.decode().splitlines()[0].split()) == 33


def test_searches_have_2048_characters_at_most() -> None:
    searches = [f"{letter * 60}.{letter * 60}.{letter * 60}.example" for letter in "abcdefghijklmnop"]
    made, _ = dns.resolv_conf(pod(dnsConfig={"searches": searches}), CLUSTER, "cluster.local", HOST)
    first = made.decode().splitlines()[0]
    assert len(first.removeprefix("search ")) <= 2048
    assert first.split()[1:6] == ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan", "corp"]


@pytest.mark.parametrize(
    ("name", "spec", "hostname"),
    [
        ("web", {}, "web"),
        ("web", {"hostname": "other"}, "other"),
        ("web", {"hostnameOverride": "over.example.com"}, "over.example.com"),
        ("a" * 70, {}, "a" * 63),
        ("a" * 62 + ".b", {}, "a" * 62),
        ("a" * 61 + "-.b", {}, "a" * 61),
    ],
    ids=["name", "given", "overridden", "cut", "no dot at the end", "no dash at the end"],
)
def test_hostname(name: str, spec: dict[str, Any], hostname: str) -> None:
    assert dns.hostname(pod(name=name, **spec)) == hostname


def test_hosts() -> None:
    aliases = [{"ip": "192.0.2.9", "hostnames": ["x", "y.example"]}, {"ip": "192.0.2.8"}]
    assert dns.hosts(pod(subdomain="sub", hostAliases=aliases), ("10.0.0.2", "fd00::2"), "cluster.local").decode() == (
        "# Kubernetes-managed hosts file.\n"
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\n"
        "fe00::0\tip6-mcastprefix\n"
        "fe00::1\tip6-allnodes\n"
        "fe00::2\tip6-allrouters\n"
        "10.0.0.2\tweb.sub.shop.svc.cluster.local\tweb\n"
        "fd00::2\tweb.sub.shop.svc.cluster.local\tweb\n"
        "\n# Entries added by HostAliases.\n"
        "192.0.2.9\tx\ty.example\n"
        "192.0.2.8\n"
    )


def test_hosts_and_name_on_the_hosts_network() -> None:
    of = pod(hostNetwork=True, hostAliases=[{"ip": "192.0.2.9", "hostnames": ["x"]}])
    assert dns.hosts(of, ("192.0.2.1",), "cluster.local", "127.0.0.1 box\n").decode() == (
        "# Kubernetes-managed hosts file (host network).\n127.0.0.1 box\n\n# Entries added by HostAliases.\n192.0.2.9\tx\n"
    )
    assert dns.kernel_hostname(of, "cluster.local", "box") == "box"
    assert dns.kernel_hostname(pod(hostNetwork=True, hostname="own"), "cluster.local", "box") == "own"
    assert dns.kernel_hostname(pod(), "cluster.local", "box") == "web"


def test_hosts_without_a_subdomain() -> None:
    assert dns.hosts(pod(), ("10.0.0.2",), "cluster.local").decode().endswith("ip6-allrouters\n10.0.0.2\tweb\n")


@pytest.mark.parametrize(
    ("spec", "name", "line"),
    [
        ({}, "web", "10.0.0.2\tweb"),
        ({"subdomain": "sub"}, "web", "10.0.0.2\tweb.sub.shop.svc.cluster.local\tweb"),
        (
            {"subdomain": "sub", "setHostnameAsFQDN": True},
            "web.sub.shop.svc.cluster.local",
            "10.0.0.2\tweb.sub.shop.svc.cluster.local\tweb",
        ),
        ({"setHostnameAsFQDN": True}, "web", "10.0.0.2\tweb"),
        ({"subdomain": "sub", "hostnameOverride": "over.example"}, "over.example", "10.0.0.2\tover.example"),
    ],
)
def test_name_of_the_kernel_and_line_of_the_hosts_file(spec: dict[str, Any], name: str, line: str) -> None:
    of = pod(**spec)
    assert dns.kernel_hostname(of, "cluster.local") == name
    assert dns.hosts(of, ("10.0.0.2",), "cluster.local").decode().splitlines()[-1] == line


def test_fqdn_that_the_kernel_does_not_take_holds_the_pod_back() -> None:
    with pytest.raises(Refused, match="too long \\(64 characters is the max") as refused:
        dns.kernel_hostname(pod(subdomain="s" * 50, setHostnameAsFQDN=True), "cluster.local")
    assert refused.value.reason == "FailedCreatePodSandBox"
