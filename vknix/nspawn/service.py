"""The handler `unit`: a container that is a service of the host, on its closure, with the Pod's network. Pure.

It sees the host's own files. What is mounted for it alone goes below /run, whose mount points are gone with the next reboot.
"""

from collections.abc import Iterator

from vknix.nspawn import network, paths
from vknix.nspawn.mounts import Mount
from vknix.nspawn.plan import MachinePlan, PodPlan
from vknix.nspawn.tree import Entry, File

NO_ROOT = ("-", "-")  # in place of a root and its skeleton, for vktool


def files(plan: PodPlan, machine: MachinePlan) -> Iterator[Entry]:
    """The program and its words: they may hold secrets, so no command line of ours has them."""
    words = b"".join(word.encode() + b"\0" for word in machine.argv)
    yield File(f"{paths.run_of(plan.uid32, machine.container)}/command", words)


def prepare(plan: PodPlan, machine: MachinePlan) -> str:
    """What is bound must be there before the unit starts."""
    message = f"{paths.var_of(plan.uid32, machine.container)}/message"
    return f"[ -e {message} ] || (umask 0; : > {message})\n"


def properties(plan: PodPlan, machine: MachinePlan) -> list[tuple[str, str]]:
    """A unit that asks a name must get the Pod's answer, and the host's cache would give the host's."""
    binds = [("BindReadOnlyPaths" if mount.read_only else "BindPaths", _colons(mount)) for mount in machine.mounts]
    return [*binds, *([("InaccessiblePaths", "-/run/nscd")] if plan.addresses else [])]


def _colons(mount: Mount) -> str:
    source, target = (text.replace("\\", "\\\\").replace(":", "\\:").replace(" ", "\\x20") for text in (mount.source, mount.target))
    return f"{source}:{target}"


def program(plan: PodPlan, machine: MachinePlan) -> list[str]:
    """What vktool is to run, in its words."""
    run = paths.run_of(plan.uid32, machine.container)
    namespace = f"/run/netns/{network.netns(plan.uid32)}" if plan.addresses else "-"
    return ["service", f"{run}/identity", f"{run}/command", namespace]
