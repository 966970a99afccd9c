"""A name in, a whole lab out: control plane, hosts, closures and vknix, as Python and as the shell variables of `env`."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.lab import closures, hosts, kubernetes, machine, network, trees, upstream
from tests.lab.controlplane import ControlPlane
from tests.lab.hosts import Host
from tests.lab.layout import CACHE, LABS, Layout, load, locked, planned, save
from tests.lab.shell import LabError, run
from tests.lab.vknixproc import NODE, Vknix
from tests.lab.vm import VirtualHost


class Lab:
    """A lab that is there, whole or half-finished."""

    @classmethod
    def up(cls, name: str, *, hosts: int | None = None, shape: str | None = None, kubernetes_release: str | None = None) -> Self:
        """Make or complete the lab of that name, without vknix; what is not asked for stays as it is. Quick when it is up."""
        machine.require(lambda: _is_cold(name, kubernetes_release, shape))
        machine.install()
        with locked(_lock(name)):
            with locked(_lock("labs")):
                layout = planned(name, hosts=hosts, shape=shape, kubernetes=kubernetes_release, default=kubernetes.DEFAULT)
                machine.install(vm=any(spec.shape == "vm" for spec in layout.hosts))
                save(layout)
            lab = cls(layout)
            lab._complete()
        return lab

    @classmethod
    def open(cls, name: str) -> Self:
        """Find the lab of that name, whatever of it is there."""
        layout = load(name)
        if layout is None:
            raise LabError(f"there is no lab {name}: scripts/lab --name {name} up")
        return cls(layout)

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.name = layout.name
        self.address = layout.address
        self.plane = ControlPlane(layout)
        self.hosts = [VirtualHost(layout, spec) if spec.shape == "vm" else Host(layout, spec) for spec in layout.hosts]
        self.vknix = Vknix(layout, self.hosts, self.plane)

    @property
    def images(self) -> dict[str, str]:
        """Image references that resolve on the lab's node, by name."""
        return closures.images(self.layout)

    @property
    def image_busybox(self) -> str:
        return self.images["busybox"]

    def host(self, name: str) -> Host:
        """One of its hosts."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise LabError(f"lab {self.name} has no host {name}; it has {' '.join(host.name for host in self.hosts)}")

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - as subprocess.run, whose answer it gives, has it
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """kubectl of the lab's release, as the administrator."""
        kubeconfig = f"--kubeconfig={self.layout.admin_kubeconfig}"
        return run([self.layout.bin / "kubectl", kubeconfig, *args], stdin=input, check=check)

    def env(self) -> dict[str, str]:
        """The variables with which kubectl, ssh and people work on this lab."""
        path = [entry for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if entry != str(self.layout.bin)]
        return {
            "PATH": os.pathsep.join([str(self.layout.bin), *path]),
            "KUBECONFIG": str(self.layout.admin_kubeconfig),
            "VKNIX_CONFIG": str(self.vknix.config_file),
            "LAB_NODE": NODE,
            "LAB_ADDRESS": self.address,
            "LAB_HOSTS": " ".join(host.name for host in self.hosts),
            "LAB_SSH_KEY": str(self.layout.folder / "ssh_key"),
            "LAB_SSH_CONFIG": str(self.layout.ssh_config),
            **{f"LAB_HOST_{host.name.upper()}": host.address for host in self.hosts},
            **{f"LAB_IMAGE_{name.upper().replace('-', '_')}": image for name, image in self.images.items()},
        }

    def env_lines(self) -> str:
        """The same for `eval`."""
        return "".join(f"export {name}={_quoted(value)}\n" for name, value in self.env().items())

    def status(self) -> str:
        """A line for each part: what it is, where, and whether it runs."""
        lines = [f"lab {self.name}: Kubernetes {self.layout.kubernetes}, {self.layout.folder}"]
        lines += [f"  {name}: {state}" for name, state in self.plane.status().items()]
        for host in self.hosts:
            lines.append(f"  {host.name}: {host.shape}, {host.address}, {'up' if host.is_running() else 'down'}")
        lines.append(f"  vknix: {f'pid {self.vknix.pid}' if self.vknix.pid else 'down'}")
        return "\n".join(lines)

    def down(self) -> None:
        """End and remove all of it but the caches."""
        with locked(_lock(self.name)):
            self.vknix.end()
            for host in self.hosts:
                host.remove()
            self.plane.down()
            network.remove_bridge(self.layout)
            shutil.rmtree(self.layout.folder)
            with contextlib.suppress(OSError):  # Other labs are in it.
                LABS.rmdir()

    def _complete(self) -> None:
        """Make and start whatever of it is not there."""
        _link_programs(self.layout)
        network.ensure_bridge(self.layout)
        self.plane.up()
        if not all(host.is_running() for host in self.hosts) or not closures.are_there(self.layout):
            hosts.up(self.layout, self.hosts)
            closures.up(self.layout, self.hosts)


def _link_programs(layout: Layout) -> None:
    """The lab's own bin folder: programs of its release, an old kubectl, and vknix."""
    programs = kubernetes.programs(layout.kubernetes)
    old = kubernetes.old_kubectl()
    layout.bin.mkdir(exist_ok=True)
    for name, path in {**programs, "kubectl-1.32": old, "vknix": Path(sys.executable).with_name("vknix")}.items():
        link, draft = layout.bin / name, layout.bin / f".{name}.new"
        draft.unlink(missing_ok=True)
        draft.symlink_to(path)
        draft.rename(link)


def _is_cold(name: str, kubernetes_release: str | None, shape: str | None) -> bool:
    layout = load(name)
    release = kubernetes_release or (layout.kubernetes if layout else kubernetes.DEFAULT)
    shapes = ("debian", "nixos") if shape in (None, "mixed") else ("debian", str(shape))
    return kubernetes.is_cold(release) or upstream.is_cold(release) or any(trees.is_cold(shape) for shape in shapes)


def _lock(name: str) -> Path:
    return CACHE / "locks" / f"{name}.lock"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"
