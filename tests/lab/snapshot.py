"""What vknix makes on a host, as sorted text to compare before and after: a script for the host, and its lines put in order.

Left out is what stays by design once vknix has been there: the slice vk.slice and the epoch file.
"""

SCRIPT = r"""
export LC_ALL=C PATH=/run/current-system/sw/bin:/usr/bin:/usr/sbin
# mark KIND: each line of stdin as a line of that kind
mark() { while IFS= read -r line; do [ -z "$line" ] || printf '%s %s\n' "$1" "$line"; done; }

systemctl list-units --all --plain --no-legend --full 'vk*' | while read -r unit _; do
    [ "$unit" = vk.slice ] || printf 'unit %s\n' "$unit"
done
while read -r _ _ _ _ target _; do
    case $target in
    /run/vknix/* | /var/lib/vknix/* | /run/netns/vk-* | /run/systemd/nspawn/*/vk-*) printf 'mount %s\n' "$target" ;;
    esac
done </proc/self/mountinfo
find /run/netns -mindepth 1 -name 'vk-*' 2>/dev/null | mark netns
ip -o link show | while IFS=': @' read -r _ link _; do
    case $link in vnet*) printf 'link %s\n' "$link" ;; esac
done
ip route show proto 118 | mark route
ip -6 route show proto 118 | mark route
nft=$(command -v nft || ls /nix/store/*-nftables/bin/nft 2>/dev/null | head -n 1)
"$nft" --stateless list table inet vknix 2>/dev/null | mark nft
find /run/vknix -mindepth 1 -maxdepth 3 ! -name epoch 2>/dev/null | mark file
find /var/lib/vknix -mindepth 1 -maxdepth 3 -path /var/lib/vknix/farms -prune -o -mindepth 1 -print 2>/dev/null | mark file
find /run/systemd/system /run/systemd/transient /run/systemd/nspawn -name 'vk*' ! -name vk.slice 2>/dev/null | mark file
find /sys/fs/cgroup -type d -name 'vk*' ! -name vk.slice 2>/dev/null | mark cgroup
find /var/lib/vknix/farms /nix/var/nix/gcroots/vknix -mindepth 1 -maxdepth 1 2>/dev/null | mark cache
"""


def render(listing: str, *, caches: bool) -> str:
    """The script's answer in order; the caches in a section of their own, or not at all."""
    lines = sorted(set(listing.splitlines()))
    made = [line for line in lines if not line.startswith("cache ")]
    kept = [line.removeprefix("cache ") for line in lines if line.startswith("cache ")]
    shown = [*made, *(["", "caches:", *kept] if caches else [])]
    return "".join(f"{line}\n" for line in shown)
