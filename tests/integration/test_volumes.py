"""Volumes of each kind on the lab: what a container finds there, whose it is, and that no path leads out of one."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.build import (
    Json,
    Space,
    container,
    has_ended,
    host_of,
    is_ready,
    phase,
    pod,
    status,
    terminated,
    uid32,
    waiting,
)
from tests.lab.hosts import Host
from tests.lab.shell import wait_for
from tests.lab.vknixproc import NODE

pytestmark = pytest.mark.lab

GROUP = 2345


def volume(name: str, **of: Any) -> Json:
    return {"name": name, **of}


def mount(name: str, at: str, **of: Any) -> Json:
    return {"name": name, "mountPath": at, **of}


def config_map(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.fixture(scope="module")
def given(shared: Space) -> Json:
    """A Pod with volumes of many kinds, running."""
    shared.create(config_map("map", one="first", two="second"))
    volumes = [
        volume("mem", emptyDir={"medium": "Memory", "sizeLimit": "3Mi"}),
        volume("disk", emptyDir={}),
        volume("map", configMap={"name": "map", "defaultMode": 0o400}),
        volume("host", hostPath={"path": "/var/tmp/vknix-test/dir", "type": "DirectoryOrCreate"}),
        volume("file", hostPath={"path": "/var/tmp/vknix-test/dir/file", "type": "FileOrCreate"}),
        volume("closure", image={"reference": shared.lab.image_busybox}),
    ]
    mounts = [
        mount("mem", "/mem"),
        mount("disk", "/disk"),
        mount("disk", "/parts", subPathExpr="$(POD)/deep"),
        mount("map", "/map"),
        mount("map", "/etc/passwd", subPath="one"),
        mount("host", "/host", mountPropagation="HostToContainer"),
        mount("host", "/host-ro", readOnly=True, recursiveReadOnly="IfPossible"),
        mount("file", "/file"),
        mount("closure", "/closure"),
    ]
    main = container(
        shared.lab.image_busybox,
        volumeMounts=mounts,
        env=[{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        securityContext={"readOnlyRootFilesystem": True},
    )
    shared.create(pod("given", main, volumes=volumes, securityContext={"fsGroup": GROUP}))
    return shared.wait(is_ready, "given")["given"]


def sh(shared: Space, script: str, name: str = "given") -> str:
    return shared.exec(name, "sh", "-c", script).strip()


def test_memory_is_a_tmpfs_of_its_size_and_the_groups(given: Json, shared: Space) -> None:
    assert sh(shared, "stat -fc %T /mem; stat -c '%a %g' /mem; df -k /mem | tail -n 1 | awk '{print $2}'").split() == [
        "tmpfs",
        "2777",
        str(GROUP),
        "3072",
    ]


def test_disk_is_open_to_all_and_the_groups(given: Json, shared: Space) -> None:
    assert sh(shared, "stat -c '%a %g' /disk; touch /disk/new; stat -c %g /disk/new; id -G") == f"2777 {GROUP}\n{GROUP}\n0 {GROUP}"


def test_files_are_readable_by_the_group(given: Json, shared: Space) -> None:
    assert sh(shared, "stat -Lc '%a %g' /map/two") == f"440 {GROUP}"


def test_part_of_a_volume_is_made_as_open_as_the_volume(given: Json, shared: Space) -> None:
    assert sh(shared, "echo x > /parts/new; cat /disk/given/deep/new; stat -c %a /disk/given/deep") == "x\n2777"


def test_part_may_be_a_file_in_the_place_of_one(given: Json, shared: Space) -> None:
    assert sh(shared, "cat /etc/passwd; echo x > /etc/passwd || echo refused").splitlines()[0] == "first" + "refused"


def test_host_paths_are_made_and_shown(given: Json, shared: Space) -> None:
    host = next(host for host in shared.lab.hosts if host.name == host_of(given))
    sh(shared, "echo y > /host/from-inside; echo z > /file")
    assert host.run("cat /var/tmp/vknix-test/dir/from-inside /var/tmp/vknix-test/dir/file").split() == ["y", "z"]
    assert "refused" in sh(shared, "echo x > /host-ro/new || echo refused")


def test_later_mounts_of_the_host_show_only_where_they_are_asked_for(given: Json, shared: Space) -> None:
    host = next(host for host in shared.lab.hosts if host.name == host_of(given))
    host.inside("cd /var/tmp/vknix-test/dir; mkdir -p later; mount -t tmpfs x later; echo m > later/mark")
    try:
        assert sh(shared, "cat /host/later/mark; ls /host-ro/later") == "m"
    finally:
        host.inside("umount /var/tmp/vknix-test/dir/later")


def test_closure_is_a_volume_with_what_it_needs(given: Json, shared: Space) -> None:
    assert "busybox" in sh(shared, "ls /closure/bin")
    assert "refused" in sh(shared, "echo x > /closure/new || echo refused")


def test_status_says_which_mounts_are_wholly_read_only(given: Json) -> None:
    told = {of["mountPath"]: of.get("recursiveReadOnly") for of in status(given)["volumeMounts"]}
    assert (told["/host-ro"], told["/mem"]) == ("Enabled", None)


def test_nothing_of_it_is_left(given: Json, shared: Space) -> None:
    host = next(host for host in shared.lab.hosts if host.name == host_of(given))
    shared.kubectl("delete", "pod", "given", "--grace-period=1")
    wait_for(lambda: uid32(given) not in host.run("cat /proc/mounts; ls /run/vknix /var/lib/vknix"), "it is gone", timeout_s=10)
    assert host.run("cat /var/tmp/vknix-test/dir/from-inside; rm -rf /var/tmp/vknix-test").strip() == "y"


def test_hostile_volumes_lead_nowhere(space: Space) -> None:
    """A link in a volume, to the host's root or above the volume, is not followed out of it; one inside is."""
    image = space.lab.image_busybox
    links = (
        "ln -s / /v/root; ln -s ../../../../.. /v/up; mkdir /v/in; echo ok > /v/in/file; ln -s in /v/way; mkdir '/v/odd: \\name'"
    )
    init = container(image, links, name="links", volumeMounts=[mount("v", "/v")])

    def asks(name: str, sub: str) -> Json:
        main = container(image, "ls /x", volumeMounts=[mount("v", "/x", subPath=sub)])
        return pod(name, main, initContainers=[init], volumes=[volume("v", emptyDir={})])

    space.create(asks("root", "root/etc"), asks("up", "up/etc"), asks("in", "way"), asks("odd", "odd: \\name"))
    ended = space.wait(lambda of: phase(of) in ("Succeeded", "Failed"), "root", "up", "in", "odd")
    assert [phase(ended[name]) for name in ("root", "up", "in", "odd")] == ["Failed", "Failed", "Succeeded", "Succeeded"]
    assert terminated(ended["root"])["reason"] == "StartError"
    assert "subPath" in terminated(ended["up"])["message"]
    assert space.logs("in", "--container=main") == "file\n"


def test_volume_that_swaps_a_link_meanwhile_wins_nothing(space: Space) -> None:
    """One container swaps a directory and a link to the host's root, another one starts again and again on it."""
    image = space.lab.image_busybox
    swap = "cd /v; mkdir d; touch d/mine; ln -s /etc l; while :; do mv d t; mv l d; mv d l; mv t d; done"
    look = "for of in passwd hostname machine-id ssh; do [ ! -e /x/$of ] || touch /v/lost; done; exit 1"
    racing = pod(
        "racing",
        container(image, swap, name="swap", volumeMounts=[mount("v", "/v")]),
        *(
            container(image, look, name=f"look{n}", volumeMounts=[mount("v", "/v"), mount("v", "/x", subPath="d")])
            for n in range(4)
        ),
        volumes=[volume("v", emptyDir={})],
        restart="OnFailure",
    )
    space.create(racing)
    space.wait(lambda of: all(status(of, f"look{n}").get("restartCount", 0) >= 2 for n in range(4)), "racing", timeout_s=60)
    assert "lost" not in space.kubectl("exec", "racing", "--container=swap", "--", "ls", "/v").split()


def test_host_path_that_is_not_what_it_is_to_be_waits(space: Space) -> None:
    of = container(space.lab.image_busybox, "cat /x/mark", volumeMounts=[mount("h", "/x")])
    space.create(pod("waits", of, volumes=[volume("h", hostPath={"path": "/var/tmp/vknix-late", "type": "Directory"})]))
    assert "/var/tmp/vknix-late is not a directory" in space.wait_event("waits", "FailedMount")
    assert phase(space.pod("waits")) == "Pending"
    for host in space.lab.hosts:
        host.run("mkdir -p /var/tmp/vknix-late; echo late > /var/tmp/vknix-late/mark")
    space.wait(lambda pod: phase(pod) == "Succeeded", "waits", timeout_s=30)
    for host in space.lab.hosts:
        host.run("rm -rf /var/tmp/vknix-late")


def test_expression_is_evaluated_again_when_the_pod_changes(space: Space) -> None:
    env = [{"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['where']"}}}]
    of = container(space.lab.image_busybox, "echo x > /x/y; ls /v", env=env)
    of["volumeMounts"] = [mount("v", "/x", subPathExpr="$(WHERE)/sub"), mount("v", "/v")]
    space.create(pod("heals", of, volumes=[volume("v", emptyDir={})]))
    space.wait(lambda of: waiting(of) == "CreateContainerConfigError", "heals")
    assert "absolute" in status(space.pod("heals"))["state"]["waiting"]["message"]
    space.kubectl("annotate", "pod", "heals", "where=here")
    space.wait(lambda of: phase(of) == "Succeeded", "heals", timeout_s=30)
    assert space.logs("heals") == "here\n"


def test_closure_that_nobody_has_is_like_an_image(space: Space) -> None:
    missing = f"/nix/store/{'1' * 32}-nowhere"
    of = container(space.lab.image_busybox, volumeMounts=[mount("v", "/x")])
    space.create(pod("lacks", of, volumes=[volume("v", image={"reference": missing})]))
    space.wait(lambda of: waiting(of) in ("ErrImagePull", "ImagePullBackOff"), "lacks", timeout_s=60)


def persistent(space: Space, claim: str) -> tuple[Host, Json]:
    """Makes a volume of kind local for a claim of that name: its host, where its directory is not yet, and the claim's spec."""
    host = space.lab.hosts[-1]
    hosts = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE, host.name]}
    size = {"storage": "1Mi"}
    where = {
        "local": {"path": "/var/tmp/vknix-local"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [hosts]}]}},
        "claimRef": {"namespace": space.name, "name": claim},
    }
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    there = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": space.name}}
    space.create({**there, "spec": {**common, "capacity": size, "persistentVolumeReclaimPolicy": "Retain", **where}})
    return host, {**common, "volumeName": space.name, "resources": {"requests": size}}


@pytest.fixture
def local(space: Space) -> Iterator[Host]:
    """The host of a volume of kind local that is claimed as `data`."""
    host, spec = persistent(space, "data")
    space.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec})
    yield host
    host.run("rm -rf /var/tmp/vknix-local")
    space.lab.kubectl("delete", "persistentvolume", space.name, "--wait=false")


def test_local_volume_is_mounted_on_its_host_once_it_is_there(space: Space, local: Host) -> None:
    def user(name: str, script: str, **of: Any) -> Json:
        main = container(space.lab.image_busybox, script, volumeMounts=[mount("v", "/v")])
        claim = {"claimName": "data", **of}
        return pod(name, main, volumes=[volume("v", persistentVolumeClaim=claim)], securityContext={"fsGroup": GROUP})

    space.create(user("writer", "stat -c %g /v; echo kept > /v/file"))
    assert "/var/tmp/vknix-local is not there" in space.wait_event("writer", "FailedMount")
    local.run("mkdir /var/tmp/vknix-local")
    wrote = space.wait(has_ended, "writer")["writer"]
    assert (phase(wrote), host_of(wrote), space.logs("writer")) == ("Succeeded", local.name, f"{GROUP}\n")
    read = space.run(user("reader", "cat /v/file; (echo x > /v/file) 2> /dev/null || echo refused", readOnly=True))
    assert (host_of(read), space.logs("reader")) == (local.name, "kept\nrefused\n")
    assert local.run("cat /var/tmp/vknix-local/file") == "kept\n"


def test_files_are_given_to_the_group_always_or_only_where_the_root_of_the_volume_is_not(space: Space, local: Host) -> None:
    def seen(name: str, **policy: str) -> list[str]:
        main = container(space.lab.image_busybox, "stat -c '%g %a' /v /v/in /v/in/file", volumeMounts=[mount("v", "/v")])
        volumes = [volume("v", persistentVolumeClaim={"claimName": "data"})]
        space.run(pod(name, main, volumes=volumes, securityContext={"fsGroup": GROUP, **policy}))
        return space.logs(name).splitlines()

    local.run(
        f"mkdir -p -m 755 /var/tmp/vknix-local/in; cd /var/tmp/vknix-local; chgrp {GROUP} .; chmod 2770 .; "
        "touch in/file; chgrp -R 7 in; chmod 755 in; chmod 600 in/file"
    )
    root, taken = f"{GROUP} 2770", [f"{GROUP} 2775", f"{GROUP} 660"]
    assert seen("kept", fsGroupChangePolicy="OnRootMismatch") == [root, "7 755", "7 600"]
    assert seen("always", fsGroupChangePolicy="Always") == [root, *taken]
    local.run("cd /var/tmp/vknix-local; chgrp -R 7 in; chmod g-s .")
    assert seen("mismatch", fsGroupChangePolicy="OnRootMismatch") == [root, *taken]
    local.run("chgrp -R 7 /var/tmp/vknix-local/in")
    assert seen("unsaid") == [root, *taken]


def test_volume_by_a_template_is_the_claim_that_is_made_of_it(space: Space) -> None:
    host, spec = persistent(space, "own-v")
    host.run("mkdir /var/tmp/vknix-local; echo there > /var/tmp/vknix-local/file")
    try:
        main = container(space.lab.image_busybox, "cat /v/file", volumeMounts=[mount("v", "/v")])
        ended = space.run(pod("own", main, volumes=[volume("v", ephemeral={"volumeClaimTemplate": {"spec": spec}})]))
        assert (phase(ended), host_of(ended), space.logs("own")) == ("Succeeded", host.name, "there\n")
    finally:
        host.run("rm -rf /var/tmp/vknix-local")
        space.lab.kubectl("delete", "persistentvolume", space.name, "--wait=false")


def test_nfs_that_a_host_can_not_mount_says_what_the_host_lacks(space: Space) -> None:
    """Some of the lab's hosts have no NFS in their kernel; where it is, nobody is at that address."""
    of = container(space.lab.image_busybox, volumeMounts=[mount("v", "/v")])
    space.create(pod("far", of, volumes=[volume("v", nfs={"server": "192.0.2.1", "path": "/export"})]))
    told = space.wait_event("far", "FailedMount", timeout_s=40)
    assert "add nfs to boot.supportedFilesystems" in told or "does not answer" in told
    assert phase(space.pod("far")) == "Pending"
