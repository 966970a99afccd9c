"""vknix.nspawn.tree: the tar is what GNU tar unpacks, whatever is in names and data."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vknix.nspawn import tree
from vknix.nspawn.tree import Dir, Entry, File, Link, Whiteout

parts = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda part: part not in (".", "..")
)
trees = st.dictionaries(
    st.lists(parts, min_size=1, max_size=3).map(lambda of: "/" + "/".join(of)), st.binary(max_size=600), max_size=5
)


@given(trees)
def test_what_is_packed_is_unpacked(files: dict[str, bytes]) -> None:
    assert tree.unpack(tree.pack(File(path, data) for path, data in files.items())) == files


def test_only_regular_files_are_unpacked() -> None:
    entries: list[Entry] = [Dir("/d"), File("/d/f", b"x"), Link("/d/l", "f"), Whiteout("/d/w")]
    assert tree.unpack(tree.pack(entries)) == {"/d/f": b"x"}


def test_an_archive_of_gnu_tar_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ("n" * 150)).write_bytes(b"long")
    done = subprocess.run(["tar", "-C", tmp_path, "-cf", "-", "./a"], capture_output=True, check=True)
    assert tree.unpack(done.stdout) == {f"/a/{'n' * 150}": b"long"}


ODD = ["plain", "sp ace", "new\nline", "-dash", "$(x)", "'\"", "é", "\x01", "*", "n" * 200]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_tar_unpacks_odd_names(tmp_path: Path, name: str) -> None:
    entries: list[Entry] = [Dir("/d", 0o711), File(f"/d/{name}", b"\0\n", 0o640), Link("/l", f"d/{name}")]
    subprocess.run(["tar", "-xpf", "-", "-C", tmp_path], input=tree.pack(entries), check=True)
    file = tmp_path / "d" / name
    assert file.read_bytes() == (tmp_path / "l").read_bytes() == b"\0\n"
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE((tmp_path / "d").stat().st_mode)) == (0o640, 0o711)


def test_unpacking_again_changes_what_is_there(tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        subprocess.run(
            ["tar", "-xpf", "-", "-C", tmp_path], input=tree.pack([File("/f", text), Link("/l", text.decode())]), check=True
        )
    assert (tmp_path / "f").read_bytes() == b"two"
    assert os.readlink(tmp_path / "l") == "two"


def test_data_is_in_no_repr() -> None:
    assert "hunter2" not in repr(File("/f", b"hunter2"))
