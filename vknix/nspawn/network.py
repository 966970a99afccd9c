"""The Pod network of a pool, as text for `ip -batch` and `nft -f`. Pure: routed veth, a /32 a Pod, no bridge.

Each host owns a slice of the Pod CIDRs; hosts reach each other's slices by plain routes. All that is vknix's carries `proto 118`,
the table `inet vknix` or a name `vnet*` (which NixOS' dhcpcd and systemd-networkd leave alone).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_network
from itertools import combinations

from vknix.core.facts import HostName
from vknix.nspawn import publish

PROTO = 118
GATEWAY = "169.254.1.1"  # every Pod's; answered by nobody: its neighbour entry is permanent
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
_WORST_METRIC = 4278198272


@dataclass(frozen=True, slots=True)
class Peer:
    name: HostName
    address: str
    slice: IPv4Network


def slices(
    cidrs: tuple[str, ...], hosts: Mapping[HostName, str | None], told: Mapping[HostName, str]
) -> dict[HostName, IPv4Network]:
    """A slice for each host: as configured, else as told before, else the lowest that is free. Order of hosts does not matter.

    Raises ValueError with the remedy where the CIDRs are too small or overlap what is configured.
    """
    given = {host: IPv4Network(cidr) for host, cidr in hosts.items() if cidr}
    kept = {host: IPv4Network(cidr) for host, cidr in told.items() if host in hosts and host not in given}
    made = given | kept
    _check_apart(made)
    left = sorted(host for host in hosts if host not in made)
    if not left:
        return made
    free = _pieces(cidrs, len(hosts), list(kept.values()))
    for host in left:
        taken = list(made.values()) + [IPv4Network(cidr) for name, cidr in told.items() if name not in hosts]
        piece = next((piece for piece in free if not any(piece.overlaps(other) for other in taken)), None)
        if piece is None:
            raise ValueError(
                f"the Pod CIDRs {', '.join(cidrs)} have no piece left for host {host}: set nodes[].podCIDRs to larger ones"
            )
        made[host] = piece
    return made


def _check_apart(made: Mapping[HostName, IPv4Network]) -> None:
    for one, other in combinations(sorted(made), 2):
        if made[one].overlaps(made[other]):
            raise ValueError(
                f"the slices of hosts {one} ({made[one]}) and {other} ({made[other]}) overlap: change nodes[].hosts[].slice"
            )


def _pieces(cidrs: tuple[str, ...], hosts: int, kept: list[IPv4Network]) -> list[IPv4Network]:
    """Each CIDR in four, or in as many as there are hosts; in pieces of the size that is in use already where one is."""
    parts = max(4, 1 << (hosts - 1).bit_length())
    pieces: list[IPv4Network] = []
    for cidr in cidrs:
        network = ip_network(cidr)
        if isinstance(network, IPv4Network):
            prefix = max(of.prefixlen for of in kept) if kept else min(30, network.prefixlen + parts.bit_length() - 1)
            pieces += network.subnets(new_prefix=max(prefix, network.prefixlen))
    return pieces


def capacity(of: IPv4Network) -> int:
    """Addresses for Pods: all but .0 and .1, which relays and tunnels may want."""
    return of.num_addresses - 2


def free_address(of: IPv4Network, taken: Collection[str], after: str | None) -> str | None:
    """The next free after the last that was given, so that a stale endpoint rarely meets a new Pod."""
    first = int(of.network_address) + 2
    count = capacity(of)
    start = int(IPv4Address(after)) - first + 1 if after is not None else 0
    candidates = (str(IPv4Address(first + (start + index) % count)) for index in range(count))
    return next((address for address in candidates if address not in taken), None)


def veth(uid32: str) -> str:
    return "vnet" + uid32[:11]


def netns(uid32: str) -> str:
    return "vk-" + uid32


def _mac(address: str) -> str:
    return "0a:58:" + ":".join(f"{octet:02x}" for octet in IPv4Address(address).packed)


def make(uid32: str, address: str, *, there: bool = False) -> str:
    """A script that makes a Pod's network; it must not be there, but for its empty namespace where `there` says so."""
    namespace = "" if there else f"netns add {netns(uid32)}\n"
    inside = f"peer name eth0 address {_mac(address)} mtu 1500 netns {netns(uid32)}"
    host_side = f"""{namespace}link add {veth(uid32)} address {GATEWAY_MAC} mtu 1500 type veth {inside}
link set {veth(uid32)} addrgenmode none up
neigh add {address} lladdr {_mac(address)} dev {veth(uid32)} nud permanent
route add {address}/32 dev {veth(uid32)} proto {PROTO}
"""
    pod_side = f"""link set lo up
addr add {address}/32 dev eth0
link set eth0 up
neigh add {GATEWAY} lladdr {GATEWAY_MAC} dev eth0 nud permanent
route add default via {GATEWAY} dev eth0 onlink
"""
    return f"ip -batch - <<'X'\n{host_side}X\nip -n {netns(uid32)} -batch - <<'X'\n{pod_side}X\n"


def remove(uid32: str) -> str:
    """The link first: it goes at once, while a namespace goes some time after it was deleted."""
    return f"ip link del {veth(uid32)} 2>/dev/null || :\nip netns del {netns(uid32)} 2>/dev/null || :\n"


def base(own: IPv4Network, peers: tuple[Peer, ...], cluster: tuple[str, ...], nft: str) -> str:
    """A script for one host, to be run again at will: forwarding, the ways to the other hosts and to Pods, masquerading.

    `cluster` are the Pod and Service CIDRs, to which Pods show their own address; `nft` is the program.
    """
    routes = [f"route replace {peer.slice} via {peer.address} proto {PROTO}" for peer in peers]
    # Packets to a Pod that is gone must not leave by the default route.
    routes.append(f"route replace blackhole {own} proto {PROTO} metric {_WORST_METRIC}")
    inside = ", ".join(sorted({str(own), *(str(peer.slice) for peer in peers), *cluster}))
    declared = "set inside { type ipv4_addr; flags interval; auto-merge; "
    # In one transaction. The ports of Pods are elements, which stay.
    table = f"""table inet vknix {{
  {declared}}}
}}
flush table inet vknix
flush set inet vknix inside
table inet vknix {{
  {declared}elements = {{ {inside} }}; }}
  chain postrouting {{
    type nat hook postrouting priority srcnat + 10;
    ip saddr {own} ip daddr != @inside oifname != "vnet*" masquerade
  }}
{publish.CHAINS}}}
"""
    text = "\n".join(routes)
    forward = f"echo 1 > /proc/sys/net/ipv4/ip_forward\nip -batch - <<'X'\n{text}\nX\n"
    return f"{forward}{nft} -f - <<'X'\n{table}X\n{publish.restore(nft)}"
