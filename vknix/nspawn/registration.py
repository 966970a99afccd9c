"""What a host says of itself when it is registered: the script that asks, and its answer -> HostFacts, problems, warnings. Pure."""

import re
from collections.abc import Iterator, Mapping

from vknix.core.facts import HostFacts, HostName, HostState
from vknix.nspawn import paths

REGISTER = rf"""PATH={paths.SEARCH}; export PATH
say() {{ printf '%s %s\n' "$1" "$2"; }}
say boot_id "$(cat /proc/sys/kernel/random/boot_id)"
say machine_id "$(cat /etc/machine-id 2>/dev/null)"
say system_uuid "$(cat /sys/class/dmi/id/product_uuid 2>/dev/null)"
say kernel "$(uname -r)"
say machine "$(uname -m)"
say os "$(. /etc/os-release 2>/dev/null; printf '%s' "$PRETTY_NAME")"
say systemd "$(systemctl --version | head -n 1)"
say nix "$(nix-store --version 2>/dev/null)"
say cpus "$(nproc)"
say memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
say storage_kib "$(df -Pk /var/lib | sed -n '2{{s/[^ ]* *\([0-9]*\) .*/\1/p}}')"
[ -e /sys/module/overlay ] || modprobe overlay 2>/dev/null
say redirect "$(cat /sys/module/overlay/parameters/redirect_always_follow 2>/dev/null)"
say overlay "$(grep -cw overlay /proc/filesystems)"
say nix_dev "$(stat -c %d /nix)"
say store_dev "$(stat -c %d /nix/store)"
cg=$(sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \([^ ]*\) .* - cgroup2 .*/\1/p' /proc/self/mountinfo | head -n 1)
say cgroup2 "$cg"
say capabilities "$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)"
say controllers "$(cat "$cg/cgroup.controllers" 2>/dev/null)"
say users "$(cat /proc/sys/user/max_user_namespaces 2>/dev/null)"
say huge "$(cd /sys/kernel/mm/hugepages 2>/dev/null && grep -H . */nr_hugepages | sed 's/^[^-]*-//; s,kB/.*:, ,' | tr '\n' ' ')"
say user "$(id -u)"
for tool in systemd-nspawn systemd-run nsenter unshare ip nft tar find nix-store; do
  say "tool:$tool" "$(command -v "$tool")"
done
say nft "$(command -v nft || ls -d /nix/store/*-nftables*/bin/nft 2>/dev/null | head -n 1)"
say epoch "$(cat {paths.EPOCH} 2>/dev/null)"
say farms "$(ls {paths.FARMS} 2>/dev/null | tr '\n' ' ')"
say hostname "$(uname -n)"
printf 'hosts\n'
cat /etc/hosts 2>/dev/null; echo
printf 'resolv_conf\n'
cat /run/systemd/resolve/resolv.conf 2>/dev/null || cat /etc/resolv.conf 2>/dev/null
"""

_MAPPED_TMPFS = (6, 3)  # a kernel
_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
_NEEDED = {
    "systemd-nspawn": "systemd's container package",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "ip": "iproute2",
    "tar": "GNU tar",
    "find": "findutils",
    "nix-store": "Nix",
}


def parse(text: str) -> dict[str, str]:
    rest, _, resolv_conf = text.partition("\nresolv_conf\n")
    head, _, hosts = rest.partition("\nhosts\n")
    pairs = (line.partition(" ") for line in head.splitlines())
    return {key: value.strip() for key, _, value in pairs} | {"hosts": hosts, "resolv_conf": resolv_conf}


def host_facts(name: HostName, address: str, told: Mapping[str, str], pods: int) -> HostFacts:
    return HostFacts(
        name=name,
        state=HostState.UNKNOWN,
        address=address,
        boot_id=told["boot_id"],
        machine_id=told["machine_id"],
        system_uuid=told["system_uuid"] or told["machine_id"],
        kernel=told["kernel"],
        os_image=told["os"],
        systemd=(told["systemd"].split() or ["", "0"])[1],
        nix=told["nix"].rpartition(" ")[2],
        arch=_ARCH.get(told["machine"], told["machine"]),
        cpu_milli=int(told["cpus"] or 0) * 1000,
        memory_bytes=int(told["memory_kib"] or 0) * 1024,
        storage_bytes=int(told["storage_kib"] or 0) * 1024,
        pods=pods,
        own_users=not _no_users(told),
        controllers=frozenset(told["controllers"].split()),
        huge=_huge(told["huge"].split()) if "hugetlb" in told["controllers"].split() else {},
        resolv_conf=told["resolv_conf"],
        hostname=told["hostname"],
        hosts=told["hosts"],
        problems=tuple(problems(told)),
    )


def _no_users(told: Mapping[str, str]) -> str:
    """Why the host can give no Pod users of its own; "" where it can."""
    version = re.match(r"(\d+)\.(\d+)", told["kernel"])
    if version is not None and (int(version[1]), int(version[2])) < _MAPPED_TMPFS:
        return "its kernel maps no users of a tmpfs, which takes Linux 6.3"
    return "user.max_user_namespaces is 0" if told["users"] in ("", "0") else ""


def _huge(words: list[str]) -> dict[str, int]:
    """`KIB COUNT` pairs -> bytes by page size, in Kubernetes' words."""
    pairs = zip(map(int, words[::2]), map(int, words[1::2]), strict=False)
    return {_size(kib): kib * 1024 * count for kib, count in pairs}


def _size(kib: int) -> str:
    return f"{kib >> 20}Gi" if kib >> 20 else f"{kib >> 10}Mi" if kib >> 10 else f"{kib}Ki"


def problems(told: Mapping[str, str]) -> Iterator[str]:
    """What keeps a host from running Pods, each with its remedy."""
    if told["user"] != "0":
        yield "the SSH user is not root: mounts, network namespaces and system units need root; set user: root"
    for tool, package in _NEEDED.items():
        if not told[f"tool:{tool}"]:
            yield f"{tool} is not on the PATH: add {package} to environment.systemPackages"
    if not told["nft"]:
        yield "nft is not there: set networking.nftables.enable, or add pkgs.nftables to environment.systemPackages"
    if not told["cgroup2"]:
        yield "cgroup v2 is not mounted: NixOS has it by default; remove systemd.unified_cgroup_hierarchy=0"
    if told["overlay"] == "0" or told["redirect"] != "Y":
        yield "overlayfs does not follow redirects: load its module with redirect_always_follow=Y, the kernel's default"
    if told["nix_dev"] != told["store_dev"]:
        yield "/nix/store is a file system of its own: this version needs it on that of /nix"


def warnings(told: Mapping[str, str]) -> Iterator[str]:
    """What a host can't enforce; Pods run there all the same."""
    there = told["controllers"].split()
    if "cpu" not in there:
        yield "the cgroup controller cpu is missing: limits of cpu are not enforced"
    if "memory" not in there:
        lacks = "limits of memory are not enforced, and what is used is added up from processes, shared pages each time"
        yield f"the cgroup controller memory is missing: {lacks}"
    if why := _no_users(told):
        yield f"{why}: Pods with hostUsers: false are refused there"
