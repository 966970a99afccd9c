"""vknix.nspawn.volumes: what vktool says of volumes, as it is understood."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vknix.core.facts import Uid
from vknix.core.usage import PodDisk
from vknix.errors import HostFailed
from vknix.nspawn import volumes

UID = Uid("6f0c2f5e-1111-4222-8333-444455556666")
UID32 = UID.replace("-", "")
DISK = f"of {UID32}\nlogs main 8192\nroot main 4096\nempty v 123\nof {'1' * 32}\nthat was all\n"


def test_what_pods_have_on_disk_is_read() -> None:
    assert volumes.disks("red", DISK) == {
        UID: PodDisk({"v": 123}, {"main": 4096}, {"main": 8192}),
        "11111111-1111-1111-1111-111111111111": PodDisk(),
    }
    assert volumes.disks("red", "that was all\n") == {}
    assert volumes.disks("red", DISK)[UID].total == 8192 + 4096 + 123


@given(st.integers(0, len(DISK) - 1))
def test_a_part_of_what_is_on_disk_is_no_answer(cut: int) -> None:
    with pytest.raises(HostFailed):
        volumes.disks("red", DISK[:cut])


@pytest.mark.parametrize("line", ["root main x", "root main", "root main 1 2", "else main 1", ""])
def test_what_is_on_disk_is_not_guessed(line: str) -> None:
    with pytest.raises(HostFailed, match="can't be read"):
        volumes.disks("red", DISK.replace("root main 4096", line))


@pytest.mark.parametrize("found", [[], [None], [b""], [b"a\n", None, b"-1\n3\n", b"\0" * 9]])
def test_files_are_read_as_they_are(found: list[bytes | None]) -> None:
    answer = b"".join(b"-1\n" if data is None else b"%d\n%s" % (len(data), data) for data in found)
    assert volumes.files("red", answer) == found


@pytest.mark.parametrize("answer", [b"3", b"3\nab", b"1\na2\n", b"x\nabc", b"\nabc"])
def test_a_part_of_a_file_is_none(answer: bytes) -> None:
    with pytest.raises(HostFailed, match="host red"):
        volumes.files("red", answer)
