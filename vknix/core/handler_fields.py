"""What a field means on the handlers unit and nixos, where it is not what it means in a container. Part of core/fields.py's table.

A unit has no root, no processes and no users of its own: what would be walls around it is refused. A system is run by its own init:
what would be said to a program is refused.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from vknix.core.handlers import Handler
from vknix.core.rule import YES, Rule, Verdict, no
from vknix.errors import Refused

_CONTAINER = "use a RuntimeClass with handler nspawn"
_LEAVE = "leave it out, or " + _CONTAINER


def _no_wall(why: str, *harmless: Any) -> Rule:
    return no(f"a unit of the host {why}", _LEAVE, *harmless)


def _own_init(why: str, *harmless: Any) -> Rule:
    return no(f"the system's own init {why}", _LEAVE, *harmless)


_UNIT_CONTAINER: Mapping[str, Rule] = {
    "securityContext.readOnlyRootFilesystem": _no_wall("has no root of its own", False),
    "securityContext.privileged": _no_wall("is no container: add the capabilities it needs", False),
    "securityContext.procMount": _no_wall("has the host's /proc", "Default"),
    "volumeMounts[].subPath": _no_wall("gets whole volumes", ""),
    "volumeMounts[].subPathExpr": _no_wall("gets whole volumes", ""),
    "volumeMounts[].mountPropagation": _no_wall("sees the host's mounts as they are", "None"),
    "volumeMounts[].recursiveReadOnly": _no_wall("gets plain bind mounts", "Disabled"),
    "lifecycle.stopSignal": _no_wall("is stopped by SIGTERM", "SIGTERM"),
    "resources.limits": Rule(Verdict.HONOURED, "of ephemeral-storage only the log counts: a unit has no root of its own"),
}

_NUMBERS = Rule(Verdict.HONOURED, "users are numbers: what the host's /etc/group has adds no group")

_UNIT_POD: Mapping[str, Rule] = {
    "securityContext.supplementalGroupsPolicy": _NUMBERS,
    "securityContext.sysctls": _no_wall("shares the host's kernel settings"),
    "hostname": _no_wall("has the host's name", ""),
    "subdomain": _no_wall("has the host's name", ""),
    "setHostnameAsFQDN": _no_wall("has the host's name", False),
    "hostnameOverride": _no_wall("has the host's name", ""),
    "hostUsers": _no_wall("has the host's users", True),
    "hostPID": YES,
    "hostIPC": YES,
    "shareProcessNamespace": _no_wall("sees all processes of the host anyway", False),
    "ephemeralContainers": _no_wall("is looked at with kubectl exec"),
}

_OF_THE_INIT = "of the init; its units see a variable by PassEnvironment=; names have letters, digits and underscores"

_NIXOS_CONTAINER: Mapping[str, Rule] = {
    "command": _own_init("is what runs; write args for it"),
    "workingDir": _own_init("starts in /", "", "/"),
    "env[].name": Rule(Verdict.HONOURED, _OF_THE_INIT),
    "envFrom": Rule(Verdict.HONOURED, _OF_THE_INIT),
    "securityContext.runAsUser": _own_init("runs as root", 0),
    "securityContext.runAsGroup": _own_init("runs as root", 0),
    "securityContext.runAsNonRoot": _own_init("runs as root", False),
    "securityContext.capabilities": _own_init("has the capabilities that an init needs"),
    "securityContext.privileged": _own_init("has the capabilities that an init needs", False),
    "securityContext.allowPrivilegeEscalation": _own_init("starts programs of all users", True),
    "securityContext.readOnlyRootFilesystem": _own_init("fills /etc and /var", False),
    "securityContext.procMount": _own_init("has the container's /proc", "Default"),
    "lifecycle.stopSignal": _own_init("has a signal of its own", "SIGRTMIN+3"),
    "stdin": _own_init("has a console that is only written to", False),
    "stdinOnce": _own_init("has a console that is only written to", False),
    "tty": _own_init("has a console anyway, that is only written to", False),
}

_NIXOS_POD: Mapping[str, Rule] = {
    "securityContext.runAsUser": _NIXOS_CONTAINER["securityContext.runAsUser"],
    "securityContext.runAsGroup": _NIXOS_CONTAINER["securityContext.runAsGroup"],
    "securityContext.runAsNonRoot": _NIXOS_CONTAINER["securityContext.runAsNonRoot"],
    "securityContext.supplementalGroups": _own_init("runs as root"),
    "securityContext.supplementalGroupsPolicy": Rule(Verdict.HONOURED, "the system's own init runs as root"),
    "hostAliases": no("/etc/hosts is the system's own", "set networking.hosts in the system, or " + _CONTAINER),
    "hostname": Rule(Verdict.HONOURED, "a system with networking.hostName takes that one"),
    "hostNetwork": no("a system sets up a network of its own", "use a RuntimeClass with handler nspawn or unit", False),
    "hostUsers": _own_init("runs as the host's root", True),
    "hostPID": _own_init("is the first process of its own tree", False),
    "shareProcessNamespace": _own_init("is the first process of its own tree", False),
    "ephemeralContainers": no("a system is looked at with kubectl exec", _CONTAINER),
}


def _whole(pod: Mapping[str, Rule], container: Mapping[str, Rule]) -> dict[str, Rule]:
    of_each = {f"{kind}[].{path}": rule for kind in ("containers", "initContainers") for path, rule in container.items()}
    return {**pod, **of_each}


_BY_HANDLER = {Handler.UNIT: _whole(_UNIT_POD, _UNIT_CONTAINER), Handler.NIXOS: _whole(_NIXOS_POD, _NIXOS_CONTAINER)}

# By path below `spec`.
INSTEAD: Mapping[str, Mapping[Handler, Rule]] = {
    path: {handler: rules[path] for handler, rules in _BY_HANDLER.items() if path in rules}
    for path in sorted(set(chain.from_iterable(_BY_HANDLER.values())))
}

UNIT_MOUNTS = ("/run/", "/var/run/")
_TERMINATION_LOG = "/dev/termination-log"


def check_paths(spec: Mapping[str, Any], handler: Handler) -> Iterator[Refused]:
    """A unit sees the host's own files: what is mounted for it alone has its mount points in /run, which no reboot keeps."""
    if handler is not Handler.UNIT:
        return
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or ()):
            asked = {
                f"volumeMounts[{at}].mountPath": of.get("mountPath") for at, of in enumerate(container.get("volumeMounts") or ())
            }
            if container.get("terminationMessagePath") != _TERMINATION_LOG:
                asked["terminationMessagePath"] = container.get("terminationMessagePath")
            for path, target in asked.items():
                if target and not _fit(target):
                    why = f"a unit sees the host's own files, and {target!r} is no place below /run"
                    yield Refused(f"spec.{kind}[{index}].{path}", why, remedy="use a path below /run, or " + _CONTAINER)


def _fit(target: str) -> bool:
    below = next((target.removeprefix(root) for root in UNIT_MOUNTS if target.startswith(root)), "")
    first = below.split("/")[0]
    return bool(below) and ".." not in target.split("/") and first not in ("", "vknix", "systemd", "netns")
