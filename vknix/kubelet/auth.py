"""Who calls, and whether they may: a certificate's or token's user, and the cluster's answer, remembered as a kubelet does.

The cluster is asked through injected callables. TLS has verified a client certificate before it comes here.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Generic, TypeVar

from vknix.errors import VknixError
from vknix.kubelet.target import Rejection

log = logging.getLogger(__name__)

TOKEN_S: Final = 120.0
ALLOWED_S: Final = 300.0
DENIED_S: Final = 30.0

_REMEMBERED = 4096  # answers of one kind
_AUTHENTICATED = "system:authenticated"


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Attributes:
    """Of a SubjectAccessReview: `verb` on `nodes/<subresource>` of this node."""

    verb: str
    subresource: str


ANONYMOUS: Final = User("system:anonymous", ("system:unauthenticated",))
ReviewToken = Callable[[str], Awaitable[User | None]]
Authorize = Callable[[User, Attributes], Awaitable[bool]]
Certificate = Mapping[str, Any]  # as ssl.SSLSocket.getpeercert() tells it

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

# Any one of the subresources suffices. A path that is not here asks for `proxy`.
_SUBRESOURCES: Mapping[str, tuple[str, ...]] = {
    "stats": ("stats",),
    "metrics": ("metrics",),
    "logs": ("log",),
    "checkpoint": ("checkpoint",),
    "statusz": ("statusz",),
    "flagz": ("configz",),
    "pods": ("pods", "proxy"),
    "runningpods": ("pods", "proxy"),
    "healthz": ("healthz", "proxy"),
    "configz": ("configz", "proxy"),
}

# A WebSocket is opened by GET, and whoever may only read the node must not run commands by it. Stricter than a kubelet.
_ALWAYS_CREATE = frozenset(("exec", "attach", "run", "portForward"))


def attributes(method: str, path: str) -> tuple[Attributes, ...]:
    """What a request asks of the cluster, in order."""
    first = path.removeprefix("/").split("/", 1)[0]
    verb = "create" if first in _ALWAYS_CREATE else _VERBS.get(method, "")
    return tuple(Attributes(verb, subresource) for subresource in _SUBRESOURCES.get(first, ("proxy",)))


def certificate_user(certificate: Certificate | None) -> User | None:
    """CN is the user, each O a group; None without a certificate, or without a CN."""
    subject = [pair for part in (certificate or {}).get("subject", ()) for pair in part]
    name = next((value for key, value in subject if key == "commonName"), "")
    groups = tuple(value for key, value in subject if key == "organizationName")
    return _authenticated(User(name, groups)) if name else None


def _authenticated(user: User) -> User:
    if _AUTHENTICATED in user.groups:
        return user
    return User(user.name, (*user.groups, _AUTHENTICATED), user.uid, user.extra)


Value = TypeVar("Value")


class _Remembered(Generic[Value]):
    """Answers with a time to live; the oldest goes when there are too many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[float, Value]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        entry = self._entries.get(key)
        return entry[1] if entry is not None and self._clock() < entry[0] else None

    def put(self, key: Hashable, value: Value, lives_s: float) -> None:
        self._entries[key] = self._clock() + lives_s, value
        self._entries.move_to_end(key)
        if len(self._entries) > _REMEMBERED:
            self._entries.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Reviewed:
    user: User | None


@dataclass(slots=True)
class Guard:
    """`clock` is monotonic. Both callables raise VknixError where the cluster gives no answer.

    `anonymous`: who shows neither certificate nor token is system:anonymous, and the cluster says what that may.
    """

    review_token: ReviewToken
    authorize: Authorize
    clock: Callable[[], float] = time.monotonic
    anonymous: bool = False
    _tokens: _Remembered[_Reviewed] = field(init=False)
    _access: _Remembered[bool] = field(init=False)

    def __post_init__(self) -> None:
        self._tokens = _Remembered(self.clock)
        self._access = _Remembered(self.clock)

    async def admit(self, certificate: Certificate | None, authorization: str, *, method: str, path: str) -> User:
        """The caller; Rejection with 401, 403 or 500 otherwise."""
        user = certificate_user(certificate) or await self._bearer(authorization)
        if user is None and self.anonymous and not authorization.strip():
            user = ANONYMOUS  # who shows what is not valid is nobody, here as there
        if user is None:
            raise Rejection(401, "Unauthorized")
        asked = attributes(method, path)
        for each in asked:
            if await self._may(user, each):
                return user
        names = " ".join(each.subresource for each in asked)
        text = f"Forbidden (user={user.name}, verb={asked[0].verb}, resource=nodes, subresource(s)=[{names}])\n"
        raise Rejection(403, text)

    async def _bearer(self, authorization: str) -> User | None:
        scheme, _, token = authorization.strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return None
        key = sha256(token.encode()).digest()
        known = self._tokens.get(key)
        if known is not None:
            return known.user
        try:
            user = await self.review_token(token)
        except VknixError as error:
            log.warning("a caller's token could not be reviewed: %s", error)
            return None
        user = _authenticated(user) if user is not None else None
        self._tokens.put(key, _Reviewed(user), TOKEN_S)
        return user

    async def _may(self, user: User, asked: Attributes) -> bool:
        known = self._access.get((user, asked))
        if known is not None:
            return known
        try:
            allowed = await self.authorize(user, asked)
        except VknixError as error:
            log.warning("whether %s may %s nodes/%s could not be asked: %s", user.name, asked.verb, asked.subresource, error)
            text = f"Authorization error (user={user.name}, verb={asked.verb}, resource=nodes, subresource={asked.subresource})"
            raise Rejection(500, text) from error
        self._access.put((user, asked), allowed, ALLOWED_S if allowed else DENIED_S)
        return allowed
