"""The parts of nixos-shape.sh that are not for a shell: a Debian /usr patched to live elsewhere, a loader stub, references.

Paths are patched in place and never change their length, since an ELF file does not allow more: /usr becomes /.os.
"""

import os
import re
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# What no program of a host needs, or what would let one be found where NixOS has none.
LEFT_OUT = re.compile(
    r"^(share/(doc|man|locale|info|lintian|bug|common-licenses|zsh|fish)|games|include|src|local"
    r"|lib/(apt|dpkg|init|runit-helper)|share/(dpkg|debconf|perl5))(/|$)"
)
SEARCH_PATH = re.compile(rb"bin:/|:/[^:]*bin\b")
DEBIAN_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
BASH_PATH = b"/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:.\0"
STUB_TEXT = (
    b"Could not start dynamically linked executable\n"
    b"NixOS cannot run dynamically linked executables intended for generic linux environments out of the box.\n"
)


def relocate(debian: Path, target: Path, systemd_path: str) -> None:
    """Copy Debian's /usr with all its paths made /.os; `systemd_path` becomes the PATH that systemd has compiled in."""
    for base, folders, files in os.walk(debian / "usr"):
        inside = os.path.relpath(base, debian / "usr")
        prefix = "" if inside == "." else f"{inside}/"
        if prefix and LEFT_OUT.match(prefix):
            folders.clear()
            continue
        (target / prefix).mkdir(parents=True, exist_ok=True)
        links = [name for name in folders if Path(base, name).is_symlink()]
        folders[:] = [name for name in folders if name not in links]
        for name in (*files, *links):
            if not LEFT_OUT.match(prefix + name):
                _copy(Path(base, name), target / prefix / name, prefix + name, debian, systemd_path.encode())
    (target / "l").symlink_to("lib64")
    # Not where systemd looks for units: those of a host are all in one directory of the store.
    (target / "example/systemd").mkdir(parents=True)
    shutil.move(target / "lib/systemd/system", target / "example/systemd/system")


def stub_loader(target: Path) -> None:
    """In place of the dynamic loader of foreign programs: an ELF file that writes why they do not start, and exits 127."""
    start = 0x78
    # write(2, text, length); exit(127)
    code = bytes.fromhex("b801000000bf02000000488d3500000000ba") + struct.pack("<I", len(STUB_TEXT))
    code += bytes.fromhex("0f05b83c000000bf7f0000000f05")
    after_lea = 17
    code = code[: after_lea - 4] + struct.pack("<i", len(code) - after_lea) + code[after_lea:]
    size = start + len(code) + len(STUB_TEXT)
    elf = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    program = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 4096)
    target.write_bytes(elf + program + code + STUB_TEXT)
    target.chmod(0o755)


def references(dump: Path, root: Path, system: str, os_path: str, leaf: str) -> str:
    """A dump of Nix's database with the references that each path really has: they were added as sources, which have none."""
    records = list(_records(dump.read_text().split("\n")))
    names = [path for path, _, _ in records]
    known = {system: [name for name in names if name != system], os_path: [leaf], leaf: []}
    lines = []
    for path, digest, size in records:
        found = known[path] if path in known else _found(root, path, names)
        lines += [path, digest, size, "", str(len(found)), *found]
    return "".join(f"{line}\n" for line in lines)


def _copy(source: Path, target: Path, inside: str, debian: Path, systemd_path: bytes) -> None:
    if source.is_symlink():
        target.symlink_to(_link(os.readlink(source), debian))
        return
    data = source.read_bytes()
    if data.startswith(b"\x7fELF"):
        data = _elf(data, inside, systemd_path)
    elif b"\0" not in data[:4096]:
        data = _text(data)
    target.write_bytes(data)
    target.chmod(0o755 if source.stat().st_mode & 0o111 else 0o644)


def _link(target: str, debian: Path) -> str:
    for _ in range(4):
        if not target.startswith("/etc/alternatives/") or not os.path.islink(f"{debian}{target}"):
            break
        target = os.readlink(f"{debian}{target}")
    target = re.sub(r"^/(s?bin|lib|lib64)(/|$)", r"/usr/\1\2", target)
    return "/.os" + target[4:] if target.startswith("/usr/") else target


def _elf(data: bytes, inside: str, systemd_path: bytes) -> bytes:
    data = data.replace(b"/lib64/ld-linux-x86-64.so.2\0", b"/.os/l/ld-linux-x86-64.so.2\0")
    data = data.replace(b"/etc/ld.so.cache\0", b"/.os/ld.so.cache\0")
    if "systemd" in inside:
        assert len(DEBIAN_PATH) == len(systemd_path), "systemd's own PATH can't be patched in place"
        data = data.replace(b"\0" + DEBIAN_PATH + b"\0", b"\0" + systemd_path + b"\0")
        # What nspawn gives its payload.
        data = data.replace(b"PATH=" + DEBIAN_PATH + b":/sbin:/bin\0", b"PATH=" + systemd_path + b"\0" * 12)
    if inside == "bin/bash":
        assert BASH_PATH in data, "bash has another default PATH than this script knows"
        data = data.replace(BASH_PATH, b"/no-such-path".ljust(len(BASH_PATH), b"\0"))
        data = data.replace(b"/etc/bash.bashrc\0", b"/etc/bashrc".ljust(17, b"\0"))
    is_nspawn = inside == "bin/systemd-nspawn"

    def moved(run: bytes) -> bytes:
        if SEARCH_PATH.search(run):
            return run  # Nothing may be found by a search path for programs.
        if is_nspawn and not run.startswith(b"/usr/lib/x86_64") and run != b"/usr/bin/getent":
            return run  # nspawn's paths are those of the container.
        return run.replace(b"/usr/", b"/.os/")

    return _each_string(data, moved)


def _each_string(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change each printable run that holds /usr/. (One regular expression for that is quadratic.)"""
    out, done, found = [], 0, data.find(b"/usr/")
    while found >= 0:
        start = end = found
        while start > done and 32 <= data[start - 1] < 127:
            start -= 1
        while end < len(data) and 32 <= data[end] < 127:
            end += 1
        out += [data[done:start], change(data[start:end])]
        done, found = end, data.find(b"/usr/", end)
    return b"".join(out) + data[done:]


def _text(data: bytes) -> bytes:
    data = re.sub(rb"\A#! */bin/(bash|dash)", rb"#!/.os/bin/\1", data)
    data = re.sub(rb"(?<![\w.@-])/usr/(?=(bin|sbin|lib|lib64|libexec|share)\b)", b"/.os/", data)
    return re.sub(rb"(?:(?<=[=\s\x22\x27-])|^)/(sbin|bin)/(?!sh\b)(?=\w)", rb"/.os/\1/", data)


def _records(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """Path, hash and size of each record of a dump."""
    at = 0
    while at < len(lines) and lines[at]:
        path, digest, size, _, count = lines[at : at + 5]
        yield path, digest, size
        at += 5 + int(count)


def _found(root: Path, path: str, names: list[str]) -> list[str]:
    """Which store paths the files and links below a store path name."""
    found: set[str] = set()
    for base, folders, files in os.walk(f"{root}{path}"):
        for name in (*files, *folders):
            entry = Path(base, name)
            if entry.is_symlink():
                data = os.readlink(entry).encode()
            else:
                data = entry.read_bytes() if entry.is_file() else b""
            found |= {other for other in names if other != path and other.encode() in data}
    return sorted(found)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["relocate", debian, target, systemd_path]:
            relocate(Path(debian), Path(target), systemd_path)
        case ["stub-loader", target]:
            stub_loader(Path(target))
        case ["references", dump, root, system, os_path, leaf]:
            sys.stdout.write(references(Path(dump), Path(root), system, os_path, leaf))
        case _:
            sys.exit(f"{sys.argv[0]}: called by nixos-shape.sh only")
