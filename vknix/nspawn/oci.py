"""MachinePlan -> config.json of the OCI bundle, and the identity that `vktool exec` takes on. Pure."""

import json
from collections.abc import Iterator
from typing import Any

from vknix.core.handlers import Handler
from vknix.nspawn import capabilities, paths
from vknix.nspawn.plan import MachinePlan, PodPlan


def config(plan: PodPlan, machine: MachinePlan) -> bytes:
    """config.json of the bundle. nspawn wants 1.0.0, and mounts on its command line."""
    sets = ("bounding", "effective", "permitted")
    process: dict[str, Any] = {
        "terminal": plan.handler is Handler.NIXOS,  # an init writes to its console
        "user": {"uid": machine.uid, "gid": machine.gid, "additionalGids": list(machine.groups)},
        "args": list(machine.argv),
        "env": [f"{name}={value}" for name, value in (*_console(plan), *machine.env)],
        "cwd": machine.directory,
        "capabilities": {**{kind: list(machine.capabilities) for kind in sets}, "inheritable": [], "ambient": []},
        "noNewPrivileges": machine.no_new_privileges,
    }
    namespaces = ["pid", "mount", "uts", *([] if plan.shared_ipc else ["ipc"])]
    if plan.handler is Handler.NIXOS:
        namespaces.append("cgroup")  # which is the system's own to fill
    return json.dumps(
        {
            "ociVersion": "1.0.0",
            "process": process,
            "root": {"path": f"{paths.var_of(plan.uid32, machine.container)}/root", "readonly": machine.read_only_root},
            "hostname": plan.hostname,
            "linux": {"namespaces": [{"type": kind} for kind in namespaces]},
        }
    ).encode()


def _console(plan: PodPlan) -> Iterator[tuple[str, str]]:
    """Colours have no place in a log."""
    if plan.handler is Handler.NIXOS:
        yield "TERM", "dumb"


def identity(machine: MachinePlan) -> bytes:
    """What a process of the container is, for `vktool exec`: fields ended by NUL."""
    env = [f"{name}={value}" for name, value in machine.env]
    groups = ",".join(str(group) for group in machine.groups) or "-"
    privileges = "1" if machine.no_new_privileges else "0"
    fields = [
        f"{capabilities.mask(machine.capabilities):x}",
        str(machine.uid),
        str(machine.gid),
        groups,
        privileges,
        machine.directory,
        str(len(env)),
        *env,
    ]
    return b"".join(each.encode() + b"\0" for each in fields)
