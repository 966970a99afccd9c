"""The hosts of a lab: machines booted by nspawn (vm.py: by QEMU), each with its own address, keys, systemd; what befalls them."""

import shutil
import subprocess
from pathlib import Path

from tests.lab import network, trees
from tests.lab.layout import HERE, HostSpec, Layout, write
from tests.lab.process import Daemon
from tests.lab.shell import LabError, run, step, wait_for
from tests.lab.snapshot import SCRIPT, render

BOOT_S = 90.0
INIT = {"debian": ["--boot"], "nixos": ["/nix/var/nix/profiles/system/init"]}


class Host:
    """One host. Commands reach it as vknix does: by SSH, as root, with its key pinned."""

    def __init__(self, lab: Layout, spec: HostSpec) -> None:
        self._lab = lab
        self.name = spec.name
        self.shape = spec.shape
        self.address = lab.host_address(spec.name)
        self._root = lab.folder / "hosts" / spec.name
        self._daemon = Daemon(lab.folder / "run", spec.name)

    @property
    def public_key(self) -> str:
        """Its host key, as known_hosts and vknix.yaml write it."""
        return " ".join(self._key("ed25519").with_suffix(".pub").read_text().split()[:2])

    def is_running(self) -> bool:
        return self._daemon.pid is not None

    def start(self) -> None:
        """Boot it, unless it runs; `wait` says when it is up."""
        self._plug()
        if self.is_running():
            return
        self._clear_machine()
        self._ensure_keys()
        self._ensure_root()
        self._daemon.start(self._boot())

    def wait(self) -> None:
        """Until it is fully up and answers by SSH."""

        def is_up() -> bool:
            self._daemon.must_run()
            return self._ssh("systemctl is-system-running --wait", check=False).stdout.strip() in ("running", "degraded")

        wait_for(is_up, f"{self.name} is up", timeout_s=BOOT_S)

    def run(self, command: str, *, stdin: str | None = None, check: bool = True) -> str:
        """What a shell command prints on the host. Raises when it fails, or the host can't be reached."""
        return self._ssh(command, stdin=stdin, check=check).stdout

    def inside(self, command: str) -> str:
        """The same without the network: for a host that is cut."""
        path = "/run/current-system/sw/bin:/usr/bin:/usr/sbin"
        enter = ["nsenter", f"--target={self._init_pid()}", "--all", "/bin/sh", "-c", f"export PATH={path}\n{command}"]
        return run(enter).stdout

    def shell(self, command: list[str]) -> int:
        """A terminal on the host, or one command with this process' own streams; its exit code."""
        return subprocess.call(["ssh", "-F", self._lab.ssh_config, self.name, *command])

    def reboot(self) -> None:
        """A reboot by its own systemd. Returns when it is up again."""
        before = self._boot_id()
        self._ssh("systemctl reboot", check=False)
        wait_for(lambda: self._boot_id() not in ("", before), f"{self.name} reboots", timeout_s=BOOT_S)
        self.wait()

    def cut(self) -> None:
        """Pull its cable."""
        network.cut(self._lab, self.name)

    def heal(self) -> None:
        """Plug its cable in again."""
        network.heal(self._lab, self.name)

    def restart_sshd(self) -> None:
        """Restart its sshd; connections that are open stay."""
        self.run(f"systemctl restart {'sshd' if self.shape == 'nixos' else 'ssh'}.service")

    def snapshot(self, *, caches: bool = False) -> str:
        """What vknix has made on it, a sorted line for each thing. `caches` adds the section of farms and closure roots."""
        return render(self._as_root(SCRIPT), caches=caches)

    def remove(self) -> None:
        """End it as if its plug were pulled; nothing of it stays. Absent is success."""
        self._clear_machine()
        self._daemon.stop(within_s=5.0)
        network.remove_host(self._lab, self.name)

    def _plug(self) -> None:
        network.ensure_host(self._lab, self.name)

    def _boot(self) -> list[str | Path]:
        """The program that is the host for as long as it runs."""
        machine = self._lab.machine(self.name)
        return ["unshare", "--mount", HERE / "boot.sh", machine, self.name, self._root, *INIT[self.shape]]

    def _seal(self, draft: Path) -> None:
        """Makes the host's root of the tree that has all of it."""
        draft.rename(self._root)

    def _as_root(self, script: str) -> str:
        """What a script prints that sees the host as its systemd does."""
        return run(["nsenter", f"--target={self._init_pid()}", "--all", "/bin/sh", "-s"], stdin=script).stdout

    def _clear_machine(self) -> None:
        """Kill all its processes (a killed nspawn leaves its machine's) and drop what nspawn leaves on this machine."""
        machine = self._lab.machine(self.name)
        run(["unshare", "--mount", HERE / "cgroup-end.sh", machine])
        for folder in ("propagate", "unix-export"):
            leftover = Path("/run/systemd/nspawn", folder, machine)
            if leftover.is_dir():
                leftover.rmdir()
        if self._root.exists():
            there = self._root.stat()
            Path(f"/run/systemd/nspawn/locks/inode-{there.st_dev}:{there.st_ino}").unlink(missing_ok=True)

    def _ensure_keys(self) -> None:
        for kind in ("ed25519", "rsa"):
            key = self._key(kind)
            key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not key.with_suffix(".pub").exists():
                key.unlink(missing_ok=True)
                run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", self.name, "-f", key])

    def _ensure_root(self) -> None:
        """A copy of the shape's tree, with the host's name and keys in it."""
        if self._root.exists():
            return
        draft = self._root.with_name(f"new-{self.name}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.parent.mkdir(parents=True, exist_ok=True)
        run(["cp", "-a", "--reflink=auto", trees.tree(self.shape), draft])
        write(draft / "etc" / "hostname", f"{self.name}\n")
        for kind in ("ed25519", "rsa"):
            write(draft / "etc/ssh" / f"ssh_host_{kind}_key", self._key(kind).read_bytes(), mode=0o600)
            write(draft / "etc/ssh" / f"ssh_host_{kind}_key.pub", self._key(kind).with_suffix(".pub").read_bytes())
        (draft / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        write(draft / "root/.ssh/authorized_keys", (self._lab.folder / "ssh_key.pub").read_bytes(), mode=0o600)
        self._seal(draft)

    def _key(self, kind: str) -> Path:
        return self._lab.folder / "keys" / f"{self.name}-{kind}"

    def _boot_id(self) -> str:
        return self._ssh("cat /proc/sys/kernel/random/boot_id", check=False).stdout.strip()

    def _init_pid(self) -> int:
        """Of its systemd, in this machine's numbers."""
        nspawn = _children(self._daemon.pid or 0)
        inits = [child for pid in nspawn for child in _children(pid)]
        if not inits:
            raise LabError(f"{self.name} does not run: scripts/lab --name {self._lab.name} up")
        return inits[0]

    def _ssh(self, command: str, *, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        ssh: list[str | Path] = ["ssh", "-F", self._lab.ssh_config, self.name, command]
        return run(ssh, stdin=stdin or "", check=check)


def up(lab: Layout, hosts: list[Host]) -> None:
    """Boot those that do not run, all at once; returns when all are up."""
    with step(f"booting {', '.join(f'{host.name} ({host.shape}, {host.address})' for host in hosts)}"):
        _ensure_client_key(lab)
        for host in hosts:
            host.start()
        _write_ssh_config(lab, hosts)
        for host in hosts:
            host.wait()


def _ensure_client_key(lab: Layout) -> None:
    key = lab.folder / "ssh_key"
    if not key.with_suffix(".pub").exists():
        key.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {lab.name}", "-f", key])


def _write_ssh_config(lab: Layout, hosts: list[Host]) -> None:
    write(lab.folder / "known_hosts", "".join(f"{host.address} {host.public_key}\n" for host in hosts))
    names = "".join(f"Host {host.name}\n  HostName {host.address}\n" for host in hosts)
    common = f"""Host *
  User root
  IdentityFile {lab.folder}/ssh_key
  IdentitiesOnly yes
  UserKnownHostsFile {lab.folder}/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 5
  ServerAliveInterval 5
  LogLevel ERROR
"""
    write(lab.ssh_config, names + common)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
