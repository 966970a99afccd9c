"""/etc/passwd and /etc/group of an image: what its users are beside their number. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# What a container has whose image brings no root of its own.
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"  # noqa: S105  # no secret
GROUP = "root:x:0:\nnobody:x:65534:\n"
_MOST = 0xFFFFFFFE  # the last number means nobody at all


@dataclass(frozen=True, slots=True)
class Account:
    """A line of /etc/passwd."""

    name: str
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class Accounts:
    """Users by number, and for each name the groups that list it."""

    users: Mapping[int, Account] = field(default_factory=dict)
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def group(self, uid: int) -> int | None:
        of = self.users.get(uid)
        return of.gid if of is not None else None

    def home(self, uid: int) -> str:
        of = self.users.get(uid)
        if of is None:
            return "/root" if uid == 0 else "/"
        return of.home or "/"

    def others(self, uid: int) -> tuple[int, ...]:
        """The groups that a user is in beside its own."""
        of = self.users.get(uid)
        return self.groups.get(of.name, ()) if of is not None else ()


def parse(passwd: str, group: str) -> Accounts:
    """The first line of a number counts. What is no line of such a file is left out, as by libc."""
    users: dict[int, Account] = {}
    groups: dict[str, tuple[int, ...]] = {}
    for name, uid, gid, _, home, *_ in _lines(passwd, 7):
        if _is_number(uid) and _is_number(gid):
            users.setdefault(int(uid), Account(name, int(gid), home))
    for gid, names in ((words[1], words[2]) for words in _lines(group, 4)):
        if _is_number(gid):
            for name in filter(None, names.split(",")):
                groups[name] = tuple(dict.fromkeys((*groups.get(name, ()), int(gid))))
    return Accounts(users, groups)


def _lines(text: str, count: int) -> Iterator[list[str]]:
    """Name and what comes after the password."""
    each = (line.split(":") for line in text.split("\n"))
    return ([words[0], *words[2:]] for words in each if len(words) == count and words[0])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(_MOST)) and int(text) <= _MOST


NONE = Accounts()
DEFAULT = parse(PASSWD, GROUP)
