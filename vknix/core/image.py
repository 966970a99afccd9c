"""Image text -> closure: `nix:0/nix/store/HASH-NAME` (as nix-snapshotter writes it) or `/nix/store/HASH-NAME`.

A path below it names a program of the closure: `/nix/store/HASH-hello/bin/hello` runs without a command in the Pod.
A table of aliases says which closures stand for ordinary image names, and what else such an image brings.
"""

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from vknix.core.facts import StorePath
from vknix.errors import Refused

_STORE_PATH = re.compile(
    r"(/nix/store/[0-9a-df-np-sv-z]{32}-[0-9A-Za-z+\-._?=]{1,211})"
    r"((?:/(?!\.\.?(?:/|:|$))[^/:\s]+)*)"  # a program of it
    r"(?::[\w.-]+)?"  # a tag
)


@dataclass(frozen=True, slots=True)
class Image:
    """`path` is the root of the closure: its bin/ is first on the PATH and is what /bin shows; with `is_root`, its files are the
    container's root instead, with `modes` for what a store path can't hold (setuid). `entrypoint` and `args` are what runs where
    the Pod says nothing, as an OCI image's ENTRYPOINT and CMD. `user` and `group` None: the image does not say.
    """

    path: StorePath
    entrypoint: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    user: int | None = None
    group: int | None = None
    directory: str = "/"
    is_root: bool = False
    modes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Alias:
    """`name` is a pattern with * and ? over a whole image name, tag and digest included."""

    name: str
    image: Image


@dataclass(frozen=True, slots=True)
class Aliases:
    """The first that fits counts."""

    table: tuple[Alias, ...] = field(default=())

    def find(self, text: str, path: str) -> Image:
        """The image of that name, from the table or as `parse` reads it; refused as there."""
        return next((alias.image for alias in self.table if fnmatchcase(text, alias.name)), None) or parse(text, path)


NONE = Aliases()


def parse(text: str, path: str) -> Image:
    """Refused with InvalidImageName where `text` names no store path.

    A tag is dropped: admission plugins and kubectl add `:latest` to what looks like a name without one.
    """
    bare = text.removeprefix("nix:0")
    match = _STORE_PATH.fullmatch(bare)
    if match is None:
        raise Refused(
            path,
            f"{text!r} names no Nix store path",
            remedy="write nix:0/nix/store/HASH-NAME or /nix/store/HASH-NAME, as `nix build --print-out-paths` prints it, "
            "or have the configuration's images name a closure for it",
            reason="InvalidImageName",
        )
    root, below = match.groups()
    return Image(StorePath(root), (root + below,) if below else ())
