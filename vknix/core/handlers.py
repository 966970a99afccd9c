"""What the handler of a RuntimeClass means here: the kind of machine that a Pod's containers are. Names in, a Handler out."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from vknix.errors import Refused


class Handler(Enum):
    """`NSPAWN`: a container that sees its closure. `UNIT`: a service of the host, in no container. `NIXOS`: a whole system that its
    own init boots, in a container.
    """

    NSPAWN = "nspawn"
    UNIT = "unit"
    NIXOS = "nixos"


DEFAULT = Handler.NSPAWN


def known(more: Mapping[str, str]) -> dict[str, Handler]:
    """Each name that a RuntimeClass may have as its handler. `more` are the configuration's own, each for one of ours."""
    return {**{handler.value: handler for handler in Handler}, **{name: Handler(of) for name, of in more.items()}}


def chosen(runtime_class: str, handler: str | None, more: Mapping[str, str]) -> Handler:
    """`handler` is what the RuntimeClass says, None where there is none of that name. Refused as a kubelet would."""
    names = known(more)
    if handler is None:
        raise _no_sandbox(f"there is no RuntimeClass {runtime_class!r} (any more)", "create it, or leave runtimeClassName out")
    if handler not in names:
        why = f"no runtime for handler {handler!r} of RuntimeClass {runtime_class!r} is configured"
        raise _no_sandbox(why, f"name a RuntimeClass whose handler is one of {', '.join(sorted(names))}")
    return names[handler]


def _no_sandbox(why: str, remedy: str) -> Refused:
    return Refused(
        "spec.runtimeClassName", f"failed to create the Pod's sandbox: {why}", remedy=remedy, reason="FailedCreatePodSandBox"
    )


def runtime_handlers(more: Mapping[str, str], *, own_users: bool) -> list[dict[str, Any]]:
    """The Node's status.runtimeHandlers; the default has no name there. `own_users`: all hosts can give a Pod users of its own."""
    names = {"": DEFAULT, **known(more)}
    return [{"name": name, "features": _features(names[name], own_users=own_users)} for name in sorted(names)]


def _features(of: Handler, *, own_users: bool) -> dict[str, bool]:
    """A service has no mounts or users of its own; a system's init is the host's root."""
    return {"recursiveReadOnlyMounts": of is not Handler.UNIT, "userNamespaces": of is Handler.NSPAWN and own_users}
