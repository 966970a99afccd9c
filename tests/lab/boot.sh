#!/bin/sh
# boot.sh MACHINE HOSTNAME ROOT [NSPAWN-OPTION...]: run ROOT as a host, and again when it reboots. It is started with a mount
# namespace of its own; the network namespace MACHINE is there already. Ends with the host's poweroff.
set -eu
machine=$1 hostname=$2 root=$3
shift 3

# cgroup2 alone, whatever this machine mounts: what a host of today has. nspawn needs a cgroup without other processes.
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cgroup=/sys/fs/cgroup/$machine
mkdir -p "$cgroup/boot" "$cgroup/machine"
echo $$ >"$cgroup/boot/cgroup.procs"
for controller in cpu memory pids io; do
    echo "+$controller" >"$cgroup/cgroup.subtree_control" 2>/dev/null || true
done

# A reboot takes all network state with it but the cable; here the namespace outlives the machine.
forget_network() {
    ip netns exec "$machine" nft flush ruleset
    ip -n "$machine" route flush proto 118
    ip -n "$machine" -6 route flush proto 118
    for kind in veth wireguard vxlan bridge dummy; do
        ip -n "$machine" -o link show type "$kind" | while IFS=': @' read -r _ link _; do
            # Its other end, a line before, may have taken it along.
            [ "$link" = eth0 ] || ip -n "$machine" link del "$link" 2>/dev/null || true
        done
    done
    ip netns exec "$machine" sysctl -qw net.ipv4.ip_forward=0
}

run() {
    # shellcheck disable=SC2016 # $1 is the inner shell's.
    sh -c 'echo $$ >"$1/machine/cgroup.procs"; shift; exec "$@"' sh "$cgroup" \
        env SYSTEMD_NSPAWN_API_VFS_WRITABLE=1 SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 \
        systemd-nspawn --quiet --machine="$machine" --hostname="$hostname" --directory="$root" --register=no --keep-unit \
        --capability=all --system-call-filter='@keyring bpf pidfd_getfd' --network-namespace-path="/run/netns/$machine" \
        --resolv-conf=off --timezone=off --link-journal=no --kill-signal=SIGRTMIN+3 --console=read-only "$@"
}

# 133: it wants to be rebooted, which nspawn leaves to others under --keep-unit.
status=133
while [ "$status" = 133 ]; do
    forget_network
    status=0
    run "$@" || status=$?
done
exit "$status"
