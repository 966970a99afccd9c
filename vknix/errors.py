"""The tree of errors. Each class says who must act; each instance says how.

VknixError
├── ConfigError    the operator: all mistakes of one file, by path
├── Refused        the Pod's author: a field, a reason, a remedy; not retried until the Pod or what it refers to changes
├── Unsupported    nobody here: this backend or version lacks it
├── Unreachable    nobody: a host or the cluster does not answer; retried for ever, the Pod keeps its phase
├── NotFound       nobody: what was named is not there (any more)
├── Conflict       nobody: somebody else was faster; read again
├── Expired        nobody: a watch is too old; list again
├── Forbidden      the operator: the cluster refuses this identity
└── HostFailed     the operator: a host answered, and what it was asked for failed there
"""

from dataclasses import dataclass


class VknixError(Exception):
    """Anything that vknix reports on purpose. `str()` is one sentence for a person."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong in a file: where (`nodes[0].hosts[1].address`) and what, with the remedy."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(VknixError):
    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes


class Refused(VknixError):
    """What a Pod asks for and does not get. `reason` is the kubelet's word for it, where there is one.

    `field` is a path in the Pod (`spec.containers[0].image`); it is empty where no single field is to blame.
    """

    def __init__(self, field: str, why: str, *, remedy: str = "", reason: str = "PodFeatureUnsupported") -> None:
        text = f"{field}: {why}" if field else why
        super().__init__(f"{text}; {remedy}" if remedy else text)
        self.field = field
        self.why = why
        self.remedy = remedy
        self.reason = reason


class Unsupported(VknixError):
    pass


class Unreachable(VknixError):
    pass


class NotFound(VknixError):
    pass


class Conflict(VknixError):
    pass


class Expired(VknixError):
    pass


class Forbidden(VknixError):
    pass


class Deposed(VknixError):
    pass


class HostFailed(VknixError):
    pass
