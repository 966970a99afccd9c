#!/bin/sh
# debian-shape.sh BASE.tar OUT: a plain Debian host of the base tree. What a host has of its own (name, keys) is not in it.
set -eu
base=$1 out=$2
mkdir -p "$out"
tar -xf "$base" -C "$out" --exclude='./dev/*'
rm -f "$out"/etc/ssh/ssh_host_*
: >"$out/etc/machine-id"
echo 'nameserver 127.0.0.1' >"$out/etc/resolv.conf"
cat >"$out/etc/nix/nix.conf" <<'CONF'
sandbox = true
substituters =
CONF
