"""vktool read: files of a volume, and no other."""

import os
import subprocess
from pathlib import Path

import pytest

from vknix.nspawn import volumes


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(b"of the host")
    made = tmp_path / "v"
    (made / "dir").mkdir(parents=True)
    (made / "dir/file").write_bytes(b"A='a'\n")
    return made


def read(tool: Path, volume: Path, *names: str) -> list[bytes | None]:
    words = [word for name in names for word in (str(volume), name)]
    return volumes.files("here", subprocess.run([tool, "read", *words], capture_output=True, check=True, timeout=20).stdout)


def test_files_and_links_within_the_volume_are_read(tool: Path, volume: Path) -> None:
    (volume / "empty").touch()
    (volume / "absolute").symlink_to("/dir/file")
    (volume / "relative").symlink_to("dir/file")
    (volume / "way").symlink_to("/dir")
    names = ("dir/file", "empty", "absolute", "relative", "way/file", "dir/../dir//file", "no", "dir/file")
    assert read(tool, volume, *names) == [b"A='a'\n", b"", *[b"A='a'\n"] * 4, None, b"A='a'\n"]


def test_nothing_else_is(tool: Path, volume: Path) -> None:
    (volume / "up").symlink_to("../secret")
    (volume / "host").symlink_to("/etc/passwd")
    (volume / "proc").symlink_to("/proc/self/environ")
    (volume / "loop").symlink_to("loop")
    os.mkfifo(volume / "pipe")
    (volume / "large").write_bytes(b"x" * ((1 << 20) + 1))
    names = ("up", "host", "proc", "loop", "pipe", "large", "dir", "../secret", "/etc/passwd", str(volume.parent / "secret"))
    assert read(tool, volume, *names) == [None] * len(names)
    assert read(tool, volume.parent / "nowhere", "x") == [None]
