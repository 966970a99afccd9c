"""A lab's name in, its addresses, names and folders out; and the one file that says what the lab consists of.

Labs stand beside each other: each has an index, from which every address and every interface name follows.
"""

import contextlib
import fcntl
import ipaddress
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.lab.shell import LabError, run

CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
LABS = Path(os.environ.get("VKNIX_LAB_DIR") or "/var/lib/vknix-lab")
CACHE = Path(os.environ.get("VKNIX_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vknix")
INDEXES = range(48)


@dataclass(frozen=True, slots=True)
class HostSpec:
    name: str
    shape: str


@dataclass(frozen=True, slots=True)
class Layout:
    """What a lab consists of, and where all of it is."""

    name: str
    index: int
    kubernetes: str
    hosts: tuple[HostSpec, ...]

    @property
    def folder(self) -> Path:
        return LABS / self.name

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.folder / "admin.kubeconfig"

    @property
    def ssh_config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def bridge(self) -> str:
        return f"vkl{self.index}"

    @property
    def address(self) -> str:
        """Of this machine, in the lab's network: the API server's, and the Node's InternalIP."""
        return f"10.90.{self.index}.1"

    @property
    def loopback(self) -> str:
        """Where etcd listens, unseen by the hosts."""
        return f"127.90.{self.index}.1"

    @property
    def pod_cidr(self) -> str:
        return f"10.{128 + self.index}.0.0/16"

    @property
    def service_cidr(self) -> str:
        return f"10.{192 + self.index}.0.0/16"

    def number(self, host: str) -> int:
        """A host's place in the lab, from 1."""
        return next(place for place, spec in enumerate(self.hosts, 1) if spec.name == host)

    def host_address(self, host: str) -> str:
        return f"10.90.{self.index}.{10 + self.number(host)}"

    def host_mac(self, host: str) -> str:
        return f"02:5a:0a:5a:{self.index:02x}:{10 + self.number(host):02x}"

    def host_link(self, host: str) -> str:
        """This machine's end of a host's cable."""
        return f"{self.bridge}h{self.number(host)}"

    def machine(self, host: str) -> str:
        """The host's name among all labs: its machine, its network namespace, its cgroup."""
        return f"vknix-lab-{self.name}-{host}"


def load(name: str) -> Layout | None:
    """The lab of that name, also a half-finished one; None when there is none."""
    try:
        raw = json.loads((LABS / name / "lab.json").read_text())
    except FileNotFoundError:
        return None
    return Layout(**{**raw, "hosts": tuple(HostSpec(**spec) for spec in raw["hosts"])})


def save(layout: Layout) -> None:
    """Write what the lab consists of, before any of it is made: `down` relies on it."""
    layout.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    write(layout.folder / "lab.json", json.dumps(asdict(layout), indent=1))


def write(path: Path, text: str | bytes, *, mode: int = 0o644) -> None:
    """Put a whole file in its place, never half of it; nobody sees it with a wider mode."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)
    draft.rename(path)


def planned(name: str, *, hosts: int | None, shape: str | None, kubernetes: str | None, default: str) -> Layout:
    """The lab that `up` shall make: the one that is there with hosts (of the asked shape) added, or a new one with a free index."""
    there = load(name)
    if there is None:
        return Layout(name, _free_index(), kubernetes or default, _specs(hosts or (1 if shape == "vm" else 2), shape or "mixed"))
    if kubernetes is not None and kubernetes != there.kubernetes:
        raise LabError(f"lab {name} has Kubernetes {there.kubernetes}; for {kubernetes} take it down first, or use --name")
    count = hosts or len(there.hosts)
    added = _specs(count, shape or "mixed")[len(there.hosts) :]
    wanted = (there.hosts + added)[:count]
    if len(wanted) < len(there.hosts) or (shape and not added and wanted != _specs(count, shape)):
        shown = ", ".join(f"{spec.name} ({spec.shape})" for spec in there.hosts)
        raise LabError(f"lab {name} has {shown}; for other hosts take it down first, or use --name")
    return replace(there, hosts=wanted)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; ends with the process, whatever becomes of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _specs(count: int, shape: str) -> tuple[HostSpec, ...]:
    shapes = ("debian", "nixos") if shape == "mixed" else (shape, shape)
    return tuple(HostSpec(f"host{number + 1}", shapes[number % 2]) for number in range(count))


def _free_index() -> int:
    labs = [load(file.parent.name) for file in LABS.glob("*/lab.json")]
    taken = {lab.index for lab in labs if lab}
    routes = [route["dst"] for route in json.loads(run(["ip", "-4", "-json", "route"]).stdout or "[]")]
    busy = [ipaddress.ip_network(route, strict=False) for route in routes if route != "default"]
    for index in INDEXES:
        probe = Layout("probe", index, "", ())
        nets = [ipaddress.ip_network(cidr) for cidr in (f"10.90.{index}.0/24", probe.pod_cidr, probe.service_cidr)]
        if index not in taken and not any(net.overlaps(other) for net in nets for other in busy):
            return index
    raise LabError("no free network for another lab in 10.90.0.0/16; take one down (scripts/lab --name N down)")
