"""The lab's network in this machine's kernel: a bridge, a namespace and a cable for each host, and routes to the Pods."""

import json
from collections.abc import Mapping
from pathlib import Path

from tests.lab.layout import Layout
from tests.lab.shell import run

HOST_END = "eth0"


def ensure_bridge(lab: Layout) -> None:
    """The bridge, with this machine's address on it; this machine passes on what hosts of one node send to those of another."""
    if not _has_link(lab.bridge):
        mac = f"02:5a:0a:5a:{lab.index:02x}:01"
        run(["ip", "link", "add", lab.bridge, "address", mac, "type", "bridge"])
    run(["ip", "addr", "replace", f"{lab.address}/24", "dev", lab.bridge])
    run(["ip", "link", "set", lab.bridge, "up"])
    Path(f"/proc/sys/net/ipv4/conf/{lab.bridge}/forwarding").write_text("1")


def ensure_host(lab: Layout, host: str) -> None:
    """The host's namespace and its cable to the bridge. A cable that was cut is whole again."""
    netns, link = lab.machine(host), lab.host_link(host)
    if not _has_netns(netns):
        run(["ip", "netns", "add", netns])
    if not _has_link(link):
        peer = ["peer", "name", HOST_END, "address", lab.host_mac(host), "netns", netns]
        run(["ip", "link", "add", link, "type", "veth", *peer])
    run(["ip", "link", "set", link, "master", lab.bridge, "up"])
    inside = [
        "link set lo up",
        f"addr replace {lab.host_address(host)}/24 dev {HOST_END}",
        f"link set {HOST_END} up",
        f"route replace default via {lab.address}",
    ]
    run(["ip", "-n", netns, "-batch", "-"], stdin="\n".join(inside))


def ensure_tap(lab: Layout, host: str) -> None:
    """The cable of a virtual machine, which makes its own end of it. A cable that was cut is whole again."""
    link = lab.host_link(host)
    if not _has_link(link):
        run(["ip", "tuntap", "add", "dev", link, "mode", "tap"])
    run(["ip", "link", "set", link, "master", lab.bridge, "up"])


def cut(lab: Layout, host: str) -> None:
    """Pull the host's cable: packets both ways vanish, connections stay."""
    run(["ip", "link", "set", lab.host_link(host), "down"])


def heal(lab: Layout, host: str) -> None:
    """Plug the host's cable in again."""
    run(["ip", "link", "set", lab.host_link(host), "up"])


def route_pods(lab: Layout, slices: Mapping[str, str]) -> None:
    """Reach the Pods from here: each host's slice of the Node's addresses by that host."""
    for host, cidr in slices.items():
        run(["ip", "route", "replace", cidr, "via", lab.host_address(host), "dev", lab.bridge])


def remove_host(lab: Layout, host: str) -> None:
    """Absent is success."""
    # The cable first: a namespace goes when the kernel finds time for it.
    if _has_link(lab.host_link(host)):
        run(["ip", "link", "del", lab.host_link(host)])
    if _has_netns(lab.machine(host)):
        run(["ip", "netns", "del", lab.machine(host)])


def remove_bridge(lab: Layout) -> None:
    """The bridge and with it all routes over it. Absent is success."""
    if _has_link(lab.bridge):
        run(["ip", "link", "del", lab.bridge])


def _has_link(name: str) -> bool:
    return run(["ip", "link", "show", "dev", name], check=False).returncode == 0


def _has_netns(name: str) -> bool:
    listed = json.loads(run(["ip", "-json", "netns", "list"]).stdout or "[]")
    return any(entry["name"] == name for entry in listed)
