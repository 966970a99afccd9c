"""The ports of a host that lead to its Pods, as text for `nft -f` and sh. Pure.

Two maps of the table `inet vknix` say where a port leads: `ports` on each address of the host, `ports_at` on one. What a Pod put
there is in its file `ports`, a line an element, from which it is put back where a firewall has flushed it, and taken away.
"""

from collections.abc import Iterable, Iterator

from vknix.core.host_ports import ANY, Port
from vknix.nspawn import paths

# Before kube-proxy's. A Pod must not reach the host's localhost by the way on which its answers go there.
CHAINS = """  map ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
  map ports_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
  set hairpins { type ipv4_addr . ipv4_addr; }
  chain localhost {
    type filter hook prerouting priority raw;
    iifname "vnet*" ip daddr 127.0.0.0/8 drop
  }
  chain published {
    dnat ip to ip daddr . meta l4proto . th dport map @ports_at
    dnat ip to meta l4proto . th dport map @ports
  }
  chain prerouting {
    type nat hook prerouting priority dstnat - 10;
    fib daddr type local jump published
  }
  chain output {
    type nat hook output priority -110;
    fib daddr type local jump published
  }
  chain published_to {
    type nat hook postrouting priority srcnat + 9;
    ip saddr . ip daddr @hairpins masquerade
    oifname "vnet*" ip saddr 127.0.0.0/8 masquerade
  }
"""
_ADD = r"s/^\([a-z_]*\) \(.*\)/add element inet vknix \1 { \2 }/"
_DELETE = r"s/ :.*//; s/^\([a-z_]*\) \(.*\)/delete element inet vknix \1 { \2 }/"
_LOCK = f"9< {paths.RUN}"


def _file(uid32: str) -> str:
    return f"{paths.run(uid32)}/ports"


def _keys(ports: Iterable[Port]) -> Iterator[tuple[str, str]]:
    """Map, key and where it leads but for the address."""
    for port in sorted(ports):
        key = f"{port.protocol.lower()} . {port.number}"
        yield (f"ports {key}" if port.ip == ANY else f"ports_at {port.ip} . {key}"), str(port.inner)


def make(uid32: str, link: str, address: str, ports: Iterable[Port], nft: str) -> str:
    """A script that opens them; `link` is the host's end of the Pod's. What leads elsewhere is taken from a Pod that has ended."""
    keys = [*_keys(ports)]
    if not keys:
        return ""
    file = _file(uid32)
    lines = [*(f"{key} : {address} . {inner}" for key, inner in keys), f"hairpins {address} . {address}"]
    text = "\n".join(lines)
    drop = "".join(f"/^{key.replace('.', '[.]')} : /d;" for key, _ in keys)
    taken = "\n".join(key for key, _ in keys)
    return f"""echo 1 > /proc/sys/net/ipv4/conf/{link}/route_localnet
(
flock 9
if ! sed '{_ADD}' <<'X' | {nft} -f - 2>/dev/null
{text}
X
then
for of in {paths.RUN}/*/ports; do [ ! -e "$of" ] || sed -i '{drop}' "$of"; done
sed '{_DELETE}' <<'X' | while read -r line; do {nft} "$line" 2>/dev/null || :; done
{taken}
X
sed '{_ADD}' <<'X' | {nft} -f -
{text}
X
fi
cat > {file} <<'X'
{text}
X
) {_LOCK}
"""


def restore(nft: str) -> str:
    """A script that opens what Pods have open, whether it is or not."""
    add = f"""[ ! -e "$of" ] || sed '{_ADD}' "$of" | {nft} -f - 2>/dev/null || :"""
    return f"(\nflock 9\nfor of in {paths.RUN}/*/ports; do {add}; done\n) {_LOCK}\n"


def unmake(uid32: str, nft: str) -> str:
    """A script that closes those of a Pod, and says nothing where it has none."""
    file = _file(uid32)
    close = f"""sed '{_DELETE}' {file} | while read -r line; do {nft} "$line" 2>/dev/null || :; done"""
    return f"[ ! -e {file} ] || (\nflock 9\n{close}\nrm {file}\n) {_LOCK}\n"
