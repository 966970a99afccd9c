"""The lab's closures: built on the hosts by their own Nix, so that a store path is the same on each; or on one host only."""

import json
import shutil
from collections.abc import Sequence

from tests.lab import trees
from tests.lab.hosts import Host
from tests.lab.layout import HERE, Layout, write
from tests.lab.shell import LabError, run, step

EVERYWHERE = ("busybox",)
ON_FIRST = ("only-on-one",)
NAMES = (*EVERYWHERE, *ON_FIRST)
ROOTS = "/nix/var/nix/gcroots/lab"


def up(lab: Layout, hosts: Sequence[Host]) -> None:
    """Build on each host what it lacks, and write down where it is."""
    paths: dict[str, str] = {}
    with step("building the closures on the hosts"):
        _prepare(lab)
        for host in hosts:
            names = (*EVERYWHERE, *(ON_FIRST if host is hosts[0] else ()))
            for name, path in _build(lab, host, names).items():
                if paths.setdefault(name, path) != path:
                    raise LabError(f"{host.name} built {name} as {path}, another host as {paths[name]}")
    write(lab.folder / "closures.json", json.dumps(paths, indent=1))


def images(lab: Layout) -> dict[str, str]:
    """Image references by the closure's name; empty before `up`."""
    file = lab.folder / "closures.json"
    paths: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return {name: f"nix:0{path}" for name, path in paths.items()}


def _prepare(lab: Layout) -> None:
    """The expression with its seed beside it, in the lab's folder."""
    folder = lab.folder / "closures"
    shutil.rmtree(folder, ignore_errors=True)
    bin_folder = folder / "seed" / "bin"
    bin_folder.mkdir(parents=True)
    shutil.copy(HERE / "closures" / "default.nix", folder)
    busybox = bin_folder / "busybox"
    shutil.copy(trees.tree("debian") / "usr/bin/busybox", busybox)
    for applet in run([busybox, "--list"]).stdout.split():
        if applet != "busybox":
            (bin_folder / applet).symlink_to("busybox")


def _build(lab: Layout, host: Host, names: Sequence[str]) -> dict[str, str]:
    """The store path of each name, built and rooted on the host."""
    folder = lab.folder / "closures"
    copy = 'tar -C "$1" -c . | ssh -F "$2" "$3" "mkdir -p /root/closures && tar -C /root/closures -x"'
    run(["sh", "-c", copy, "sh", folder, lab.ssh_config, host.name])
    lines = ["set -e", f"mkdir -p {ROOTS}"]
    for name in names:
        lines.append(f"path=$(nix-build --no-out-link /root/closures -A {name})")
        lines.append(f"ln -sfn $path {ROOTS}/{name}; echo {name} $path")
    answer = host.run("\n".join(lines))
    return dict(line.split(maxsplit=1) for line in answer.splitlines())
