#!/bin/sh
# vm-shape.sh BASE.tar OUT KERNEL.tar NFS.tar: a Debian host of the base tree with a kernel of its own, for a virtual machine. /boot has the
# kernel and the smallest initrd that finds the disk; /etc/lab-network, a host's own, says its address and its gateway.
set -eu
base=$1 out=$2 kernel=$3 nfs=$4
"$(dirname "$0")/debian-shape.sh" "$base" "$out"
tar -xf "$kernel" -C "$out" --wildcards './boot/vmlinuz-*' './usr/lib/modules'
version=$(basename "$out"/usr/lib/modules/*)
mv "$out/boot/vmlinuz-$version" "$out/boot/vmlinuz"
chroot "$out" depmod "$version"

initrd=$out/tmp/initrd
mkdir -p "$initrd/bin" "$initrd/dev" "$initrd/root"
cp "$out/usr/bin/busybox" "$initrd/bin/busybox"
xz -dc "$out/usr/lib/modules/$version/kernel/drivers/block/virtio_blk.ko.xz" >"$initrd/virtio_blk.ko"
cat >"$initrd/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox insmod /virtio_blk.ko
/bin/busybox mount -t ext4 /dev/vda /root
exec /bin/busybox switch_root /root /sbin/init
INIT
chmod +x "$initrd/init"
chroot "$out" sh -c 'cd /tmp/initrd && find . | cpio --quiet -o -H newc' >"$out/boot/initrd"
rm -r "$initrd"

# An NFS server for who starts it. mount.nfs is where a host does not look: a bare one has none.
tar -xf "$nfs" -C "$out" --skip-old-files --wildcards './etc/netconfig' './usr/sbin/exportfs' './usr/sbin/rpc.nfsd' \
    './usr/sbin/rpc.mountd' './usr/sbin/mount.nfs' './usr/lib/*/libdevmapper.so*' './usr/lib/*/libevent_core*' \
    './usr/lib/*/libnfsidmap.so*' './usr/lib/*/libnl-*' './usr/lib/*/libtirpc.so*'
mkdir -p "$out/opt/nfs" "$out/var/lib/nfs/v4recovery"
mv "$out/usr/sbin/mount.nfs" "$out/opt/nfs/mount.nfs"

# The base tree has no udev, which would load it.
echo virtio_net >"$out/etc/modules-load.d/lab.conf"
echo '/dev/vda / ext4 rw 0 1' >"$out/etc/fstab"
ln -s /dev/null "$out/etc/systemd/system/systemd-firstboot.service"
cat >"$out/etc/systemd/system/lab-network.service" <<'UNIT'
[Unit]
Description=The lab's cable
After=systemd-modules-load.service
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec 'read address gateway </etc/lab-network; ip addr replace "$address" dev eth0; ip link set eth0 up; ip route replace default via "$gateway"'

[Install]
WantedBy=multi-user.target
UNIT
mkdir -p "$out/etc/systemd/system/multi-user.target.wants"
ln -s ../lab-network.service "$out/etc/systemd/system/multi-user.target.wants/lab-network.service"
