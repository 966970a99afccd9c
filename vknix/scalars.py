"""The single values of the configuration: what stands in the file in, a checked value out; strict.Invalid where it is wrong."""

import base64
import binascii
import ipaddress
import re
from pathlib import Path
from typing import NewType

from vknix import strict
from vknix.core import quantity
from vknix.core.facts import HostName, StorePath
from vknix.core.image import parse as parse_image
from vknix.errors import Refused

# Strings that were checked where they were read. Addresses and CIDRs are in the shortest form.
Address = NewType("Address", str)
Cidr = NewType("Cidr", str)
NodeName = NewType("NodeName", str)
HostKey = NewType("HostKey", str)
Directory = NewType("Directory", Path)  # that is there
Port = NewType("Port", int)
Count = NewType("Count", int)
LogFiles = NewType("LogFiles", int)
Size = NewType("Size", int)  # bytes
UserId = NewType("UserId", tuple[int, int | None])  # a user and its group, if any is said
Modes = NewType("Modes", tuple[tuple[str, int], ...])  # of files, by path


def scalars(folder: Path) -> strict.Scalars:
    return {
        Path: lambda value: _file(value, folder),
        Directory: lambda value: _directory(value, folder),
        Address: _address,
        Cidr: _cidr,
        NodeName: lambda value: _match(value, _SUBDOMAIN, 253, "a DNS name in lower case"),
        HostName: lambda value: _match(value, _SUBDOMAIN, 63, "a name of lower-case letters, digits, '-' and '.'"),
        HostKey: _host_key,
        Port: lambda value: strict.number(value, 1, 65535),
        Count: lambda value: strict.number(value, 1, 100_000),
        LogFiles: lambda value: strict.number(value, 2, 1000),
        Size: _size,
        StorePath: _store_path,
        UserId: _user,
        Modes: _modes,
    }


def _file(value: object, folder: Path) -> Path:
    path = folder / Path(strict.string(value)).expanduser()
    if not path.is_file():
        raise strict.Invalid(f"{path} is not a file" if path.exists() else f"{path} does not exist")
    return path


def _directory(value: object, folder: Path) -> Path:
    path = folder / Path(strict.string(value)).expanduser()
    if not path.is_dir():
        raise strict.Invalid(f"{path} is not a directory" if path.exists() else f"{path} does not exist")
    return path


def _address(value: object) -> str:
    try:
        return str(ipaddress.ip_address(strict.string(value)))
    except ValueError:
        raise strict.Invalid(f"must be an IP address, not {strict.kind_of(value)}") from None


def _cidr(value: object) -> str:
    text = strict.string(value)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise strict.Invalid(f"must be a CIDR such as 10.244.3.0/24, not {strict.kind_of(value)}") from None
    if str(network) != str(ipaddress.ip_interface(text)):
        raise strict.Invalid(f"must be the CIDR of a network, not of an address in it; did you mean {network}?")
    return str(network)


_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def _match(value: object, pattern: re.Pattern[str], longest: int, what: str) -> str:
    text = strict.string(value)
    if len(text) > longest or not pattern.fullmatch(text):
        raise strict.Invalid(f"must be {what} (at most {longest} characters), not {text!r}")
    return text


def _host_key(value: object) -> str:
    """`<type> <base64>[ comment]`, in which the decoded part repeats the type."""
    words = strict.string(value).split()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error):
        blob = b""
    length = int.from_bytes(blob[:4], "big")
    if not blob or blob[4 : 4 + length] != words[0].encode():
        raise strict.Invalid(
            "must be a public key such as `ssh-ed25519 AAAA...`, as `ssh-keyscan HOST` prints it after the host's name"
        )
    return " ".join(words[:2])


def _store_path(value: object) -> str:
    text = strict.string(value)
    try:
        exact = parse_image(text, "").path == text
    except Refused:
        exact = False
    if not exact:
        raise strict.Invalid(f"must be a store path, /nix/store/HASH-NAME, not {text!r}")
    return text


def _size(value: object) -> int:
    """A quantity of bytes, at least one block of a disk."""
    text = strict.string(value)
    try:
        size = quantity.whole(text)
    except ValueError as error:
        raise strict.Invalid(f"must be a quantity of bytes: {error}") from None
    if size < 4096:
        raise strict.Invalid(f"must be at least 4Ki, not {value}")
    return size


def _user(value: object) -> tuple[int, int | None]:
    """`uid` or `uid:gid`, numbers: a closure has no users by name."""
    match = re.fullmatch(r"(\d{1,10})(?::(\d{1,10}))?", strict.string(value))
    if not match:
        raise strict.Invalid(f"must be a user's number, or user:group, as a quoted string, not {value!r}")
    return int(match[1]), int(match[2]) if match[2] else None


def _modes(value: object) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, dict):
        raise strict.Invalid(f"must be a mapping of paths to modes, not {strict.kind_of(value)}")
    for path, mode in value.items():
        if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/") or "\n" in path:
            raise strict.Invalid(f"has {path!r}, which is no absolute path")
        if not isinstance(mode, str) or not re.fullmatch("[0-7]{3,4}", mode):
            raise strict.Invalid(f'{path}: must be an octal mode as a quoted string such as "4755"')
    return tuple((path, int(mode, 8)) for path, mode in value.items())
