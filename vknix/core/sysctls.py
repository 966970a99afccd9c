"""Settings of the kernel that a Pod may have: the kubelet's rules (pkg/kubelet/sysctl). Pure."""

from collections.abc import Collection, Iterable

from vknix.core.pod import Pod, Sysctl
from vknix.errors import Refused

SAFE = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_IPC = ("kernel.shm", "kernel.msg", "fs.mqueue.")
_REASON = "SysctlForbidden"


def asked(pod: Pod) -> Iterable[Sysctl]:
    context = pod.spec.security_context
    return (context and context.sysctls) or ()


def name(of: Sysctl) -> str:
    """With dots between its parts: a name whose first separator is a slash has them the other way round."""
    slash, dot = of.name.find("/"), of.name.find(".")
    return of.name.translate(str.maketrans("/.", "./")) if slash >= 0 and (dot < 0 or slash < dot) else of.name


def file(of: str) -> str:
    return "/proc/sys/" + of.translate(str.maketrans("/.", "./"))


def is_ipc(of: str) -> bool:
    return of == "kernel.sem" or of.startswith(_IPC)


def is_namespaced(of: str) -> bool:
    """A name, or a pattern that ends in a star: whether a Pod can have it without changing its host."""
    return of.startswith("net.") or is_ipc(of.removesuffix("*")) or of in ("kernel.shm*", "kernel.msg*")


def check(pod: Pod, unsafe: Collection[str]) -> None:
    """Refused for the first that is neither safe nor allowed (`unsafe`: names, or patterns that end in a star)."""
    for index, each in enumerate(asked(pod)):
        path, wanted = f"spec.securityContext.sysctls[{index}].name", name(each)
        if ".." in wanted or not is_namespaced(wanted) or not (wanted in SAFE or _allowed(wanted, unsafe)):
            remedy = "leave it out, or name it in allowedUnsafeSysctls"
            raise Refused(path, f'forbidden sysctl: "{wanted}" not allowlisted', remedy=remedy, reason=_REASON)
        if is_ipc(wanted) and pod.spec.host_ipc:
            raise Refused(path, f'forbidden sysctl: "{wanted}" not allowed with host ipc', remedy="drop hostIPC", reason=_REASON)
        if not is_ipc(wanted) and pod.spec.host_network:
            raise Refused(
                path, f'forbidden sysctl: "{wanted}" not allowed with host net', remedy="drop hostNetwork", reason=_REASON
            )


def _allowed(wanted: str, unsafe: Collection[str]) -> bool:
    return any(wanted == each or (each.endswith("*") and wanted.startswith(each[:-1])) for each in unsafe)
