"""vknix.core.fields: nothing in a Pod is silently ignored."""

from typing import Any

import msgspec
import pytest

from tests import podspec
from tests.unit.build import ROOT, container
from vknix.core import fields
from vknix.core import pod as pods
from vknix.core.fields import FIELDS, Verdict
from vknix.errors import Refused


def spec(own: dict[str, Any] | None = None, **of_pod: Any) -> dict[str, Any]:
    return {"containers": [container(**(own or {}))], **of_pod}


TYPICAL = spec(
    {
        "args": ["x"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "envFrom": [{"configMapRef": {"name": "c"}}],
        "ports": [{"containerPort": 80, "protocol": "TCP", "hostPort": 0}],
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"ephemeral-storage": 5}},
        "volumeMounts": [{"name": "t", "mountPath": "/t", "readOnly": True, "recursiveReadOnly": "Disabled"}],
        "imagePullPolicy": "Always",
        "terminationMessagePath": "/dev/termination-log",
        "securityContext": {
            "runAsUser": 1,
            "privileged": False,
            "procMount": "Default",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "stdin": False,
        "livenessProbe": None,
    },
    nodeName="n",
    tolerations=[{"operator": "Exists"}],
    dnsPolicy="ClusterFirst",
    securityContext={},
    hostUsers=True,
    runtimeClassName="",
    volumes=[
        {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}], "defaultMode": 420}},
        {"name": "e", "emptyDir": {"medium": "", "sizeLimit": None}},
    ],
    initContainers=[],
)


def test_what_the_api_server_defaults_is_accepted() -> None:
    fields.check(TYPICAL)


def test_ports_of_the_host() -> None:
    port = {"containerPort": 80, "hostPort": 80}
    fields.check(spec({"ports": [port, {**port, "protocol": "UDP", "hostIP": "192.0.2.1"}]}))
    fields.check(spec({"ports": [{**port, "protocol": "SCTP", "hostIP": "fd00::1"}]}, hostNetwork=True))


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        (spec({"ports": [{"hostPort": 80, "protocol": "SCTP"}]}), "spec.containers[0].ports[0].protocol"),
        (spec({"ports": [{"hostPort": 80, "hostIP": "fd00::1"}]}), "spec.containers[0].ports[0].hostIP"),
        (spec(hostNetwork=True, hostUsers=False), "spec.hostUsers"),
        (spec(securityContext={"appArmorProfile": {"type": "Unconfined"}}), "spec.securityContext.appArmorProfile"),
        (spec(initContainers=[container(volumeDevices=[{"name": "v"}])]), "spec.initContainers[0].volumeDevices"),
        (spec(initContainers=[container(image="nginx")]), "spec.initContainers[0].image"),
        (spec(fromTheFuture={"on": True}), "spec.fromTheFuture.on"),
        (spec(fromTheFuture=False), "spec.fromTheFuture"),
        (spec(fromTheFuture=0), "spec.fromTheFuture"),
        (spec(volumes=[{"name": "h", "csi": {"driver": "d"}}]), "spec.volumes[0].csi"),
        (spec(volumes=[{"name": "h", "image": {"reference": "kitten"}}]), "spec.volumes[0].image.reference"),
        (spec({"volumeMounts": [{"mountPropagation": "Bidirectional"}]}), "spec.containers[0].volumeMounts[0].mountPropagation"),
        (spec(volumes=[{"name": "h", "emptyDir": {"medium": "HugePages"}}]), "spec.volumes[0].emptyDir.medium"),
        (spec(volumes=[{"name": "h", "emptyDir": {"other": 1}}]), "spec.volumes[0].emptyDir.other"),
        (spec({"ports": [{"containerPort": 1}, {"hostPort": 80, "hostIP": "x"}]}), "spec.containers[0].ports[1].hostIP"),
        (spec({"env": [{"valueFrom": {"fileKeyRef": {"mode": "a"}}}]}), "spec.containers[0].env[0].valueFrom.fileKeyRef.mode"),
        (spec({"volumeDevices": [{"name": "v"}]}), "spec.containers[0].volumeDevices"),
        (spec({"lifecycle": {"preStop": {"tcpSocket": {"port": 1}}}}), "spec.containers[0].lifecycle.preStop.tcpSocket"),
        (spec({"image": "nginx"}), "spec.containers[0].image"),
        (spec({"image": None}), "spec.containers[0].image"),
        (spec({"resources": {"limits": {"nvidia.com/gpu": 1}}}), "spec.containers[0].resources.limits.nvidia.com/gpu"),
        (spec({"resources": {"requests": {"cpu": "much"}}}), "spec.containers[0].resources.requests.cpu"),
        (spec({"resources": {"requests": {"cpu": "1e999999999"}}}), "spec.containers[0].resources.requests.cpu"),
    ],
)
def test_what_cant_be_had_is_refused_by_its_path(asked: dict[str, Any], path: str) -> None:
    with pytest.raises(Refused) as refused:
        fields.check(asked)
    assert refused.value.field == path
    assert refused.value.remedy


def test_each_refusal_names_a_remedy() -> None:
    assert [path for path, rule in FIELDS.items() if rule.verdict is Verdict.REFUSED and not (rule.why and rule.remedy)] == []


def struct_paths(of: type[msgspec.Struct], at: str) -> set[str]:
    """The leaves of what pod.py decodes, in the table's words."""
    found = set()
    for each in msgspec.structs.fields(of):
        for inner in _structs(each.type):
            kind, listed = inner
            path = f"{at}.{each.encode_name}" + ("[]" if listed else "")
            found |= struct_paths(kind, path) if kind is not None else {path}
    return found


def _structs(of: Any) -> list[tuple[type[msgspec.Struct] | None, bool]]:
    inner = msgspec.inspect.type_info(of)
    options = inner.types if isinstance(inner, msgspec.inspect.UnionType) else (inner,)
    for option in options:
        if isinstance(option, msgspec.inspect.StructType):
            return [(option.cls, False)]
        if isinstance(option, msgspec.inspect.ListType) and isinstance(option.item_type, msgspec.inspect.StructType):
            return [(option.item_type.cls, True)]
    return [(None, False)]


READ = struct_paths(pods.PodSpec, "spec")
LEAVES = set(podspec.recorded())
# One type for two places: a Secret is called secretName in a volume and name in a projection, whose modes are the volume's.
_OF_THE_OTHER_PLACE = {
    "spec.volumes[].secret.name",
    "spec.volumes[].projected.sources[].secret.secretName",
    *(f"spec.volumes[].projected.sources[].{kind}.defaultMode" for kind in ("configMap", "secret", "downwardAPI")),
}


def test_what_is_read_of_a_pod_is_a_field_of_the_api() -> None:
    made_up = {path for path in READ if not any(leaf == path or leaf.startswith(f"{path}.") for leaf in LEAVES)}
    assert made_up == _OF_THE_OTHER_PLACE


# Honoured by what everything here is anyway.
_NEED_NOT_BE_READ = {
    "spec.os.name",  # linux
    "spec.serviceAccount",  # the old name of serviceAccountName: the API server keeps both alike
    *(path for path in FIELDS if path.endswith(".fieldRef.apiVersion")),  # v1
    *(path for path in FIELDS if path.endswith(".ports[].protocol")),  # a port is told, not opened
    *(path for path in FIELDS if ".seLinux" in path),  # labels that nothing here has
}


def test_what_is_honoured_is_read() -> None:
    honoured = {path for path, rule in FIELDS.items() if rule.verdict is Verdict.HONOURED}
    assert honoured - READ - _NEED_NOT_BE_READ == set()


def test_all_refusals_are_told_by_judge() -> None:
    asked = spec(
        {"volumeDevices": [{"name": "v"}], "resources": {"claims": [{"name": "c"}]}, "image": ROOT},
        resourceClaims=[{"name": "gpu"}],
    )
    assert {refusal.field for refusal in fields.judge(asked)} == {
        "spec.containers[0].volumeDevices",
        "spec.containers[0].resources.claims",
        "spec.resourceClaims",
    }


def test_labels_of_selinux_are_taken_where_nothing_enforces_any() -> None:
    options = {"seLinuxOptions": {"level": "s0:c0,c1", "user": "u", "role": "r", "type": "t"}}
    asked = spec({"image": ROOT, "securityContext": options}, securityContext={**options, "seLinuxChangePolicy": "Recursive"})
    assert [*fields.judge(asked)] == []
