"""What a closure is on a host, and the texts that ask for it, fetch it and give a machine its view of it. Pure."""

import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from vknix.core import accounts
from vknix.core.accounts import Accounts
from vknix.core.facts import StorePath
from vknix.nspawn import paths
from vknix.nspawn.tree import Dir, Entry, File, Link, Whiteout

MISSING = 3  # exit code of `query` where the host has no such path
_ACCOUNTS = 1 << 18  # how much of such a file is read
_END = "\x1e"  # of its lines, in an answer of lines


@dataclass(frozen=True, slots=True)
class Item:
    """One store path: a directory, a file or a symbolic link."""

    path: str
    kind: str  # find's letter: d, f, l
    target: str


@dataclass(frozen=True, slots=True)
class Closure:
    root: StorePath
    items: tuple[Item, ...]
    beside: tuple[str, ...]  # what /nix has besides store
    accounts: Accounts = accounts.DEFAULT  # of a root that is made of it

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(item.path for item in self.items if item.kind == "f")


def query(root: StorePath) -> str:
    """The root exists before the question is asked, so that no garbage collection comes in between."""
    link, of = shlex.quote(f"{paths.ROOTS}/{paths.base(root)}"), shlex.quote(root)
    return (
        f"PATH={paths.SEARCH}; export PATH\nmkdir -p {paths.ROOTS}\nln -sfn {of} {link}\n"
        f"all=$(nix-store --query --requisites {of} 2>/dev/null) || {{ rm -f {link}; exit {MISSING}; }}\n"
        "ls /nix | tr '\\n' ' '; echo\n"
        'printf \'%s\\n\' "$all" | xargs sh -c \'exec find "$@" -maxdepth 0 -printf "%y %p %l\\n"\' find\n'
        f"for of in passwd group; do\necho\nfile=$(readlink -e {of}/etc/$of)\n"
        f"case $file in /nix/store/*) [ ! -f \"$file\" ] || head -c {_ACCOUNTS} \"$file\" | tr '\\n\\036' '\\036 ';; esac\ndone\n"
    )


def closure(root: StorePath, told: str) -> Closure:
    """What `query` printed."""
    listed, _, files = told.partition("\n\n")
    passwd, _, group = files.partition("\n")
    first, *lines = listed.splitlines()
    items = []
    for line in lines:
        kind, path, target = line.split(" ", 2)
        items.append(Item(path, kind, target))
    own = accounts.parse(passwd.replace(_END, "\n") or accounts.PASSWD, group.replace(_END, "\n") or accounts.GROUP)
    return Closure(root, tuple(items), tuple(name for name in first.split() if name != "store"), own)


def farm(of: Closure, nonce: str) -> list[Entry]:
    """The directory from which nspawn's overlay shows /nix with the closure's paths and no other, under a name of its own."""
    return [Dir(paths.VAR, 0o700), Dir(paths.FARMS, 0o700), *view(of, new_farm(of.root, nonce))]


def new_farm(root: StorePath, nonce: str) -> str:
    return f"{paths.FARMS}/.{nonce}-{paths.base(root)}"


def union(root: StorePath, more: Collection[StorePath], known: Mapping[StorePath, Closure]) -> Closure | None:
    """A closure with others beside it; None where the host lacks one of them."""
    all_of = [known[each] for each in (root, *more) if each in known]
    if len(all_of) != 1 + len(more):
        return None
    return replace(all_of[0], items=tuple(dict.fromkeys(item for of in all_of for item in of.items)))


def view(of: Closure, at: str) -> Iterator[Entry]:
    """A directory from which an overlay over /nix shows the closure's paths and no other."""
    yield Dir(at)
    for name in of.beside:
        yield Whiteout(f"{at}/{name}")
    yield Dir(f"{at}/store", xattrs=(("trusted.overlay.opaque", "y"),))
    for item in of.items:
        name = paths.base(item.path)
        if item.kind == "d":
            yield Dir(f"{at}/store/{name}", xattrs=(("trusted.overlay.redirect", f"/store/{name}"),))
        elif item.kind == "l":
            yield Link(f"{at}/store/{name}", item.target)
        else:
            yield File(f"{at}/store/{name}", b"", 0o444)


def finish_farm(root: StorePath, nonce: str) -> str:
    """Puts the new farm in place, unless one is there: machines may be using that one."""
    new, farm = shlex.quote(new_farm(root, nonce)), shlex.quote(paths.farm(root))
    return f"if [ -e {farm} ]; then rm -rf {new}; else mv -T {new} {farm}; fi\n"


def fetch(root: StorePath) -> str:
    """From the host's own substituters, in a unit: it goes on while vknix is away, and is not started twice."""
    unit = f"vk-fetch-{paths.base(root)[:32]}.service"
    return (
        f"PATH={paths.SEARCH}; export PATH\n"
        f"systemd-run --quiet --wait --collect --pipe --unit={unit} --property=ExecSearchPath='{paths.SEARCH.replace(':', ' ')}' "
        f"nix-store --realise {shlex.quote(root)} --add-root {shlex.quote(f'{paths.ROOTS}/{paths.base(root)}')} 2>&1\n"
    )


def requisites(root: StorePath) -> str:
    return f"PATH={paths.SEARCH} nix-store --query --requisites {shlex.quote(root)}"


# Which of the store paths that come on stdin a host lacks.
INVALID = f"PATH={paths.SEARCH}; export PATH; exec xargs nix-store --check-validity --print-invalid"


def export(of: tuple[str, ...]) -> str:
    return f"PATH={paths.SEARCH}; export PATH; exec nix-store --export {shlex.join(of)}"


IMPORT = f"PATH={paths.SEARCH}; export PATH; exec nix-store --import"


def forget(root: StorePath) -> str:
    """A closure that was not used for some time: its view and its root go; the store's garbage collector does the rest.

    A killed nspawn leaves the work folders of its overlays (`.#`, the name, random digits) beside the view.
    """
    farm, overlays = (shlex.quote(f"{paths.FARMS}/{mark}{paths.base(root)}") for mark in ("", ".#"))
    return f"rm -rf {farm} {overlays}*\nrm -f {shlex.quote(f'{paths.ROOTS}/{paths.base(root)}')}\n"
