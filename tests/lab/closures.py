"""The lab's closures: built on the hosts by their own Nix, so that a store path is the same on each; or on one host only."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.lab import trees, upstream
from tests.lab.hosts import Host
from tests.lab.layout import HERE, Layout, write
from tests.lab.shell import LabError, run, step

IMAGES = ("busybox", "agnhost", "system", "bare")
ROOT_FOLDERS = ("agnhost-root", "busybox-root", "nginx-root", "nonewprivs-root", "kitten-root", "pause-root")
EVERYWHERE = (*IMAGES, *ROOT_FOLDERS)
ON_FIRST = ("only-on-one",)
NAMES = (*EVERYWHERE, *ON_FIRST)
ROOTS = "/nix/var/nix/gcroots/lab"
SYSTEMD = ("systemd", "systemd-executor", "systemd-shutdown", "systemd-journald")
SYSTEM_UNITS = """
    basic.target exit.target final.target halt.target local-fs-pre.target local-fs.target multi-user.target paths.target
    poweroff.target reboot.target shutdown.target slices.target sockets.target swap.target sysinit.target timers.target
    umount.target
    systemd-exit.service systemd-halt.service systemd-poweroff.service systemd-reboot.service
    systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket
"""
SYSTEM_WANTS = {"sockets.target": "systemd-journald.socket", "sysinit.target": "systemd-journald.service"}
SYSTEM_PROGRAMS = ("systemctl", "journalctl", "mount", "umount")


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


def are_there(lab: Layout) -> bool:
    """Whether all of them have been built."""
    return set(_paths(lab)) == set(NAMES)


def images(lab: Layout) -> dict[str, str]:
    """Image references by the closure's name; empty before `up`."""
    return {name: f"nix:0{path}" for name, path in _paths(lab).items() if name not in ROOT_FOLDERS}


def roots(lab: Layout) -> dict[str, str]:
    """Store paths of whole container roots, by the name of the image that they are for; empty before `up`."""
    return {name.removesuffix("-root"): path for name, path in _paths(lab).items() if name in ROOT_FOLDERS}


def _paths(lab: Layout) -> dict[str, str]:
    file = lab.folder / "closures.json"
    paths: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return paths


def _prepare(lab: Layout) -> None:
    """The expression with its seed and the programs beside it, in the lab's folder."""
    folder = lab.folder / "closures"
    shutil.rmtree(folder, ignore_errors=True)
    bin_folder = folder / "seed" / "bin"
    bin_folder.mkdir(parents=True)
    shutil.copy(HERE / "closures" / "default.nix", folder)
    debian = trees.tree("debian")
    busybox = _copied(debian / "usr/bin/busybox", bin_folder / "busybox")
    for applet in run([busybox, "--list"]).stdout.split():
        if applet != "busybox":
            (bin_folder / applet).symlink_to("busybox")
    _compile_shell(folder / "shell/bin/sh")
    _systemd(debian / "usr", folder / "systemd/usr")
    for of, program in (("agnhost", upstream.AGNHOST), ("nonewprivs", upstream.NNP), ("pause", upstream.PAUSE)):
        _copied(upstream.program(lab.kubernetes, program), folder / of / "bin" / program)


def _systemd(usr: Path, target: Path) -> None:
    """Debian's systemd with its units and all libraries that it needs, for a system that boots in a container."""
    programs = [f"lib/systemd/{name}" for name in SYSTEMD] + [f"bin/{name}" for name in SYSTEM_PROGRAMS]
    loader = usr / "lib64/ld-linux-x86-64.so.2"
    search = f"{usr}/lib/x86_64-linux-gnu:{usr}/lib/x86_64-linux-gnu/systemd"
    needed: set[str] = set()
    for program in programs:
        listed = run([loader, "--library-path", search, "--list", usr / program]).stdout.splitlines()
        needed |= {line.split(" => ")[1].split(" (")[0] for line in listed if " => /" in line}
        _copied(usr / program, target / program)
    for library in needed:
        _copied(Path(library), target / Path(library).relative_to(usr))
    _copied(loader, target / "lib64/ld-linux-x86-64.so.2")
    for unit in SYSTEM_UNITS.split():
        _copied(usr / "lib/systemd/system" / unit, target / "lib/systemd/system" / unit)
    for wanting, wanted in SYSTEM_WANTS.items():
        wants = target / "lib/systemd/system" / f"{wanting}.wants"
        wants.mkdir()
        (wants / wanted).symlink_to(f"../{wanted}")


def _compile_shell(target: Path) -> None:
    target.parent.mkdir(parents=True)
    run(["cc", "-Os", "-s", "-static", '-DBUSYBOX="/bin/ash"', "-o", target, HERE / "closures" / "sh.c"])


def _copied(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    return target


def _build(lab: Layout, host: Host, names: Sequence[str]) -> dict[str, str]:
    """The store path of each name, built and rooted on the host."""
    folder = lab.folder / "closures"
    copy = 'tar -C "$1" -c . | ssh -F "$2" "$3" "mkdir -p /root/closures && tar -C /root/closures -x"'
    run(["sh", "-c", copy, "sh", folder, lab.ssh_config, host.name])
    attributes = " ".join(f"-A {name}" for name in names)
    lines = ["set -e", f"mkdir -p {ROOTS}", f"set -- $(nix-build --no-out-link /root/closures {attributes})"]
    for name in names:
        lines.append(f"ln -sfn $1 {ROOTS}/{name}; echo {name} $1; shift")
    lines.append("rm -rf /root/closures")
    answer = host.run("\n".join(lines))
    return dict(line.split(maxsplit=1) for line in answer.splitlines())
