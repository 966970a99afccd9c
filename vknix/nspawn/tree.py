"""Files of a host as values, and as the tar that `tar -xpf - -C /` unpacks there. Pure."""

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Dir:
    path: str
    mode: int = 0o755
    xattrs: tuple[tuple[str, str], ...] = ()
    group: int = 0


@dataclass(frozen=True, slots=True)
class File:
    path: str
    data: bytes = field(repr=False)
    mode: int = 0o600
    user: int = 0
    group: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    path: str
    target: str


@dataclass(frozen=True, slots=True)
class Whiteout:
    """A character device 0:0: overlayfs hides what is below it."""

    path: str


Entry = Dir | File | Link | Whiteout


def pack(entries: Iterable[Entry]) -> bytes:
    """Members are unpacked in order: directories come before what is in them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            member = tarfile.TarInfo(entry.path.lstrip("/"))
            match entry:
                case Dir(_, mode, xattrs, group):
                    member.type, member.mode, member.gid = tarfile.DIRTYPE, mode, group
                    member.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in xattrs}
                    archive.addfile(member)
                case File(_, data, mode, user, group):
                    member.mode, member.size, member.uid, member.gid = mode, len(data), user, group
                    archive.addfile(member, io.BytesIO(data))
                case Link(_, target):
                    member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
                    archive.addfile(member)
                case Whiteout():
                    member.type, member.mode = tarfile.CHRTYPE, 0o600
                    archive.addfile(member)
    return out.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """The regular files of an archive, by absolute path."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is not None:
                files["/" + member.name.removeprefix("./").lstrip("/")] = content.read()
    return files
