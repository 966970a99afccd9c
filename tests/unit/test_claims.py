"""Claims and their volumes: what is mounted, on which hosts, and how a host mounts NFS."""

from typing import Any

import msgspec
import pytest

from tests.unit.build import UID, container, inputs, parses, plan, pod
from vknix.core import claims
from vknix.core.claims import Claim, ClaimObject
from vknix.core.facts import HostName
from vknix.core.fetched import Fetched
from vknix.core.pod import Pod
from vknix.core.storage import HostDir, Nfs, Storage
from vknix.errors import Refused
from vknix.nspawn import swap

POOL = (HostName("a"), HostName("b"))
LOCAL = {"local": {"path": "/srv/data"}}
NFS = {"nfs": {"server": "192.0.2.9", "path": "/export"}}


def claimed(volume: dict[str, Any] | None, phase: str = "Bound") -> Claim:
    """As it is read from the API server."""
    of = msgspec.convert({"spec": {}, "status": {"phase": phase}}, ClaimObject)
    return claims.claim("data", of, msgspec.json.encode({"spec": volume}) if volume is not None else None)


def on(*terms: list[dict[str, Any]]) -> dict[str, Any]:
    """A local volume with that node affinity."""
    return {**LOCAL, "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": term} for term in terms]}}}


def hostname(operator: str, *values: str) -> dict[str, Any]:
    return {"key": "kubernetes.io/hostname", "operator": operator, **({"values": list(values)} if values else {})}


def user(*, read_only: bool = False, **spec: Any) -> Pod:
    main = container(volumeMounts=[{"name": "v", "mountPath": "/v"}])
    return pod(main, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data", "readOnly": read_only}}], **spec)


def stored(volume: dict[str, Any], *, read_only: bool = False) -> Storage:
    return inputs(user(read_only=read_only), Fetched(claims={"data": claimed(volume)})).storage["v"]


@pytest.mark.parametrize(
    ("volume", "read_only", "expected"),
    [
        (LOCAL, False, HostDir("/srv/data", "Exists", owned=True)),
        (LOCAL, True, HostDir("/srv/data", "Exists", read_only=True)),
        ({"hostPath": {"path": "/srv", "type": "Directory"}}, False, HostDir("/srv", "Directory")),
        (NFS, False, Nfs("192.0.2.9", "/export")),
        (NFS, True, Nfs("192.0.2.9", "/export", read_only=True)),
        ({"nfs": {**NFS["nfs"], "readOnly": True}}, False, Nfs("192.0.2.9", "/export", read_only=True)),
        ({**NFS, "mountOptions": ["nfsvers=4.2", "hard"]}, False, Nfs("192.0.2.9", "/export", ("nfsvers=4.2", "hard"))),
    ],
)
def test_what_is_mounted_for_a_claim(volume: dict[str, Any], read_only: bool, expected: Storage) -> None:
    assert stored(volume, read_only=read_only) == expected


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "its claim does not exist"),
        (claimed(None, "Pending"), "claim data is Pending, not Bound"),
        (claimed(LOCAL, "Lost"), "claim data is Lost, not Bound"),
        (claimed({**LOCAL, "volumeMode": "Block"}), "block devices are not supported"),
        (claimed({"csi": {"driver": "x"}}), "persistent volumes of type CSI are not supported"),
        (claimed({"local": {"path": "/srv/../etc"}}), "'/srv/../etc' is no path of a host"),
    ],
)
def test_a_claim_that_can_not_be_mounted_says_why(found: Claim | None, why: str) -> None:
    with pytest.raises(Refused) as refused:
        inputs(user(), Fetched(claims={"data": found}))
    assert (refused.value.field, refused.value.reason) == ("spec.volumes[0]", "FailedMount")
    assert why in refused.value.why


EPHEMERAL = pod(container(), volumes=[{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}])


def made_for(uid: str, *, controller: bool = True) -> Claim:
    owner = {"uid": uid, "controller": controller}
    of = msgspec.convert({"metadata": {"ownerReferences": [owner]}, "spec": {}, "status": {"phase": "Bound"}}, ClaimObject)
    return claims.claim("web-v", of, msgspec.json.encode({"spec": LOCAL}))


def test_a_claim_that_was_made_for_the_pod_is_mounted() -> None:
    assert claims.names(EPHEMERAL) == ("web-v",)
    made = inputs(EPHEMERAL, Fetched(claims={"web-v": made_for(UID)}))
    assert made.storage["v"] == HostDir("/srv/data", "Exists", owned=True)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "the claim of its template has not been made"),
        (made_for("another"), "PVC shop/web-v was not created for pod shop/web (pod is not owner)"),
        (made_for(UID, controller=False), "pod is not owner"),
        (claimed(LOCAL), "pod is not owner"),
    ],
)
def test_a_claim_that_was_made_for_somebody_else_is_not(found: Claim | None, why: str) -> None:
    with pytest.raises(Refused) as refused:
        inputs(EPHEMERAL, Fetched(claims={"web-v": found}))
    assert (refused.value.field, refused.value.reason) == ("spec.volumes[0]", "FailedMount")
    assert why in refused.value.why


@pytest.mark.parametrize(
    ("volumes", "pool", "expected"),
    [
        ([LOCAL], POOL, {"a", "b"}),
        ([on([hostname("In", "vknix", "b")])], POOL, {"b"}),
        ([on([hostname("In", "a")], [hostname("In", "b")])], POOL, {"a", "b"}),
        ([on([hostname("NotIn", "a")])], POOL, {"b"}),
        ([on([hostname("In", "b"), {"key": "zone", "operator": "In", "values": ["z"]}])], POOL, {"b"}),
        ([on([{"key": "zone", "operator": "In", "values": ["z"]}])], POOL, {"a", "b"}),
        ([on([hostname("In", "vknix")])], POOL[:1], {"a"}),
        ([on([hostname("In", "vknix", "a", "b")]), on([hostname("In", "vknix", "b")])], POOL, {"b"}),
    ],
    ids=["anywhere", "beside the node", "terms of their own", "not there", "and a zone", "a zone", "one host", "two claims"],
)
def test_hosts_that_have_all_volumes(volumes: list[dict[str, Any]], pool: tuple[HostName, ...], expected: set[str]) -> None:
    assert claims.hosts([claimed(volume) for volume in volumes], pool) == expected


@pytest.mark.parametrize(
    "volumes", [[on([hostname("In", "vknix")])], [on([hostname("In", "a")]), on([hostname("In", "b")])], [on([hostname("In")])]]
)
def test_volumes_that_no_host_has_are_told_with_the_remedy(volumes: list[dict[str, Any]]) -> None:
    with pytest.raises(Refused) as refused:
        claims.hosts([claimed(volume) for volume in volumes], POOL)
    assert refused.value.reason == "FailedMount"
    assert "nodeAffinity" in refused.value.remedy


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (NFS, "mount -t nfs -- 192.0.2.9:/export"),
        ({"nfs": {"server": "2001:db8::9", "path": "/e", "readOnly": True}}, "mount -t nfs -o ro -- '[2001:db8::9]:/e'"),
        ({**NFS, "mountOptions": ["nfsvers=4.2"]}, "mount -t nfs -o nfsvers=4.2 -- 192.0.2.9:/export"),
        ({"nfs": {"server": "-o x", "path": "/e;rm -rf"}}, "mount -t nfs -- '-o x:/e;rm -rf'"),
    ],
    ids=["plain", "by IPv6, read-only", "with options", "hostile"],
)
def test_nfs_is_mounted_by_its_host_in_time(volume: dict[str, Any], words: str) -> None:
    script = swap.volumes(plan(user(), Fetched(claims={"data": claimed(volume)})), "/tool")
    parses(script)
    assert f"timeout 20 {words} " in script
    assert "the kernel of the host has no NFS; add nfs to boot.supportedFilesystems" in script


def by_kernel(script: str) -> str:
    """What is done where there is no mount.nfs."""
    return script.partition("\nelse\n")[2].partition("\nfi\n")[0]


@pytest.mark.parametrize(
    ("volume", "address", "versions", "options"),
    [
        (NFS, "192.0.2.9", "4.2 4.1 4.0", ""),
        ({**NFS, "mountOptions": ["nfsvers=4.1", "soft"]}, "192.0.2.9", "4.1", ",soft"),
        ({"nfs": {"server": "2001:db8::9", "path": "/e", "readOnly": True}}, "2001:db8::9", "4.2 4.1 4.0", ",ro"),
        ({"nfs": {"server": "a b", "path": "/e"}}, "$(getent ahosts 'a b' | sed -n '1s/ .*//p')", "4.2 4.1 4.0", ""),
    ],
    ids=["plain", "with options", "by IPv6, read-only", "by name"],
)
def test_kernel_mounts_nfs_alone(volume: dict[str, Any], address: str, versions: str, options: str) -> None:
    script = by_kernel(swap.volumes(plan(user(), Fetched(claims={"data": claimed(volume)})), "/tool"))
    assert f"to={address}\n" in script
    assert f"for version in {versions}; do\n" in script
    assert f'-i -t nfs4 -o vers="$version",addr="$to",clientaddr="$from"{options} -- ' in script


@pytest.mark.parametrize("option", ["nfsvers=3", "vers=3", "v3"])
def test_kernel_does_not_mount_older_nfs_alone(option: str) -> None:
    found = Fetched(claims={"data": claimed({**NFS, "mountOptions": [option]})})
    script = by_kernel(swap.volumes(plan(user(), found), "/tool"))
    assert "takes mount.nfs, which is not on the host; add nfs to boot.supportedFilesystems" in script
    assert "mount -i" not in script


def test_a_local_volume_is_given_to_the_pods_group_unless_it_is_read_only() -> None:
    whole: dict[str, Any] = {"securityContext": {"fsGroup": 7}}
    found = Fetched(claims={"data": claimed(LOCAL)})
    assert "/tool own /srv/data 7 always" in swap.volumes(plan(user(**whole), found), "/tool")
    assert "/tool own" not in swap.volumes(plan(user(read_only=True, **whole), found), "/tool")
