"""Which capabilities a container has: containerd's defaults, and what the Pod adds or drops. Pure."""

from vknix.core.container import Container
from vknix.errors import Refused

# What containerd gives a container that asks for nothing (oci/spec.go, defaultUnixCaps).
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
# In the kernel's order: the number of each is its bit.
CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST
    NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE
    SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
    BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
    """.split()
)


def capabilities(path: str, container: Container) -> tuple[str, ...]:
    if container.security_context and container.security_context.privileged:
        return CAPABILITIES
    asked = container.security_context and container.security_context.capabilities
    if not asked:
        return DEFAULT_CAPABILITIES
    drop, add = _named(path, "drop", asked.drop or []), _named(path, "add", asked.add or [])
    kept = [] if "ALL" in drop else [name for name in DEFAULT_CAPABILITIES if name not in drop]
    if "ALL" in add:
        kept = [name for name in CAPABILITIES if name not in drop]
    return tuple(dict.fromkeys((*kept, *(name for name in add if name != "ALL"))))


def _named(path: str, kind: str, names: list[str]) -> list[str]:
    full = [name if name == "ALL" else "CAP_" + name.removeprefix("CAP_") for name in (name.upper() for name in names)]
    for index, name in enumerate(full):
        if name != "ALL" and name not in CAPABILITIES:
            raise Refused(
                f"{path}.securityContext.capabilities.{kind}[{index}]",
                f"{names[index]!r} is no capability",
                remedy="see capabilities(7)",
            )
    return full


def mask(capabilities: tuple[str, ...]) -> int:
    return sum(1 << CAPABILITIES.index(name) for name in capabilities)
