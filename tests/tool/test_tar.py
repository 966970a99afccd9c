"""`tar` for a container that has none: what one of the two makes, Python's own tarfile understands, and the other way round."""

import io
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from tests.tool.conftest import Container

NOBODY = (65534, 65534, "-")
LACKING = {"PATH": "/nowhere"}
LONG = "/".join(["long" * 40] * 4)


def tar(
    container: Container, *words: str, stdin: bytes = b"", cwd: str = "/", user: tuple[int, int, str] = (0, 0, "-")
) -> "subprocess.CompletedProcess[bytes]":
    command = container.command("tar", *words, env=LACKING, cwd=cwd, user=user)
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of each kind of file one, and what an archive finds hard."""
    made = tmp_path / "folder"
    (made / LONG).mkdir(parents=True)
    (made / LONG / "deep").write_bytes(b"deep")
    (made / "empty").touch()
    for size in (1, 511, 512, 513, 100_000):
        (made / f"bytes-{size}").write_bytes(os.urandom(size))
    (made / "program").write_text("#!/bin/sh\n")
    (made / "program").chmod(0o4755)
    (made / "öl \n").write_text("odd name")
    (made / "link").symlink_to("/elsewhere/" + "x" * 150)
    (made / "closed").mkdir()
    (made / "closed/in").write_text("in it")
    (made / "closed").chmod(0o555)
    os.mkfifo(made / "pipe")
    os.chown(made / "empty", 12345678, 1234)
    os.utime(made / "empty", (1, 1_000_000_000))
    for each in (tmp_path, *tmp_path.parents):  # pytest's own folders, which the container's user has to pass
        if Path(tempfile.gettempdir()) in each.parents:
            each.chmod(each.stat().st_mode | 0o055)
    return made


def shown(folder: Path) -> dict[str, tuple[object, ...]]:
    """What is to be the same of each file."""
    return {os.fspath(path.relative_to(folder)): _shown(path) for path in folder.rglob("*")}


def _shown(path: Path) -> tuple[object, ...]:
    of = path.lstat()
    content = path.read_bytes() if stat.S_ISREG(of.st_mode) else path.readlink() if path.is_symlink() else None
    changed = None if path.is_symlink() else int(of.st_mtime)  # Python's tarfile gives links no time
    return of.st_mode, of.st_uid, of.st_gid, changed, content


def test_what_it_packs_is_an_archive_for_others(container: Container, folder: Path, tmp_path: Path) -> None:
    done = tar(container, "cf", "-", str(folder))
    assert (done.returncode, done.stderr) == (0, b"")
    with tarfile.open(fileobj=io.BytesIO(done.stdout), mode="r|") as archive:
        archive.extractall(tmp_path / "out", filter="fully_trusted")
    assert shown(tmp_path / "out" / str(folder).lstrip("/")) == shown(folder)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT], ids=["pax", "gnu", "ustar"])
def test_what_others_pack_it_unpacks(container: Container, folder: Path, tmp_path: Path, form: int) -> None:
    if form == tarfile.USTAR_FORMAT:  # which has no room for these
        (folder / "link").unlink()
        shutil.rmtree(folder / LONG.partition("/")[0])
        (folder / ("half" * 20)).mkdir()
        (folder / ("half" * 20) / ("half" * 20)).write_text("in two halves")
        os.chown(folder / "empty", 1234, 1234)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as archive:
        archive.add(folder, "out")
    done = tar(container, "-x", "-f", "-", "-C", str(tmp_path), stdin=data.getvalue())
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown(tmp_path / "out") == shown(folder)


def test_it_unpacks_what_it_packs_over_what_is_there(container: Container, folder: Path, tmp_path: Path) -> None:
    before = shown(folder)
    data = tar(container, "cf", "-", "-C", str(folder), ".").stdout
    for _ in range(2):
        assert tar(container, "xpf", "-", cwd=str(tmp_path / "folder"), stdin=data).returncode == 0
    (tmp_path / "out").mkdir()
    assert tar(container, "-xpf-", cwd=str(tmp_path / "out"), stdin=data).returncode == 0
    assert shown(tmp_path / "out") == before


def archive_of(*members: tarfile.TarInfo) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return data.getvalue()


def member(name: str, size: int = 3, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size = size
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def test_hard_links_are_within_the_archive(container: Container, tmp_path: Path) -> None:
    data = archive_of(member("one/file"), member("two", 0, type=tarfile.LNKTYPE, linkname="one/file"))
    assert tar(container, "xf", "-", cwd=str(tmp_path), stdin=data).returncode == 0
    assert (tmp_path / "two").samefile(tmp_path / "one/file")


def test_nothing_is_unpacked_elsewhere(container: Container, tmp_path: Path) -> None:
    inside = tmp_path / "a/b"
    inside.mkdir(parents=True)
    data = archive_of(member("../out"), member("x/../../out"), member(str(tmp_path / "absolute")), member("last"))
    done = tar(container, "xf", "-", cwd=str(inside), stdin=data)
    assert done.returncode == 2
    assert done.stderr.count(b"it would be elsewhere") == 2
    assert not (tmp_path / "a/out").exists()
    assert (inside / str(tmp_path).lstrip("/") / "absolute").exists()
    assert (inside / "last").exists()


def test_a_link_that_is_there_is_replaced_and_not_written_through(container: Container, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "file").symlink_to("precious")
    assert tar(container, "xf", "-", cwd=str(tmp_path), stdin=archive_of(member("file"))).returncode == 0
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "xxx"


def test_a_user_has_no_more_than_that_user_may(container: Container, folder: Path, tmp_path: Path) -> None:
    (folder / "secret").write_text("secret")
    (folder / "secret").chmod(0o600)
    read = tar(container, "cf", "-", str(folder), user=NOBODY)
    assert read.returncode == 2
    assert b"secret: Permission denied" in read.stderr
    with tarfile.open(fileobj=io.BytesIO(read.stdout)) as archive:
        names = archive.getnames()
    assert f"{str(folder).lstrip('/')}/program" in names
    assert not any(name.endswith("secret") for name in names)
    written = tar(container, "xf", "-", cwd=str(folder), user=NOBODY, stdin=archive_of(member("new")))
    assert (written.returncode, written.stderr) == (2, b"tar: new: Permission denied\n")
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, *NOBODY[:2])
    assert tar(container, "xmf", "-", cwd=str(own), user=NOBODY, stdin=archive_of(member("new", mode=0o666))).returncode == 0
    of = (own / "new").stat()
    assert (of.st_uid, stat.S_IMODE(of.st_mode)) == (NOBODY[0], 0o644)


def test_it_has_nothing_of_the_hosts(container: Container) -> None:
    done = tar(container, "cf", "-", "/proc/self/fd")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert {name.rpartition("/")[2] for name in archive.getnames()} <= {"fd", "0", "1", "2", "3"}  # 3: of the folder itself
    assert tar(container, "xf", "-", cwd="/proc/self", stdin=archive_of(member("exe"))).returncode == 2


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        pytest.param(b"", b"the archive ends within a member", id="nothing"),
        pytest.param(b"x" * 512, b"this is no tar archive", id="something else"),
        pytest.param(archive_of(member("file", 2000))[:1500], b"the archive ends within a member", id="cut"),
    ],
)
def test_what_is_no_archive_is_an_error(container: Container, tmp_path: Path, stdin: bytes, said: bytes) -> None:
    done = tar(container, "xf", "-", cwd=str(tmp_path), stdin=stdin)
    assert (done.returncode, done.stderr) == (2, b"tar: " + said + b"\n")


@pytest.mark.parametrize(
    "words", [("czf", "-", "/etc"), ("cf", "/tmp/x", "/etc"), ("xf", "-", "one"), ("--sparse",), (), ("f", "-")]
)
def test_what_it_can_not_do_it_says(container: Container, words: tuple[str, ...]) -> None:
    done = tar(container, *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"tar: ")


def test_a_file_that_is_not_there_fails_at_the_end(container: Container, folder: Path) -> None:
    done = tar(container, "cf", "-", "/no/such", str(folder / "program"))
    assert (done.returncode, done.stderr) == (2, b"tar: /no/such: No such file or directory\n")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert len(archive.getnames()) == 1


def test_test_says_whether_it_is_a_directory(container: Container) -> None:
    codes = [
        subprocess.run(container.command("test", *words, env=LACKING), check=False, capture_output=True, timeout=30).returncode
        for words in (("-d", "/etc"), ("-d", "/etc/passwd"), ("-d", "/nope"), ("-f", "/etc/passwd"))
    ]
    assert codes == [0, 1, 1, 127]


def test_an_image_that_has_its_own_keeps_it(container: Container, tmp_path: Path) -> None:
    program = tmp_path / "tar"
    program.write_text("#!/bin/sh\necho own")
    program.chmod(0o755)
    done = subprocess.run(container.command("tar", env={"PATH": str(tmp_path)}), capture_output=True, check=True, timeout=30)
    assert done.stdout == b"own\n"
