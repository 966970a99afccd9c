"""Variables whose values a container has left in a file of an emptyDir (fileKeyRef). Rules: kubelet_pods.go, util/env. Pure.

Such a file is read when a container starts that names it, and not before: an init container may still be writing it.
"""

from collections.abc import Collection, Iterator, Mapping

from vknix.core import pod as pods
from vknix.core.container import Container, FileKeySelector
from vknix.core.fetched import FileKey
from vknix.core.pod import Pod
from vknix.errors import Refused

_LINE_BYTES = 65535  # the longest that a kubelet reads
_BLANK = " \t"


def of_container(container: Container) -> Iterator[FileKeySelector]:
    for var in container.env or ():
        if var.value_from is not None and var.value_from.file_key_ref is not None:
            yield var.value_from.file_key_ref


def keys(pod: Pod, names: Collection[str]) -> frozenset[FileKey]:
    """The files that these containers name."""
    each = (container for _, container in pods.containers(pod) if container.name in names)
    return frozenset(_key(ref) for container in each for ref in of_container(container))


def at_hand(container: Container, files: Mapping[FileKey, bytes | None]) -> bool:
    """Whether all files that it names have been looked for."""
    return all(_key(ref) in files for ref in of_container(container))


def value(path: str, ref: FileKeySelector, files: Mapping[FileKey, bytes | None]) -> str | None:
    """None: the variable is left out. A file must be there and in order also where its key is optional; nothing is no value."""
    data = files[_key(ref)]
    name = f"{ref.path} of volume {ref.volume_name}"
    try:
        if data is None:
            raise ValueError("there is no such file, or it is larger than 1 MiB")
        found = parse(data, ref.key)
    except ValueError as error:
        raise _error(path, f"couldn't parse env file: {error}", f"write {name} in a container before this one") from error
    if not found and not ref.optional:
        raise _error(path, f'environment variable key "{ref.key}" not found in file "{ref.path}"', f"write it to {name}")
    return found or None


def parse(data: bytes, key: str) -> str:
    """The first value of a key, "" where it has none. ValueError for a line before it that is not of the form NAME='VALUE'."""
    lines = _lines(data)
    for number, line in lines:
        text = line.lstrip(_BLANK)
        if not text or text.startswith("#"):
            continue
        name, equals, said = text.partition("=")
        if not equals:
            raise _malformed(number, "missing '='")
        if not name.rstrip(_BLANK):
            raise _malformed(number, "empty variable name")
        if name != name.rstrip(_BLANK):
            raise _malformed(number, "whitespace before '=' is not allowed")
        found = "" if said.startswith((" ", "\t")) else _quoted(number, said, lines)
        if name == key:
            return found
    return ""


def _quoted(number: int, said: str, lines: Iterator[tuple[int, str]]) -> str:
    """What is between two single quotes, which may be lines apart; then there may be a comment."""
    if not said.startswith("'"):
        raise _malformed(number, "value must be enclosed in single quotes")
    parts, rest, at = [], said[1:], number
    while "'" not in rest:
        parts.append(rest)
        at, rest = next(lines, (0, ""))
        if not at:
            raise ValueError(f"invalid environment variable format starting at line {number}: unclosed single quote")
    last, _, after = rest.partition("'")
    if after.lstrip(_BLANK) and not after.lstrip(_BLANK).startswith("#"):
        raise _malformed(at, "unexpected content after closing quote")
    return "\n".join((*parts, last))


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    """From 1. A carriage return at the end of a line is no part of it."""
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n") if data else (), start=1):
        if len(line) > _LINE_BYTES:
            raise ValueError(f"line {number} is too long")
        yield number, line.removesuffix(b"\r").decode(errors="replace")


def _malformed(number: int, why: str) -> ValueError:
    return ValueError(f"invalid environment variable format at line {number}: {why}")


def _key(ref: FileKeySelector) -> FileKey:
    return FileKey(ref.volume_name, ref.path)


def _error(path: str, why: str, remedy: str) -> Refused:
    return Refused(path, why, remedy=remedy, reason="CreateContainerConfigError")
