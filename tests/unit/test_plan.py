"""vknix.nspawn.plan: what a container is, and that it can be no more than its Pod may have."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import ROOT, SETTINGS, UID32, aliased, container, inputs, plan, pod
from vknix.core.image import Image
from vknix.core.pod import Pod
from vknix.errors import Refused
from vknix.nspawn import capabilities, oci
from vknix.nspawn import plan as plans
from vknix.nspawn.capabilities import CAPABILITIES, DEFAULT_CAPABILITIES
from vknix.nspawn.plan import MachinePlan, Settings

EMPTY = [{"name": "v", "emptyDir": {}}]


def machine(settings: Settings = SETTINGS, *, spec: dict[str, Any] | None = None, **of_container: Any) -> MachinePlan:
    of = pod(container(**of_container), **{"volumes": EMPTY, **(spec or {})})
    return plans.pod_plan(of, inputs(of), ("10.0.0.2",), settings, {}).machines[0]


def targets(**of_container: Any) -> list[str]:
    return [mount.target for mount in machine(**of_container).mounts]


def test_the_default_capabilities_are_containerds() -> None:
    assert f"{capabilities.mask(DEFAULT_CAPABILITIES):016x}" == "00000000a80425fb"


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({}, DEFAULT_CAPABILITIES),
        ({"drop": ["ALL"]}, ()),
        ({"drop": ["all"], "add": ["net_admin"]}, ("CAP_NET_ADMIN",)),
        ({"drop": ["ALL"], "add": ["CAP_NET_ADMIN"]}, ("CAP_NET_ADMIN",)),
        ({"add": ["ALL"]}, CAPABILITIES),
        ({"add": ["ALL"], "drop": ["SYS_ADMIN"]}, tuple(name for name in CAPABILITIES if name != "CAP_SYS_ADMIN")),
        ({"drop": ["KILL"]}, tuple(name for name in DEFAULT_CAPABILITIES if name != "CAP_KILL")),
        ({"add": ["CHOWN"]}, DEFAULT_CAPABILITIES),
    ],
)
def test_capabilities(asked: dict[str, list[str]], names: tuple[str, ...]) -> None:
    assert machine(securityContext={"capabilities": asked}).capabilities == names


def test_an_unknown_capability_is_refused_by_its_path() -> None:
    with pytest.raises(Refused) as refused:
        machine(securityContext={"capabilities": {"add": ["CHOWN", "FLY"]}})
    assert refused.value.field == "spec.containers[0].securityContext.capabilities.add[1]"


@pytest.mark.parametrize(
    ("own", "whole", "ids"),
    [
        ({}, {}, (0, 0)),
        ({"runAsUser": 0}, {"runAsUser": 5, "runAsGroup": 6}, (0, 6)),
        ({"runAsGroup": 0}, {"runAsUser": 5, "runAsGroup": 6}, (5, 0)),
    ],
)
def test_users(own: dict[str, int], whole: dict[str, int], ids: tuple[int, int]) -> None:
    made = machine(spec={"securityContext": whole}, securityContext=own)
    assert (made.uid, made.gid) == ids


IMAGE = Image(ROOT, ("/e",), env=(("A", "image's"), ("PATH", "/x")), user=7, group=8, directory="/srv", is_root=True)


@pytest.mark.parametrize(
    ("own", "ids"), [({}, (7, 8)), ({"runAsUser": 9}, (9, 0)), ({"runAsGroup": 9}, (7, 9)), ({"runAsUser": 0}, (0, 0))]
)
def test_what_an_image_says_holds_where_the_pod_says_nothing(own: dict[str, int], ids: tuple[int, int]) -> None:
    env = [{"name": "A", "value": "pod's"}]
    made = plan(aliased(pod(container(image="web:1", command=None, securityContext=own, env=env)), IMAGE)).machines[0]
    assert (made.uid, made.gid, made.directory, made.argv) == (*ids, "/srv", ("/e",))
    assert (dict(made.env)["A"], dict(made.env)["PATH"]) == ("pod's", "/x")


@pytest.mark.parametrize(
    ("own", "whole", "default", "on"),
    [
        (None, None, False, False),
        (None, None, True, True),
        ("RuntimeDefault", None, False, True),
        (None, "RuntimeDefault", False, True),
        ("Unconfined", "RuntimeDefault", True, False),
    ],
)
def test_the_filter_is_on_where_it_is_asked_for(own: str | None, whole: str | None, default: bool, on: bool) -> None:
    def context(profile: str | None) -> dict[str, Any]:
        return {"seccompProfile": {"type": profile}} if profile else {}

    settings = Settings("/tool", 7, seccomp_default=default)
    assert machine(settings, spec={"securityContext": context(whole)}, securityContext=context(own)).seccomp is on


def test_the_pods_own_variables_win() -> None:
    env = dict(machine(env=[{"name": "PATH", "value": "/mine"}, {"name": "A", "value": "x=y"}]).env)
    assert env == {"PATH": "/mine", "HOSTNAME": "web", "HOME": "/root", "A": "x=y"}
    assert dict(machine(securityContext={"runAsUser": 1}).env)["PATH"].startswith(f"{ROOT}/bin:{ROOT}/sbin:/usr/local/sbin:")


def test_usual_mounts() -> None:
    assert targets() == ["/dev/shm", "/dev/termination-log", "/etc/hosts", "/etc/resolv.conf"]


def test_what_the_pod_mounts_itself_is_not_mounted_by_vknix() -> None:
    mounts = machine(volumeMounts=[{"name": "v", "mountPath": "/etc/hosts"}]).mounts
    assert [(mount.source, mount.file) for mount in mounts if mount.target == "/etc/hosts"] == [
        (f"/var/lib/vknix/{UID32}/empty/v", False)
    ]


def test_parents_come_before_what_is_mounted_in_them() -> None:
    asked = [{"name": "v", "mountPath": path} for path in ("/a/b/c", "/a", "/z", "/a/b")]
    made = targets(volumeMounts=asked)
    assert [target for target in made if target[1] in "az"] == ["/a", "/z", "/a/b", "/a/b/c"]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/a/", "/a"),
        ("//a//b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("rel", "/rel"),
        ("/a:b,c", "/a:b,c"),
        ("/a\n$(x)", "/a\n$(x)"),
        ("/nixos", "/nixos"),
    ],
)
def test_mount_paths_go_without_detours(path: str, target: str) -> None:
    assert target in targets(volumeMounts=[{"name": "v", "mountPath": path}])


@pytest.mark.parametrize(
    "path", ["/", "", "//", "/.", "/..", "/../etc", "/a/../..", "/nix", "/nix/", "/nix/store", "/./nix/store", "//nix", "/a\0b"]
)
def test_mounts_that_would_leave_the_root_or_hide_the_closure_are_refused(path: str) -> None:
    with pytest.raises(Refused):
        machine(volumeMounts=[{"name": "v", "mountPath": path}])


@pytest.mark.parametrize("path", ["relative", "/nix/x", "/../x", "/./nix/x"])
def test_a_termination_log_stays_in_its_place(path: str) -> None:
    with pytest.raises(Refused):
        machine(terminationMessagePath=path)


@given(st.lists(st.sampled_from(["..", ".", "", "nix", "a", "a:b"]), max_size=6).map("/".join))
def test_a_mount_is_refused_or_inside(path: str) -> None:
    try:
        made = targets(volumeMounts=[{"name": "v", "mountPath": path}])
    except Refused:
        return
    for target in made:
        assert target.startswith("/")
        assert not {"", ".", ".."} & set(target[1:].split("/"))
        assert target.split("/")[1] != "nix"


@pytest.mark.parametrize(
    ("asked", "directory"), [(None, "/"), ("/srv/", "/srv"), ("/../../etc", "/etc"), ("rel", "/rel"), ("/a/../b", "/b"), ("", "/")]
)
def test_the_working_directory_is_inside(asked: str | None, directory: str) -> None:
    assert machine(workingDir=asked).directory == directory


@pytest.mark.parametrize(
    ("of", "field"),
    [
        (pod(container("../up")), "spec.containers[0].name"),
        (pod(container("a;reboot")), "spec.containers[0].name"),
        (pod(container("a\n")), "spec.containers[0].name"),
        (pod(container(""), container("b")), "spec.containers[0].name"),
        (pod(volumes=[{"name": "a b", "emptyDir": {}}]), "spec.volumes[0].name"),
        (pod(metadata={"uid": "../../../etc"}), "metadata.uid"),
        (pod(metadata={"uid": "x" * 32}), "metadata.uid"),
    ],
    ids=["up", "shell", "newline", "empty", "volume", "uid up", "uid"],
)
def test_names_that_paths_are_made_of_are_checked(of: Pod, field: str) -> None:
    with pytest.raises(Refused) as refused:
        plan(of)
    assert refused.value.field == field


def test_without_an_address_it_would_be_the_hosts_network() -> None:
    of = pod()
    with pytest.raises(Refused, match="no address"):
        plans.pod_plan(of, inputs(of), (), SETTINGS, {})


def test_a_container_that_is_held_is_in_no_plan() -> None:
    assert [each.container for each in plan(pod(container("a", command=None), container("b"))).machines] == ["b"]


def test_config_json_has_values_as_they_are() -> None:
    odd = "a\nb'\"\\%n$HOME\x01é"
    of = plan(pod(container(command=["/p", odd], env=[{"name": "X", "value": odd}]), container("b")))
    config = json.loads(oci.config(of, of.machines[0]))
    assert config["process"]["args"][1:] == ["init", "/p", odd]
    assert f"X={odd}".encode() in oci.identity(of, of.machines[0]).split(b"\0")
    assert config["linux"]["namespaces"] == [{"type": kind} for kind in ("pid", "mount", "uts", "cgroup")]
    assert config["ociVersion"] == "1.0.0"


def test_identity_is_what_exec_reads() -> None:
    of = plan(
        pod(
            container(env=[{"name": "X", "value": "a\nb"}], securityContext={"allowPrivilegeEscalation": False}, workingDir="/w"),
            securityContext={"runAsUser": 5, "supplementalGroups": [7, 8]},
        )
    )
    fields = oci.identity(of, of.machines[0]).decode().split("\0")
    assert fields[:8] == ["a80425fb", "5", "0", "0,7,8", "n", "0", "/w", "4"]
    assert "X=a\nb" in fields[8:12]
    assert fields[12:] == ["0", ""]


def test_values_are_in_no_repr() -> None:
    assert "hunter2" not in repr(plan(pod(container(env=[{"name": "A", "value": "hunter2"}]))))


@pytest.mark.parametrize(("policy", "word"), [("Always", "always"), ("OnFailure", "on-failure"), ("Never", "no")])
def test_restart_in_systemds_words(policy: str, word: str) -> None:
    assert plan(pod(restart=policy)).machines[0].restart == word


@pytest.mark.parametrize(("asked", "grace_s"), [(0, 2), (1, 2), (5, 5), (None, 30)])
def test_sigterm_has_two_seconds_at_least(asked: int | None, grace_s: int) -> None:
    assert plan(pod(terminationGracePeriodSeconds=asked)).grace_s == grace_s
