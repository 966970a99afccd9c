"""PersistentVolumeClaims and their volumes -> what is mounted, and on which hosts of the pool it can be. Pure."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec

from vknix.core.container import Api
from vknix.core.facts import HostName
from vknix.core.pod import Pod
from vknix.core.volume import ClaimSource, HostPath, NfsSource, Volume
from vknix.errors import Refused

_HOSTNAME = "kubernetes.io/hostname"
_KINDS = {
    "csi": "CSI",
    "iscsi": "iSCSI",
    "fc": "Fibre Channel",
    "rbd": "RBD",
    "cephfs": "CephFS",
    "awsElasticBlockStore": "AWS EBS",
    "gcePersistentDisk": "GCE persistent disk",
    "azureDisk": "Azure disk",
    "azureFile": "Azure file",
    "vsphereVolume": "vSphere",
    "cinder": "Cinder",
    "portworxVolume": "Portworx",
    "flexVolume": "FlexVolume",
}


class LocalSource(Api, frozen=True):
    path: str


class Expression(Api, frozen=True):
    key: str
    operator: str
    values: list[str] | None = None


class Term(Api, frozen=True):
    match_expressions: list[Expression] | None = None


class NodeSelector(Api, frozen=True):
    node_selector_terms: list[Term] | None = None


class NodeAffinity(Api, frozen=True):
    required: NodeSelector | None = None


class VolumeSpec(Api, frozen=True):
    local: LocalSource | None = None
    host_path: HostPath | None = None
    nfs: NfsSource | None = None
    mount_options: list[str] | None = None
    volume_mode: str | None = None
    node_affinity: NodeAffinity | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim as it was found. `volume` None: it is bound to none. `kind`: of a volume that vknix can't mount, its name.

    `owner`: the UID of what controls it.
    """

    name: str
    phase: str
    volume: VolumeSpec | None = None
    kind: str = ""
    owner: str = ""


class _Owner(Api, frozen=True):
    uid: str
    controller: bool | None = None


class _ClaimMetadata(Api, frozen=True):
    owner_references: list[_Owner] | None = None


class _ClaimSpec(Api, frozen=True):
    volume_name: str | None = None


class _ClaimStatus(Api, frozen=True):
    phase: str = ""


class ClaimObject(Api, frozen=True):
    """A PersistentVolumeClaim as the API server sends it."""

    spec: _ClaimSpec
    status: _ClaimStatus = _ClaimStatus()
    metadata: _ClaimMetadata = _ClaimMetadata()


class _VolumeObject(Api, frozen=True):
    spec: dict[str, msgspec.Raw]


def claim(name: str, of: ClaimObject, volume: bytes | None) -> Claim:
    """`volume`: the PersistentVolume that it names; None where there is none (yet)."""
    owner = next((each.uid for each in of.metadata.owner_references or () if each.controller), "")
    if volume is None:
        return Claim(name, of.status.phase, owner=owner)
    spec = msgspec.json.decode(volume, type=_VolumeObject).spec
    kind = next((said for key, said in _KINDS.items() if key in spec), "unknown")
    return Claim(name, of.status.phase, msgspec.json.decode(msgspec.json.encode(spec), type=VolumeSpec), kind, owner)


def names(pod: Pod) -> tuple[str, ...]:
    """The claims that a Pod mounts, each once."""
    each = (source(pod, volume) for volume in pod.spec.volumes or ())
    return tuple(dict.fromkeys(of.claim_name for of in each if of is not None))


def source(pod: Pod, volume: Volume) -> ClaimSource | None:
    """The claim that a volume is: the one that it names, or the one that a controller makes of its template, as POD-VOLUME."""
    return ClaimSource(f"{pod.name}-{volume.name}") if volume.ephemeral is not None else volume.persistent_volume_claim


def bound(pod: Pod, path: str, of_pod: Volume, found: Claim | None) -> VolumeSpec:
    """What is mounted for a claim. Refused with FailedMount where there is nothing yet, or nothing that vknix can mount."""
    volume = of_pod.name
    if found is None and of_pod.ephemeral is not None:
        raise _failed(path, volume, "the claim of its template has not been made", "see kubectl describe pod")
    if found is None:
        raise _failed(path, volume, "its claim does not exist", "create it")
    if of_pod.ephemeral is not None and found.owner != pod.uid:
        why = f"PVC {pod.namespace}/{found.name} was not created for pod {pod.namespace}/{pod.name} (pod is not owner)"
        raise _failed(path, volume, why, "delete that claim, or call the Pod or its volume otherwise")
    if found.phase != "Bound" or found.volume is None:
        why = f"claim {found.name} is {found.phase or 'not bound'}, not Bound"
        raise _failed(path, volume, why, "see kubectl describe pvc")
    of = found.volume
    if of.volume_mode == "Block":
        raise _failed(path, volume, "block devices are not supported", "use a volume with volumeMode: Filesystem")
    if of.local is None and of.host_path is None and of.nfs is None:
        raise _failed(
            path,
            volume,
            f"persistent volumes of type {found.kind} are not supported: they need a driver on the host",
            "use one of type local, hostPath or nfs, or run this Pod on an ordinary node",
        )
    return of


def hosts(found: Collection[Claim], pool: Collection[HostName]) -> frozenset[HostName]:
    """Those hosts of the pool where all of the claims' volumes are: those that the volumes' node affinity names.

    The scheduler compares kubernetes.io/hostname with the name of the node; among its values, or in a term of its own, stands the
    host's. One that names the node alone fits a pool of one host. Refused with FailedMount where none is left.
    """
    fitting = frozenset(pool)
    for each in found:
        of = each.volume
        if of is None or of.node_affinity is None or of.node_affinity.required is None:
            continue
        terms = of.node_affinity.required.node_selector_terms or []
        named = frozenset(name for name in pool if any(_fits(term, name) for term in terms))
        fitting &= named if named or len(pool) > 1 else fitting
    if fitting:
        return fitting
    raise Refused(
        "spec.volumes",
        "MountVolume.NodeAffinity check failed: a persistent volume is on none of the hosts " + ", ".join(sorted(pool)),
        remedy=f"name its host, beside the node, in the values of {_HOSTNAME} of the volume's nodeAffinity",
        reason="FailedMount",
    )


def _fits(term: Term, host: HostName) -> bool:
    return all(_holds(each, host) for each in _of_host(term))


def _of_host(term: Term) -> Iterator[Expression]:
    """What a term says of host names: all else is the node's, and the scheduler's to judge."""
    return (each for each in term.match_expressions or () if each.key == _HOSTNAME)


def _holds(of: Expression, host: str) -> bool:
    there = host in (of.values or ())
    return not there if of.operator == "NotIn" else there if of.operator == "In" else of.operator == "Exists"


def _failed(path: str, volume: str, why: str, remedy: str) -> Refused:
    return Refused(path, f'MountVolume.SetUp failed for volume "{volume}": {why}', remedy=remedy, reason="FailedMount")
