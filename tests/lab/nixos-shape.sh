#!/bin/bash
# nixos-shape.sh BASE.tar OUT: a NixOS-shaped host of the base tree, on which what assumes the FHS fails as it fails on NixOS.
# Only /bin/sh and /usr/bin/env are where others have them; all else is in /nix/store, /etc is links into it; PATHs, sshd, Nix,
# PAM, journald, firewall and D-Bus are set as NixOS sets them. What a host has of its own (name, keys) is not in it.
# Needs room for twice the tree in TMPDIR. The Nix that is used is the one in the base tree.
set -euo pipefail

base=$(realpath "$1") out=$(realpath -m "$2")
here=$(dirname "$(realpath "$0")")
[ ! -e "$out" ] || { echo "$out exists" >&2; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/nixos-shape.XXXXXX")
trap 'rm -rf "$work"' EXIT
deb=$work/deb  # the base tree
st=$work/st    # store paths in the making
libs=$deb/usr/lib/x86_64-linux-gnu
export NIX_CONF_DIR=$work NIX_REMOTE="local?root=$out"

# The tree's own Nix, run from outside on the new tree's store.
nix_store() {
    "$deb/usr/lib64/ld-linux-x86-64.so.2" --argv0 nix-store --library-path "$libs" "$deb/usr/bin/nix" "$@" \
        2> >(grep -v 'GC Warning' >&2)
}

# add NAME: put $st/NAME into the store; prints its path there
add() { nix_store --add "$st/$1"; }

# programs PACKAGE...: the names of all programs of these Debian packages
programs() {
    for package in "$@"; do
        cat "$deb/var/lib/dpkg/info/$package.list" "$deb/var/lib/dpkg/info/$package:amd64.list" 2>/dev/null || true
    done | sed -nE 's,^(/usr)?/s?bin/([^/]+)$,\2,p' | sort -u
}

# unit_path DIR: a unit's PATH as NixOS makes it: coreutils (twice, with bin and sbin), then systemd
unit_path() { printf 'Environment="PATH=%s/bin:%s/sbin:%s/bin"\n' "$1" "$1" "$S"; }

# wanted_by TARGET UNIT
wanted_by() {
    mkdir -p "$units/$1.wants"
    ln -sfn "../$2" "$units/$1.wants/$2"
}

make_skeleton() {
    mkdir -p "$deb" "$st" "$out"/{bin,boot,dev,etc,home,lib64,proc,root,run,srv,sys,tmp,usr/bin} \
        "$out"/nix/{store,var/nix/{db,gcroots,profiles/per-user/root,temproots,daemon-socket}} \
        "$out"/var/{empty,lib/machines,log/journal}
    chmod 1777 "$out/tmp"
    chmod 700 "$out/root" "$out/var/lib/machines"
    chmod 555 "$out/var/empty"
    ln -s /run "$out/var/run"
    mkdir -m 1777 -p "$out/var/tmp"
    tar xf "$base" -C "$deb" --exclude=./dev
    printf 'build-users-group =\nsubstituters =\nsandbox = false\n' >"$work/nix.conf"
}

# Debian's /usr in the store, and the short path that systemd has compiled in as its PATH (of the length of Debian's).
add_system_programs() {
    mkdir -p "$st/s/bin"
    for program in $(programs systemd systemd-container systemd-sysv); do ln -s "/.os/bin/$program" "$st/s/bin/$program"; done
    S=$(add s)
    python3 "$here/nixos_shape.py" relocate "$deb" "$st/os" "$S/bin"
    OS=$(add os)
    ln -s "$OS" "$out/.os"
}

# Paths that NixOS has as packages of their own; busybox-static is fit for a container's closure.
add_small_paths() {
    mkdir -p "$st"/{bash-interactive,coreutils-full,nftables,busybox-static}/bin "$st"/openssh/{bin,libexec}
    ln -s "$OS/bin/bash" "$st/bash-interactive/bin/bash"
    ln -s bash "$st/bash-interactive/bin/sh"
    for program in $(programs coreutils); do ln -s "$OS/bin/$program" "$st/coreutils-full/bin/$program"; done
    ln -s "$OS/sbin/nft" "$st/nftables/bin/nft"
    cp "$deb/usr/bin/busybox" "$st/busybox-static/bin/busybox"
    for applet in $("$deb/usr/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$st/busybox-static/bin/$applet"
    done
    ln -s "$OS/lib/openssh/sftp-server" "$st/openssh/libexec/sftp-server"
    BASH_=$(add bash-interactive) CORE=$(add coreutils-full) NFT=$(add nftables) BB=$(add busybox-static) SSH=$(add openssh)
    ln -s "$BASH_/bin/sh" "$out/bin/sh"
    ln -s "$CORE/bin/env" "$out/usr/bin/env"
    python3 "$here/nixos_shape.py" stub-loader "$out/lib64/ld-linux-x86-64.so.2"
}

# /run/current-system/sw: the programs of NixOS' system-path.nix and of the modules that are on by default. No nft: it comes
# only with networking.nftables.enable.
add_system_path() {
    local packages="acl attr bzip2 coreutils cpio curl diffutils findutils gawk libc-bin grep patch sed tar gzip xz-utils less
        libcap2-bin ncurses-bin netcat-openbsd procps time util-linux util-linux-extra mount login passwd bsdutils hostname zstd
        rsync systemd systemd-container systemd-sysv kmod dbus-bin dbus dbus-daemon nix-bin openssh-client openssh-server
        iproute2 iputils-ping iptables"
    mkdir -p "$st/system-path"/{bin,lib,share}
    # shellcheck disable=SC2086 # Words are meant.
    { programs $packages; printf '%s\n' awk nc which {ip,ip6}tables{,-save,-restore}; } | sort -u | while read -r program; do
        for dir in bin sbin; do
            [ -e "$st/os/$dir/$program" ] || [ -L "$st/os/$dir/$program" ] || continue
            ln -sf "$OS/$dir/$program" "$st/system-path/bin/$program"
            break
        done
    done
    ln -sf "$BASH_/bin/bash" "$BASH_/bin/sh" "$st/system-path/bin/"
    rm -f "$st/system-path/bin/"{ldconfig,busybox,rmt,init}
    SW=$(add system-path)
}

# All units are in one directory of the store.
add_units() {
    units=$st/system-units
    mkdir -p "$units"
    (
        cd "$st/os/example/systemd/system"
        for unit in *; do
            case $unit in
            apt-* | dpkg-* | e2scrub* | fstrim* | systemd-networkd* | ssh* | rescue-ssh* | initrd* | *debian*) continue ;;
            nix-* | dbus.* | dbus-broker*) continue ;;
            esac
            if [ -L "$unit" ]; then
                cp -P "$unit" "$units/"
            elif [ -d "$unit" ]; then
                cp -a "$unit" "$units/$unit"
            else
                sed "s,/\.os/,$OS/,g" "$unit" >"$units/$unit"
            fi
        done
    )
    rm -f "$units"/*.wants/{systemd-networkd*,ssh*,systemd-pcr*,systemd-tpm2*,dpkg*,apt*,e2scrub*,fstrim*}
    add_sshd_unit
    add_nix_units
    add_firewall_unit
    add_dbus_units
    ln -sf multi-user.target "$units/default.target"
    wanted_by multi-user.target machines.target
    for unit in getty.target console-getty.service ldconfig.service \
        systemd-{firstboot,machine-id-commit,update-done,hwdb-update,journal-catalog-update,sysusers}.service; do
        rm -f "$units"/*.wants/$unit
    done
    UNITS=$(add system-units)
}

add_sshd_unit() {
    mkdir -p "$st/unit-script-sshd-pre-start/bin"
    cat >"$st/unit-script-sshd-pre-start/bin/sshd-pre-start" <<E
#!$BASH_/bin/bash -e
for t in rsa ed25519; do [ -s /etc/ssh/ssh_host_\${t}_key ] || $OS/bin/ssh-keygen -q -t \$t -f /etc/ssh/ssh_host_\${t}_key -N ''; done
mkdir -p /run/sshd
E
    chmod +x "$st/unit-script-sshd-pre-start/bin/sshd-pre-start"
    PRE=$(add unit-script-sshd-pre-start)
    cat >"$units/sshd.service" <<E
[Unit]
Description=SSH Daemon
After=network.target
[Service]
$(unit_path "$CORE")
ExecStartPre=$PRE/bin/sshd-pre-start
ExecStart=$OS/sbin/sshd -D -f /etc/ssh/sshd_config
KillMode=process
Restart=always
Type=notify
E
    wanted_by multi-user.target sshd.service
}

add_nix_units() {
    cat >"$units/nix-daemon.socket" <<E
[Unit]
Description=Nix Daemon Socket
RequiresMountsFor=/nix/store
ConditionPathIsReadWrite=/nix/var/nix/daemon-socket
[Socket]
ListenStream=/nix/var/nix/daemon-socket/socket
E
    cat >"$units/nix-daemon.service" <<E
[Unit]
Description=Nix Daemon
RequiresMountsFor=/nix/store /nix/var
[Service]
$(unit_path "$CORE")
ExecStart=@$OS/bin/nix-daemon nix-daemon --daemon
KillMode=process
LimitNOFILE=1048576
TasksMax=1048576
E
    wanted_by sockets.target nix-daemon.socket
    cat >"$units/nix-gc.service" <<E
[Unit]
Description=Nix Garbage Collector
[Service]
Type=oneshot
$(unit_path "$CORE")
ExecStart=$OS/bin/nix-collect-garbage
E
}

# NixOS' default: ssh and ping come in, all else is dropped; a strict reverse-path filter; forwarding is not filtered.
add_firewall_unit() {
    mkdir -p "$st/firewall-start/bin"
    cat >"$st/firewall-start/bin/firewall-start" <<E
#!$BASH_/bin/bash
PATH=$OS/sbin:$OS/bin
for i in iptables ip6tables; do
  \$i -w -D INPUT -j nixos-fw 2>/dev/null; \$i -w -F nixos-fw 2>/dev/null || \$i -w -N nixos-fw
  \$i -w -A nixos-fw -i lo -j ACCEPT
  \$i -w -A nixos-fw -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
  \$i -w -A nixos-fw -p tcp --dport 22 -j ACCEPT
  if [ \$i = iptables ]; then \$i -w -A nixos-fw -p icmp --icmp-type echo-request -j ACCEPT; else \$i -w -A nixos-fw -p icmpv6 -j ACCEPT; fi
  \$i -w -A nixos-fw -j DROP
  \$i -w -A INPUT -j nixos-fw
  \$i -w -t mangle -D PREROUTING -j nixos-fw-rpfilter 2>/dev/null; \$i -w -t mangle -F nixos-fw-rpfilter 2>/dev/null || \$i -w -t mangle -N nixos-fw-rpfilter
  \$i -w -t mangle -A nixos-fw-rpfilter -m rpfilter --validmark -j RETURN && \$i -w -t mangle -A nixos-fw-rpfilter -j DROP && \$i -w -t mangle -A PREROUTING -j nixos-fw-rpfilter
done
exit 0
E
    chmod +x "$st/firewall-start/bin/firewall-start"
    FW=$(add firewall-start)
    cat >"$units/firewall.service" <<E
[Unit]
Description=Firewall
Before=network-pre.target
Wants=network-pre.target
After=systemd-modules-load.service
DefaultDependencies=false
[Service]
Type=oneshot
RemainAfterExit=true
ExecStart=$FW/bin/firewall-start
E
    wanted_by sysinit.target firewall.service
}

add_dbus_units() {
    cat >"$units/dbus.socket" <<E
[Unit]
Description=D-Bus System Message Bus Socket
[Socket]
ListenStream=/run/dbus/system_bus_socket
E
    cat >"$units/dbus-broker.service" <<E
[Unit]
Description=D-Bus System Message Bus
DefaultDependencies=false
After=dbus.socket
Before=basic.target shutdown.target
Requires=dbus.socket
Conflicts=shutdown.target
[Service]
Type=notify
Sockets=dbus.socket
OOMScoreAdjust=-900
LimitNOFILE=16384
ExecStart=$OS/bin/dbus-broker-launch --scope system --audit
ExecReload=$OS/bin/busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig
E
    ln -s dbus-broker.service "$units/dbus.service"
    wanted_by sockets.target dbus.socket
    wanted_by multi-user.target dbus.service
}

# /etc is a store path; each file of it is in the tree as a symlink by way of /etc/static.
add_etc() {
    etc=$st/etc/etc
    mkdir -p "$etc"/{nix,ssh,pam,pam.d,systemd/system-preset,security,ssl/certs,sysctl.d,tmpfiles.d}
    write_shell_environment
    write_pam
    write_sshd_config
    write_systemd_config
    write_small_files
    ETC=$(add etc)
    ln -s "$ETC/etc" "$out/etc/static"
    (
        cd "$etc"
        find . -mindepth 1 -type d -printf '%P\n' | while read -r dir; do mkdir -p "$out/etc/$dir"; done
        find . -mindepth 1 ! -type d -printf '%P\n' | while read -r file; do ln -s "/etc/static/$file" "$out/etc/$file"; done
    )
}

write_shell_environment() {
    # shellcheck disable=SC2016 # The host's shells expand it.
    local path='/run/wrappers/bin:$HOME/.nix-profile/bin:/nix/profile/bin:$HOME/.local/state/nix/profile/bin:/etc/profiles/per-user/$USER/bin:/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin'
    cat >"$etc/set-environment" <<E_
# for every shell: the environment of the system
export __NIXOS_SET_ENVIRONMENT_DONE=1
export LOCALE_ARCHIVE=/run/current-system/sw/lib/locale/locale-archive
export NIX_PATH=nixpkgs=/nix/var/nix/profiles/per-user/root/channels/nixos:nixos-config=/etc/nixos/configuration.nix:/nix/var/nix/profiles/per-user/root/channels
export TZDIR=/etc/zoneinfo
export PATH="$path"
E_
    cat >"$etc/profile" <<'E_'
if [ -n "$__ETC_PROFILE_SOURCED" ]; then return; fi
__ETC_PROFILE_SOURCED=1
export __ETC_PROFILE_DONE=1
if [ -z "$__NIXOS_SET_ENVIRONMENT_DONE" ]; then . /etc/set-environment; fi
if [ -n "${BASH_VERSION:-}" ]; then . /etc/bashrc; fi
E_
    cat >"$etc/bashrc" <<'E_'
if [ -n "$__ETC_BASHRC_SOURCED" ] || [ -n "$NOSYSBASHRC" ]; then return; fi
__ETC_BASHRC_SOURCED=1
if [ -z "$__ETC_PROFILE_DONE" ]; then . /etc/profile; fi
if [ -n "$PS1" ]; then PS1='[\u@\h:\w]\$ '; fi
E_
    {
        echo 'LOCALE_ARCHIVE DEFAULT="/run/current-system/sw/lib/locale/locale-archive"'
        echo 'TZDIR DEFAULT="/etc/zoneinfo"'
        sed 's,\$HOME,@{HOME},g;s,\$USER,@{PAM_USER},g;s,.*,PATH DEFAULT="&",' <<<"$path"
    } >"$etc/pam/environment"
}

write_pam() {
    for service in sshd su login other systemd-user; do
        cat >"$etc/pam.d/$service" <<'E_'
account required pam_unix.so
auth sufficient pam_rootok.so
auth sufficient pam_unix.so likeauth try_first_pass
auth required pam_deny.so
password sufficient pam_unix.so nullok yescrypt
session required pam_env.so conffile=/etc/pam/environment readenv=0
session required pam_unix.so
session required pam_loginuid.so
session optional pam_systemd.so
E_
    done
    sed -i '/loginuid/d;/^auth sufficient pam_rootok/d' "$etc/pam.d/other"
    sed -i '/pam_rootok/d' "$etc/pam.d/sshd"
    sed -i '/loginuid/d' "$etc/pam.d/"{su,systemd-user}
}

write_sshd_config() {
    cat >"$etc/ssh/sshd_config" <<E_
AddressFamily any
AuthorizedKeysFile %h/.ssh/authorized_keys /etc/ssh/authorized_keys.d/%u
AuthorizedPrincipalsFile none
Ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr
GatewayPorts no
KbdInteractiveAuthentication yes
KexAlgorithms mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,diffie-hellman-group-exchange-sha256
LogLevel INFO
Macs hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com,umac-128-etm@openssh.com
PasswordAuthentication yes
PermitRootLogin prohibit-password
PrintMotd no
StrictModes yes
UseDns no
UsePAM yes
X11Forwarding no
Port 22
Subsystem sftp $SSH/libexec/sftp-server
HostKey /etc/ssh/ssh_host_rsa_key
HostKey /etc/ssh/ssh_host_ed25519_key
E_
}

write_systemd_config() {
    echo 'ignore *' >"$etc/systemd/system-preset/00-nixos.preset"
    cat >"$etc/systemd/system.conf" <<E_
[Manager]
DefaultIOAccounting=true
DefaultIPAccounting=true
ManagerEnvironment=LOCALE_ARCHIVE=/run/current-system/sw/lib/locale/locale-archive PATH=$OS/sbin:$OS/bin TZDIR=/etc/zoneinfo
E_
    printf '[Journal]\nStorage=persistent\nRateLimitInterval=30s\nRateLimitBurst=10000\nAudit=keep\n' >"$etc/systemd/journald.conf"
    printf '[Login]\nKillUserProcesses=no\n' >"$etc/systemd/logind.conf"
    ln -s "$UNITS" "$etc/systemd/system"
    ln -s "$OS/lib/systemd/user" "$etc/systemd/user"
}

write_small_files() {
    cat >"$etc/nix/nix.conf" <<'E_'
allowed-users = *
auto-optimise-store = false
build-users-group = nixbld
cores = 0
max-jobs = auto
require-sigs = true
sandbox = true
sandbox-fallback = false
substituters =
trusted-users = root
extra-sandbox-paths =
E_
    cat >"$etc/os-release" <<'E_'
NAME=NixOS
ID=nixos
ID_LIKE=""
PRETTY_NAME="NixOS 25.11 (shape)"
VERSION="25.11 (shape)"
VERSION_ID="25.11"
BUILD_ID="25.11.shape"
VARIANT_ID=""
E_
    cat >"$etc/nsswitch.conf" <<'E_'
passwd: files systemd
group: files [success=merge] systemd
shadow: files systemd
hosts: mymachines files myhostname dns
networks: files
services: files
protocols: files
E_
    printf '127.0.0.1 localhost\n::1 localhost\n127.0.0.2 nixos\n' >"$etc/hosts"
    printf '/run/current-system/sw/bin/bash\n/run/current-system/sw/bin/sh\n/bin/sh\n' >"$etc/shells"
    : >"$etc/fstab"
    cp "$deb/etc/login.defs" "$deb/etc/xattr.conf" "$etc/"
    cp -r "$deb/etc/security/." "$etc/security/"
    cp -L "$deb/etc/ssl/certs/ca-certificates.crt" "$etc/ssl/certs/"
    ln -s ca-certificates.crt "$etc/ssl/certs/ca-bundle.crt"
    ln -s "$OS/share/zoneinfo" "$etc/zoneinfo"
}

# What NixOS writes to /etc at activation: users, and the files that programs change.
write_state() {
    for file in passwd group shadow gshadow; do
        cp -p "$deb/etc/$file" "$out/etc/"
        sed -i '/^nixbld/d' "$out/etc/$file"
    done
    local sw=/run/current-system/sw/bin
    sed -i -E "s,^(root:.*):[^:]*\$,\1:$sw/bash,;s,:/usr/sbin/nologin\$|:/bin/sync\$|:/bin/false\$,:$sw/nologin," "$out/etc/passwd"
    grep -q '^sshd:' "$out/etc/passwd" || echo "sshd:x:998:65534::/var/empty:$sw/nologin" >>"$out/etc/passwd"
    echo "nixbld:x:30000:$(seq -s, -f 'nixbld%.0f' 1 8)" >>"$out/etc/group"
    for n in $(seq 8); do
        echo "nixbld$n:x:$((30000 + n)):30000:Nix build user $n:/var/empty:$sw/nologin" >>"$out/etc/passwd"
    done
    : >"$out/etc/machine-id"
    : >"$out/etc/NIXOS"
    echo 'nameserver 127.0.0.1' >"$out/etc/resolv.conf"
    mkdir -p "$out/etc/nixos"
}

# What /run/current-system points to; its init is PID 1's first program.
add_system() {
    local top=$st/nixos-system-nixos-25.11.shape
    mkdir -p "$top/bin"
    ln -s "$SW" "$top/sw"
    ln -s "$ETC/etc" "$top/etc"
    ln -s "$OS" "$top/systemd"
    printf 25.11.shape >"$top/nixos-version"
    printf x86_64-linux >"$top/system"
    cat >"$top/init" <<E_
#!$BASH_/bin/bash
export PATH=$CORE/bin:$OS/bin:$OS/sbin
self=\$(readlink -f "\$0"); top=\${self%/init}
[ -e /proc/self/exe ] || mount -t proc proc /proc
mount --bind /nix/store /nix/store && mount -o remount,bind,ro,nosuid,nodev /nix/store
mkdir -p /run/wrappers/bin
ln -sfn "\$top" /run/current-system; ln -sfn "\$top" /run/booted-system
for b in su mount umount newgrp passwd chsh; do [ -e $OS/bin/\$b ] && install -m 4555 $OS/bin/\$b /run/wrappers/bin/\$b; done
export PATH=/no-such-path; unset PATH
exec $OS/lib/systemd/systemd "\$@"
E_
    chmod +x "$top/init"
    SYS=$(add nixos-system-nixos-25.11.shape)
    ln -s "$SYS" "$out/nix/var/nix/profiles/system-1-link"
    ln -s system-1-link "$out/nix/var/nix/profiles/system"
    ln -s /nix/var/nix/profiles "$out/nix/var/nix/gcroots/profiles"
    ln -s /run/current-system "$out/nix/var/nix/gcroots/current-system"
    ln -s /run/booted-system "$out/nix/var/nix/gcroots/booted-system"
}

# The paths were added as sources, which have no references: tell Nix's database who refers to whom.
register_references() {
    nix_store --dump-db "$FW" "$S" "$OS" "$BASH_" "$CORE" "$NFT" "$BB" "$SSH" "$SW" "$PRE" "$UNITS" "$ETC" "$SYS" >"$work/db"
    python3 "$here/nixos_shape.py" references "$work/db" "$out" "$SYS" "$OS" "$S" | nix_store --load-db
    chown root:30000 "$out/nix/store"
    chmod 1775 "$out/nix/store"
    rm -rf "$out/nix/var/nix/temproots"/*
    chmod 755 "$out/nix/var/nix/profiles/per-user"
}

make_skeleton
add_system_programs
add_small_paths
add_system_path
add_units
add_etc
write_state
add_system
register_references
