"""NFS, mounted for real: the host serves a folder of its own, since its kernel can, and mounts it for its Pods."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.build import Json, Space, container, has_ended, is_ready, phase, pod, uid32, waiting
from tests.integration.conftest import made_namespace, started
from tests.lab.hosts import Host
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

SLOW_S = 90.0
SHARE = "/srv/share"
SERVE = f"""set -e
modprobe nfsd
mkdir -p {SHARE}
echo served > {SHARE}/file
mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
: > /var/lib/nfs/etab
exportfs -i -o rw,no_root_squash,insecure,no_subtree_check '*:{SHARE}'
rpc.mountd -N 2 -N 3
rpc.nfsd -N 3 -G 10 -L 10 2
"""
HELPER = "/usr/sbin/mount.nfs"
READS = r"""
cat /v/file
(echo x > /v/$POD) 2> /dev/null && echo wrote || echo refused
sed -n 's/.* .v nfs4 .*vers=\([^,]*\),.*/\1/p' /proc/mounts
"""


@pytest.fixture(scope="module")
def space(virtual: Lab) -> Iterator[Space]:
    started(virtual)
    virtual.hosts[0].run(SERVE)
    with made_namespace(virtual) as name:
        yield Space(virtual, name)
    virtual.hosts[0].run(f"rpc.nfsd 0; kill $(pidof rpc.mountd); rm -r {SHARE}")
    virtual.kubectl("delete", "persistentvolumes", "--all", "--wait=false")


def user(space: Space, name: str, script: str = READS, **volume: Any) -> Json:
    env = [{"name": "POD", "value": name}]
    main = container(space.lab.image_busybox, script, env=env, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    return pod(name, main, volumes=[{"name": "v", **volume}])


def claimed(space: Space, name: str, path: str, *options: str) -> tuple[Json, Json]:
    """A persistent volume and the claim that is bound to it."""
    size, modes = {"storage": "1Mi"}, {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {
        **modes,
        "capacity": size,
        "nfs": {"server": space.lab.hosts[0].address, "path": path},
        "mountOptions": options,
        "claimRef": {"namespace": space.name, "name": name},
    }
    claim = {**modes, "volumeName": f"{space.name}-{name}", "resources": {"requests": size}}
    return (
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": claim["volumeName"]}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": claim},
    )


def by_claim(name: str, **of: Any) -> Json:
    return {"persistentVolumeClaim": {"claimName": name, **of}}


def mounted(host: Host, of: Json) -> bool:
    return f"/run/vknix/{uid32(of)}/nfs/v nfs4 " in host.run("cat /proc/mounts")


def test_volumes_of_kind_nfs_are_mounted_as_they_are_to_be(space: Space) -> None:
    """By the kernel alone: the host has no mount.nfs."""
    host = space.lab.hosts[0]
    share = {"server": host.address, "path": SHARE}
    assert "none" in host.run("command -v mount.nfs || echo none")
    space.create(
        *claimed(space, "shared", SHARE, "nfsvers=4.1", "soft"),
        user(space, "inline", nfs=share),
        user(space, "inline-ro", nfs={**share, "readOnly": True}),
        user(space, "claim", **by_claim("shared")),
        user(space, "claim-ro", **by_claim("shared", readOnly=True)),
    )
    ended = space.wait(has_ended, "inline", "inline-ro", "claim", "claim-ro", timeout_s=SLOW_S)
    assert {name: space.logs(name).split() for name in ended} == {
        "inline": ["served", "wrote", "4.2"],
        "inline-ro": ["served", "refused", "4.2"],
        "claim": ["served", "wrote", "4.1"],
        "claim-ro": ["served", "refused", "4.1"],
    }
    assert host.run(f"ls {SHARE}").split() == ["claim", "file", "inline"]


def test_what_can_not_be_mounted_is_told_and_waited_for(space: Space) -> None:
    host = space.lab.hosts[0]
    space.create(
        *claimed(space, "old", SHARE, "nfsvers=3"),
        user(space, "away", nfs={"server": "192.0.2.1", "path": SHARE}),
        user(space, "closed", nfs={"server": space.lab.layout.address, "path": SHARE}),
        user(space, "nameless", nfs={"server": "nobody.invalid", "path": SHARE}),
        user(space, "nowhere", nfs={"server": host.address, "path": f"{SHARE}/late"}),
        user(space, "old", **by_claim("old")),
    )
    told = {
        "closed": "mount failed: mount: /run/vknix/UID/nfs/v: mount() failed: Connection refused.",
        "nameless": "nobody.invalid has no address",
        "nowhere": f"special device {host.address}:{SHARE}/late does not exist",
        "old": "an NFS before 4 takes mount.nfs, which is not on the host; add nfs to boot.supportedFilesystems",
        "away": "mount failed: 192.0.2.1 does not answer within 20 s",
    }
    for name, why in told.items():
        message = space.wait_event(name, "FailedMount", timeout_s=SLOW_S).replace(uid32(space.pod(name)), "UID")
        assert 'MountVolume.SetUp failed for volume "v": ' in message
        assert why in message
        assert (phase(space.pod(name)), waiting(space.pod(name))) == ("Pending", "ContainerCreating")
    host.run(f"mkdir {SHARE}/late; echo late > {SHARE}/late/file")
    ended = space.wait(has_ended, "nowhere", timeout_s=SLOW_S)["nowhere"]
    assert phase(ended) == "Succeeded", ended["status"]
    assert space.logs("nowhere").split() == ["late", "wrote", "4.2"]


def test_host_with_a_helper_mounts_by_it(space: Space) -> None:
    host = space.lab.hosts[0]
    helper = '#!/bin/sh\necho helped >> /run/helped\nexec /opt/nfs/mount.nfs "$@"\n'
    host.run(f"cat > {HELPER}; chmod 755 {HELPER}", stdin=helper)
    try:
        space.run(user(space, "helped", nfs={"server": host.address, "path": SHARE}), timeout_s=SLOW_S)
        assert space.logs("helped").split() == ["served", "wrote", "4.2"]
        lacks = user(space, "helped-not", nfs={"server": host.address, "path": f"{SHARE}/nope"})
        space.create(lacks)
        assert "failed, reason given by server: No such file or directory" in space.wait_event("helped-not", "FailedMount")
        assert "helped" in host.run("cat /run/helped")
    finally:
        host.run(f"rm -f {HELPER} /run/helped")


def test_pod_goes_also_where_its_server_went_before(space: Space) -> None:
    host = space.lab.hosts[0]
    unseen = claimed(space, "unseen", SHARE, "actimeo=0")  # nothing that the host remembers helps it
    space.create(*unseen, user(space, "stays", "sleep 3600", **by_claim("unseen")))
    of = space.wait(is_ready, "stays", timeout_s=SLOW_S)["stays"]
    assert mounted(host, of)
    host.run("rpc.nfsd 0")
    space.kubectl("delete", "pod", "stays", "--grace-period=1", "--wait=false")
    space.wait_gone("stays", timeout_s=SLOW_S)
    wait_for(lambda: uid32(of) not in host.run("cat /proc/mounts; ls /run/vknix /var/lib/vknix"), "it is gone", timeout_s=SLOW_S)
