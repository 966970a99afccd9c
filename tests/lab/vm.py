"""A host that is a QEMU virtual machine: a kernel of its own, and with it cgroup v2 with all its controllers."""

import os
import shutil
from pathlib import Path

from tests.lab import network, trees
from tests.lab.hosts import Host
from tests.lab.layout import write
from tests.lab.shell import LabError, run

DISK = "6G"  # sparse
MEMORY_MIB, CPUS = 2048, 2
HUGE_PAGES = 16  # of 2 MiB, kept by its kernel for Pods that ask for them
KVM = Path("/dev/kvm")


class VirtualHost(Host):
    """It boots from a disk image that is made of the same tree as the containers' roots."""

    def inside(self, command: str) -> str:
        """Through its network: there is no other way in."""
        return self.run(command)

    def _plug(self) -> None:
        network.ensure_tap(self._lab, self.name)

    def _boot(self) -> list[str | Path]:
        boot = trees.tree("vm") / "boot"
        net = f"tap,id=cable,ifname={self._lab.host_link(self.name)},script=no,downscript=no"
        return [
            *("qemu-system-x86_64", "-machine", "q35", "-smp", str(CPUS), "-m", str(MEMORY_MIB)),
            *(("-accel", "kvm", "-cpu", "host") if _has_kvm() else ("-accel", "tcg,thread=multi", "-cpu", "max")),
            *("-kernel", boot / "vmlinuz", "-initrd", boot / "initrd"),
            *("-append", f"console=ttyS0 systemd.getty_auto=no quiet hugepages={HUGE_PAGES}"),
            *("-drive", f"file={self._root},format=raw,if=virtio,cache=unsafe,discard=unmap"),
            *("-netdev", net, "-device", f"virtio-net-pci,netdev=cable,mac={self._lab.host_mac(self.name)}"),
            *("-device", "virtio-rng-pci", "-display", "none", "-monitor", "none", "-serial", "stdio"),
        ]

    def _seal(self, draft: Path) -> None:
        write(draft / "etc/lab-network", f"{self.address}/24 {self._lab.address}\n")
        shutil.rmtree(draft / "boot")
        image = draft.with_name(f"new-{self.name}.img")
        image.unlink(missing_ok=True)
        run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-d", draft, image, DISK])
        image.rename(self._root)
        shutil.rmtree(draft)

    def _as_root(self, script: str) -> str:
        return self.run("sh -s", stdin=script)

    def _clear_machine(self) -> None:
        """Nothing of it is outside its process."""

    def _init_pid(self) -> int:
        raise LabError(f"{self.name} is a virtual machine: its processes are not this machine's")


def _has_kvm() -> bool:
    """The device alone says nothing: some kernels have it and then emulate, which is slower than QEMU and breaks."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return ("vmx" in flags or "svm" in flags) and os.access(KVM, os.R_OK | os.W_OK)
