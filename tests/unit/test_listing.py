"""vknix.nspawn.listing: the files that a host has of Pods, whatever containers left on its disk."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.build import ROOT, UID, UID32, parses
from tests.unit.listed import RECORD, fact, lines, printed
from vknix.nspawn import listing, paths
from vknix.nspawn.listing import Found
from vknix.nspawn.tree import File

ONE = fact(0, status="1")


def test_found_is_the_inverse_of_the_record() -> None:
    (found,) = listing.found(printed())
    assert found == Found(UID32, "shop", "web", ("10.0.0.2",), {"main": ROOT}, {"main": ()})
    assert paths.uid(found.uid32) == UID


def limited(**cpu: str) -> Found:
    """A Pod whose files of limits ask for so much, by their name with _ for its dot."""
    folder = paths.run_of(UID32, "main")
    each = ((name.replace("_", "."), json.dumps({"requests": {"cpu": amount}})) for name, amount in cpu.items())
    files = [File(f"{folder}/{name}", f"# {asked}\ncpu.weight 1\n".encode()) for name, asked in each]
    (found,) = listing.found(printed(b"", "", json.dumps(RECORD).encode(), *files))
    return found


def resources(of: Found) -> Any:
    return of.resources.get("main", {}).get("requests", {}).get("cpu")


@pytest.mark.parametrize(
    ("files", "expected"),
    [({"limits": "1", "limits_new": "2"}, "1"), ({"limits": "1"}, "1"), ({"limits_new": "2"}, "2"), ({}, None)],
    ids=["in force", "nothing wanted", "about to begin", "nothing yet"],
)
def test_resources_are_those_that_a_container_has_or_begins_with(files: dict[str, str], expected: str | None) -> None:
    assert resources(limited(**files)) == expected


def test_resources_that_are_known_stay_so_whatever_is_read_while_a_container_begins() -> None:
    known = limited(limits="2")
    assert resources(listing.again(known, limited())) == "2"
    assert resources(listing.again(known, limited(limits="1"))) == "2"
    assert resources(listing.again(limited(), limited(limits="1"))) == "1"


def test_a_record_that_a_power_cut_left_empty_is_no_pod() -> None:
    assert list(listing.found(printed(record=b""))) == []
    assert list(listing.found(printed(record=b"\0\0"))) == []


class Disk:
    """The listing's script, run for real below a directory that stands for the root of a host."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, data: bytes = b"x") -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def list(self, *only: str) -> bytes:
        script = listing.list_script(only).replace("cd / ", f"cd {self.root} ")
        return subprocess.run(["dash"], input=script.encode(), capture_output=True, check=True).stdout


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    disk = Disk(tmp_path)
    disk.put(f"{paths.var(UID32)}/pod.json", json.dumps(RECORD).encode())
    disk.put(f"{paths.var_of(UID32, 'main')}/facts", lines(ONE))
    disk.put(f"{paths.var_of(UID32, 'main')}/log/0.log")
    disk.put(f"{paths.run(UID32)}/net", b"7.5\n")
    return disk


@pytest.mark.parametrize("only", [(), (UID32,), ("f" * 32, UID32)], ids=["all", "one", "one of two"])
def test_a_listing_is_read_as_it_is_printed(disk: Disk, only: tuple[str, ...]) -> None:
    (found,) = listing.found(disk.list(*only))
    assert (found.uid32, found.since, found.facts) == (UID32, 7.5, {"main": (ONE,)})
    assert list(found.logs["main"]) == [0]


def test_an_empty_host_lists_nothing(tmp_path: Path) -> None:
    assert list(listing.found(Disk(tmp_path).list())) == []
    assert list(listing.found(Disk(tmp_path).list(UID32))) == []


def test_files_of_containers_are_neither_read_nor_believed(disk: Disk) -> None:
    """A volume may have the container's name, a root any file; all of it can be large."""
    plain = disk.list()
    for at in (f"{paths.var(UID32)}/empty/main", f"{paths.var_of(UID32, 'main')}/root", f"{paths.run(UID32)}/shm"):
        for name in ("log/7.log", "facts", "pod.json", "net", "c/main/facts", "c/main/log/8.log"):
            disk.put(f"{at}/{name}")
    disk.put(f"{paths.run(UID32)}/vol/v/net")
    assert len(disk.list()) == len(plain)
    (found,) = listing.found(disk.list())
    assert found == next(iter(listing.found(plain)))


def test_names_of_logs_that_are_none_are_left_out() -> None:
    names = f"var/lib/vknix/{UID32}/c/main/log/x.log 1\nvar/lib/vknix/{UID32}/c/main/log/.1.log 1\n\n 7\na/b\n"
    (found,) = listing.found(printed(b"", names))
    assert found.logs == {}


def test_scripts_are_scripts() -> None:
    parses(listing.list_script())
    parses(listing.list_script([UID32]))
