#!/bin/sh
# cgroup-end.sh CGROUP: kill all that is in a cgroup of cgroup2, at once, and remove it. It is started with a mount namespace
# of its own, since this machine may have cgroup2 anywhere or nowhere.
set -eu
mount --make-rprivate /
mount -t tmpfs none /mnt
mkdir /mnt/cgroup
mount -t cgroup2 cgroup2 /mnt/cgroup
cgroup=/mnt/cgroup/$1
[ -d "$cgroup" ] || exit 0
echo 1 >"$cgroup/cgroup.kill"
tries=0
while grep -q 'populated 1' "$cgroup/cgroup.events"; do
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || { echo "processes of $1 do not die" >&2; exit 1; }
    sleep 0.05
done
find "$cgroup" -depth -type d -exec rmdir {} +
