"""Where things of a Pod are on a host. Pure text; dashes of a UID are left out, since a dash nests slices."""

import hashlib

from vknix.core.facts import StorePath, Uid

RUN = "/run/vknix"  # tmpfs: what a reboot may take, and every secret
VAR = "/var/lib/vknix"  # what outlives a reboot
FARMS = f"{VAR}/farms"
ROOTS = "/nix/var/nix/gcroots/vknix"
EPOCH = f"{RUN}/epoch"
NSPAWN = "/run/systemd/nspawn"
UNITS = "/run/systemd/system"
SEARCH = "/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # a NixOS host, else one with an FHS


def uid32(uid: Uid) -> str:
    return uid.replace("-", "")


def uid(of: str) -> Uid:
    return Uid("-".join((of[:8], of[8:12], of[12:16], of[16:20], of[20:])))


def run(uid32: str) -> str:
    return f"{RUN}/{uid32}"


def var(uid32: str) -> str:
    return f"{VAR}/{uid32}"


def run_of(uid32: str, container: str) -> str:
    return f"{RUN}/{uid32}/c/{container}"


def var_of(uid32: str, container: str) -> str:
    return f"{VAR}/{uid32}/c/{container}"


def pod_slice(uid32: str) -> str:
    return f"vk-{uid32}.slice"


def unit(uid32: str, container: str) -> str:
    return f"vk-{uid32}-{container}.service"


def container_of(unit: str) -> tuple[str, str] | None:
    """A unit's name -> (uid32, container); None: no container's unit."""
    if not (unit.startswith("vk-") and unit.endswith(".service") and len(unit) > 44 and unit[35] == "-"):
        return None
    return unit[3:35], unit[36 : -len(".service")]


def machine(uid32: str, container: str) -> str:
    """Unique on the host and at most 64 characters."""
    return "vk" + hashlib.sha256(f"{uid32}/{container}".encode()).hexdigest()[:20]


def farm(root: StorePath) -> str:
    return f"{FARMS}/{base(root)}"


def inside(path: str) -> str:
    """A path in a container's root, absolute and without detours: `..` never leads out of it."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def below_run(path: str) -> str:
    """/var/run is a name of /run wherever systemd is the init."""
    return path.removeprefix("/var") if path.startswith("/var/run/") else path


def base(path: str) -> str:
    return path.rsplit("/", 1)[1]
