"""The namespaces of a Pod that its containers share: which they are, and the scripts that make and unmake them. Pure.

Each is pinned by a file: network at /run/netns, IPC, processes and users in the Pod's directory under /run.
"""

import shlex
from dataclasses import dataclass

from vknix.core import sysctls
from vknix.core.pod import Pod
from vknix.nspawn import network, paths

USER_COUNT = 65536
_FIRST_USER = 0x40000000  # far from the users of hosts, and from what systemd picks for its own containers first
_RANGES = 4096


@dataclass(frozen=True, slots=True)
class Spaces:
    """What a Pod has for itself and what it shares. `users`: the host's number of its user 0; None: the host's users."""

    ipc: bool = False
    processes: bool = False
    host_processes: bool = False
    host_ipc: bool = False
    users: int | None = None
    sysctls: tuple[tuple[str, str], ...] = ()


def spaces(pod: Pod, members: int, users: int | None) -> Spaces:
    spec = pod.spec
    wanted = tuple((sysctls.name(each), each.value) for each in sysctls.asked(pod))
    own = spec.host_users is False
    shared = members > 1 or own or any(sysctls.is_ipc(name) for name, _ in wanted)
    return Spaces(
        ipc=shared and not spec.host_ipc,
        processes=bool(spec.share_process_namespace),
        host_processes=bool(spec.host_pid),
        host_ipc=bool(spec.host_ipc),
        users=users if own else None,
        sysctls=wanted,
    )


def free_users(taken: set[int]) -> int | None:
    """The first range of users on a host that no Pod has."""
    starts = range(_FIRST_USER, _FIRST_USER + _RANGES * USER_COUNT, USER_COUNT)
    return next((start for start in starts if start not in taken), None)


def ipc(uid32: str) -> str:
    return f"{paths.run(uid32)}/ipc"


def processes(uid32: str) -> str:
    return f"{paths.run(uid32)}/pid"


def users(uid32: str) -> str:
    return f"{paths.run(uid32)}/users"


def pause_unit(uid32: str) -> str:
    """No container's unit: those begin otherwise."""
    return f"vkp-{uid32}.service"


def make(uid32: str, of: Spaces, tool: str) -> str:
    """Whatever is missing of IPC and processes; to be run before a container starts."""
    file = ipc(uid32)
    made = of.ipc and of.users is None
    text = f"if ! [ -e {file}.set ]; then\n: > {file}\nunshare --ipc={file} true\n{_set_ipc(uid32, of)}fi\n" if made else ""
    return text + (_pause(uid32, tool) if of.processes else "")


def _pause(uid32: str, tool: str) -> str:
    unit = pause_unit(uid32)
    options = f"--property=Slice={paths.pod_slice(uid32)} --property=Type=notify --property=CollectMode=inactive-or-failed"
    start = f"systemd-run --quiet --unit={unit} {options} {tool} pause {processes(uid32)}"
    return f"systemctl is-active --quiet {unit} || {start}\n"


def make_users(uid32: str, of: Spaces, tool: str) -> str:
    """The user namespace, with the network (not yet connected) and the IPC that belong to it."""
    if of.users is None:
        return ""
    netns = f"/run/netns/{network.netns(uid32)}"
    return f"mkdir -p /run/netns\n{tool} spaces {of.users} {users(uid32)} {netns} {ipc(uid32)}\n{_set_ipc(uid32, of)}"


def _set_ipc(uid32: str, of: Spaces) -> str:
    """The kernel's settings of the Pod's IPC, and the sign that it is there."""
    enter = f"nsenter --ipc={ipc(uid32)}"
    return "".join(_set(enter, name, value) for name, value in of.sysctls if sysctls.is_ipc(name)) + f": > {ipc(uid32)}.set\n"


def set_network(uid32: str, of: Spaces) -> str:
    """The settings of the Pod's network."""
    enter = f"nsenter --net=/run/netns/{network.netns(uid32)}"
    return "".join(_set(enter, name, value) for name, value in of.sysctls if not sysctls.is_ipc(name))


def _set(enter: str, name: str, value: str) -> str:
    script = f"printf %s {shlex.quote(value)} > {shlex.quote(sysctls.file(name))}"
    return f"{enter} sh -c {shlex.quote(script)}\n"


def unmake(uid32: str) -> str:
    files = (ipc(uid32), processes(uid32), users(uid32))
    return f"systemctl stop --no-block {pause_unit(uid32)} 2>/dev/null || :\n" + "".join(
        f"[ ! -e {file} ] || umount -l {file} 2>/dev/null || :\n" for file in files
    )
