"""MachinePlan -> config.json of the OCI bundle, and the identity that `vktool init` and `vktool exec` take on. Pure."""

import json
from typing import Any

from vknix.core.handlers import Handler
from vknix.nspawn import capabilities, paths
from vknix.nspawn.plan import MachinePlan, PodPlan

_INIT = "/proc/self/fd/3"  # vktool, which `vktool run` passes through nspawn


def config(plan: PodPlan, machine: MachinePlan) -> bytes:
    """config.json of the bundle. nspawn wants 1.0.0, and mounts on its command line.

    What it starts is `vktool init`, as root with all capabilities; what the program is to be is said by its identity.
    """
    shared = {"pid": plan.shares_processes(machine), "ipc": plan.spaces.ipc or plan.spaces.host_ipc}
    namespaces = [kind for kind in ("pid", "mount", "uts", "cgroup", "ipc") if not shared.get(kind)]
    process = _system(machine) if plan.handler is Handler.NIXOS else _init(machine)
    process["oomScoreAdj"] = machine.oom_score_adj
    return json.dumps(
        {
            "ociVersion": "1.0.0",
            "process": process,
            "root": {"path": f"{paths.var_of(plan.uid32, machine.container)}/root", "readonly": machine.read_only_root},
            "hostname": plan.hostname,
            "linux": {"namespaces": [{"type": kind} for kind in namespaces]},
        }
    ).encode()


def _init(machine: MachinePlan) -> dict[str, Any]:
    return {"terminal": False, "user": {"uid": 0, "gid": 0}, "args": [_INIT, "init", *machine.argv], "cwd": "/"}


def _system(machine: MachinePlan) -> dict[str, Any]:
    """An init writes to its console; colours have no place in a log."""
    sets = ("bounding", "effective", "permitted")
    return {
        "terminal": True,
        "user": {"uid": machine.uid, "gid": machine.gid, "additionalGids": []},
        "args": list(machine.argv),
        "env": ["TERM=dumb", *(f"{name}={value}" for name, value in machine.env)],
        "cwd": machine.directory,
        "capabilities": {**{kind: list(machine.capabilities) for kind in sets}, "inheritable": [], "ambient": []},
        "noNewPrivileges": machine.no_new_privileges,
    }


def identity(plan: PodPlan, machine: MachinePlan) -> bytes:
    """What a process of the container is: fields ended by NUL, as tool/main.c says."""
    env = [f"{name}={value}" for name, value in machine.env]
    mapped = list(_tops(machine)) if plan.spaces.users is not None else []
    fields = [
        f"{capabilities.mask(machine.capabilities):x}",
        str(machine.uid),
        str(machine.gid),
        ",".join(str(group) for group in machine.groups) or "-",
        _flags(plan, machine),
        str(plan.spaces.users or 0),
        machine.directory,
        str(len(env)),
        *env,
        str(len(mapped)),
        *mapped,
    ]
    return b"".join(each.encode() + b"\0" for each in fields)


def _flags(plan: PodPlan, machine: MachinePlan) -> str:
    """Those of tool/vktool.h."""
    flags = {
        "n": machine.no_new_privileges,
        "s": machine.seccomp,
        "u": machine.unmasked,
        "p": machine.privileged,
        "U": plan.spaces.users is not None,
    }
    return "".join(flag for flag, holds in flags.items() if holds) or "-"


def _tops(machine: MachinePlan) -> list[str]:
    """The targets of mounts that are not in another one: what is in it goes with it."""
    targets = [mount.target for mount in machine.mounts]
    return [target for target in targets if not any(target.startswith(f"{other}/") for other in targets)]
