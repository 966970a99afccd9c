"""Image text -> closure: `nix:0/nix/store/HASH-NAME` (as nix-snapshotter writes it) or `/nix/store/HASH-NAME`.

A path below it names a program of the closure: `/nix/store/HASH-hello/bin/hello` runs without a command in the Pod.
"""

import re
from dataclasses import dataclass

from vknix.core.facts import StorePath
from vknix.errors import Refused

_STORE_PATH = re.compile(
    r"(/nix/store/[0-9a-df-np-sv-z]{32}-[0-9A-Za-z+\-._?=]{1,211})"
    r"((?:/(?!\.\.?(?:/|:|$))[^/:\s]+)*)"  # a program of it
    r"(?::[\w.-]+)?"  # a tag
)


@dataclass(frozen=True, slots=True)
class Image:
    """`path` is the root of the closure: its bin/ is first on the PATH and is what /bin shows. `program` may be empty."""

    text: str
    path: StorePath
    program: str = ""


def parse(text: str, field: str) -> Image:
    """Refused with InvalidImageName where `text` names no store path.

    A tag is dropped: admission plugins and kubectl add `:latest` to what looks like a name without one.
    """
    bare = text.removeprefix("nix:0")
    match = _STORE_PATH.fullmatch(bare)
    if match is None:
        raise Refused(
            field,
            f"{text!r} names no Nix store path",
            remedy="write nix:0/nix/store/HASH-NAME or /nix/store/HASH-NAME, as `nix build --print-out-paths` prints it",
            reason="InvalidImageName",
        )
    path, below = match.groups()
    return Image(text, StorePath(path), path + below if below else "")
