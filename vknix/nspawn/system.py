"""The handler `nixos`: a container that boots a whole system with its own init, where it differs from one of a program. Pure."""

from collections.abc import Iterator

from vknix.core.inputs import INIT
from vknix.nspawn import paths
from vknix.nspawn.plan import MachinePlan, PodPlan
from vknix.nspawn.tree import Dir, Entry, File, Link


def files(plan: PodPlan, machine: MachinePlan) -> Iterator[Entry]:
    """A place in the view of /nix for what a system keeps there, and what it finds at its boot. It makes the rest itself."""
    view, root = _view(plan, machine), f"{paths.var_of(plan.uid32, machine.container)}/skeleton"
    yield Dir(view)
    yield Dir(f"{view}/var")
    yield Dir(f"{root}/sbin")
    yield Link(f"{root}/var/run", "../run")
    yield File(f"{root}/etc/hosts", plan.hosts, 0o644)
    yield File(f"{root}/etc/resolv.conf", plan.resolv_conf, 0o644)


def prepare(plan: PodPlan, machine: MachinePlan) -> str:
    """A system that expects an initrd has its first steps in prepare-root, which goes on to init; any other has them in init."""
    link = f"{paths.var_of(plan.uid32, machine.container)}/skeleton{INIT}"
    return f"init={machine.closure}/prepare-root\n[ -e $init ] || init={machine.closure}/init\nln -sfn $init {link}\n"


def options(plan: PodPlan, machine: MachinePlan) -> list[str]:
    """Of nspawn. The console is only written to; SIGRTMIN+3 is how a systemd is told to halt."""
    return [
        "--console=read-only",
        "--kill-signal=SIGRTMIN+3",
        f"--overlay-ro=/nix:{machine.farm(plan.uid32)}:{_view(plan, machine)}:/nix",
        "--tmpfs=/nix/var:mode=0755",
    ]


def _view(plan: PodPlan, machine: MachinePlan) -> str:
    return f"{paths.var_of(plan.uid32, machine.container)}/view"
