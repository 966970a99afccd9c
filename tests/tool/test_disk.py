"""vktool disk on trees as hostile programs make them. In a mount namespace of its own, on a tmpfs, whose files take whole pages."""

import subprocess
import sys
from pathlib import Path

import pytest

UID32 = "6f0c2f5e111142228333444455556666"
PAGE = 4096
MADE = f"""
import os, sys
uid32 = "{UID32}"
var, run = f"/var/lib/vknix/{{uid32}}", f"/run/vknix/{{uid32}}"
os.makedirs(f"{{var}}/empty/v")
os.makedirs(f"{{var}}/c/main/root/etc")
os.makedirs(f"{{var}}/c/main/log")
os.makedirs(f"{{run}}/c/main")
v, root, log = f"{{var}}/empty/v", f"{{var}}/c/main/root", f"{{var}}/c/main/log"

def write(path, pages):
    with open(path, "wb") as file:
        file.write(b"x" * (4096 * pages))

def begin():
    "As vktool run does once the root is filled; what comes later has another time."
    write(f"{{run}}/c/main/run", 1)
    made = os.stat(f"{{run}}/c/main/run").st_mtime_ns
    while True:
        write(f"{{root}}/tick", 0)
        if os.stat(f"{{root}}/tick").st_ctime_ns > made:
            return os.unlink(f"{{root}}/tick")
"""


@pytest.fixture
def told(tool: Path) -> "Told":
    return Told(tool)


class Told:
    """What `vktool disk` says after a script has made a Pod's files."""

    def __init__(self, tool: Path) -> None:
        self._tool = tool

    def __call__(self, script: str) -> dict[str, int]:
        begun = "mount -t tmpfs x /run && mkdir -p /var/lib && mount -t tmpfs x /var/lib"
        command = f'{begun} && {sys.executable} -c "$1" && exec {self._tool} disk {UID32}'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", command, "sh", MADE + script], capture_output=True, text=True, timeout=60, check=True
        )
        lines = done.stdout.splitlines()
        assert (lines[0], lines[-1]) == (f"of {UID32}", "that was all")
        return {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in lines[1:-1]}


def test_each_volume_root_and_log_is_counted(told: Told) -> None:
    said = told('write(f"{v}/a", 3); write(f"{log}/0.log", 2); write(f"{log}/1.log", 1); begin(); write(f"{root}/etc/new", 5)')
    assert said == {"logs main": 3 * PAGE, "root main": 5 * PAGE, "empty v": 3 * PAGE}


def test_what_a_root_began_with_counts_once_it_has_changed(told: Told) -> None:
    said = told(
        'write(f"{root}/etc/kept", 7); write(f"{root}/etc/changed", 2); write(f"{root}/etc/gone", 9); begin();'
        'os.chmod(f"{root}/etc/changed", 0o600); os.unlink(f"{root}/etc/gone")'
    )
    assert said["root main"] == 2 * PAGE


def test_container_that_does_not_run_has_nothing_that_counts(told: Told) -> None:
    assert told('write(f"{root}/new", 5); write(f"{log}/0.log", 2)') == {"empty v": 0}


def test_names_of_one_file_and_holes_take_no_room(told: Told) -> None:
    said = told(
        'write(f"{v}/a", 4); os.mkdir(f"{v}/d");'
        'os.link(f"{v}/a", f"{v}/b"); os.link(f"{v}/a", f"{v}/d/c"); os.link(f"{v}/a", f"{v}/e");'
        'os.close(os.open(f"{v}/hole", os.O_CREAT | os.O_WRONLY)); os.truncate(f"{v}/hole", 1 << 40)'
    )
    assert said["empty v"] == 4 * PAGE


def test_links_and_mounts_lead_nowhere(told: Told) -> None:
    said = told(
        'os.symlink("/usr", f"{v}/usr"); os.symlink("..", f"{v}/up"); os.mkfifo(f"{v}/pipe"); write(f"{v}/a", 1);'
        'os.mkdir(f"{v}/m"); os.system(f"mount -t tmpfs y {v}/m"); write(f"{v}/m/big", 100)'
    )
    assert said["empty v"] == PAGE


@pytest.mark.parametrize("depth", [10, 255, 256, 257, 258, 1500])
def test_depth_hides_nothing(told: Told, depth: int) -> None:
    """More than a path can say, and more than there are descriptors."""
    said = told(
        f"""
os.chdir(v)
for n in range({depth}):
    write("before", 1)
    os.mkdir("a"); os.mkdir("d"); os.mkdir("z"); write("z/after", 1)
    os.chdir("d")
write("last", 5)
"""
    )
    assert said["empty v"] == (2 * depth + 5) * PAGE
