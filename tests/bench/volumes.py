"""Volumes of random Pods, of each kind that vknix takes, and how they are mounted."""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from tests.bench.making import Making

Json = dict[str, Any]

CONFIG_MAP = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "map"}, "data": {"one": "first", "two": "x" * 20000}}
SECRET = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "hidden"}, "stringData": {"word": "marker", ".dot": "y"}}
NAMESPACE = "soak"
LOCAL = "/var/tmp/soak-local"
OWN = "claim-own"  # the volume of which a controller makes the claim
_CLAIM = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": {"storage": "1Mi"}}}


def _persistent(name: str, claim: str, whose: str, **where: Any) -> Json:
    of = {"accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Mi"}, "persistentVolumeReclaimPolicy": "Retain", **where}
    spec = {**of, "storageClassName": "", "claimRef": {"namespace": NAMESPACE, "name": claim}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "labels": {NAMESPACE: whose}}, "spec": spec}


def _made(path: str) -> Json:
    return {"hostPath": {"path": path, "type": "DirectoryOrCreate"}}


def objects(node: str, host: str) -> list[Json]:
    """What is there for all Pods. `host`: the one host of the node that has the local volume, LOCAL."""
    named = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node, host]}
    affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [named]}]}}
    there = {"local": {"local": {"path": LOCAL}, "nodeAffinity": affinity}, "path": _made("/var/tmp/soak-path")}
    made = [_persistent(f"{NAMESPACE}-{name}", name, "all", **where) for name, where in there.items()]
    common = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    claims = [{**common, "metadata": {"name": name}, "spec": {**_CLAIM, "volumeName": f"{NAMESPACE}-{name}"}} for name in there]
    return [CONFIG_MAP, SECRET, *made, *claims]


def beside(making: Making) -> tuple[Json, ...]:
    """The persistent volume of its own claim, if it has one."""
    where = _made("/var/tmp/soak-own")
    return (_persistent(making.name, f"{making.name}-{OWN}", "one", **where),) if OWN in making.volumes else ()


_LABELS = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
_CPU = {"path": "cpu", "resourceFieldRef": {"containerName": "c0", "resource": "limits.cpu"}}
_TOKEN = {"serviceAccountToken": {"path": "token", "audience": "soak", "expirationSeconds": 600}}
_PROJECTED = [
    {"configMap": {"name": "map", "items": [{"key": "one", "path": "a/b/one", "mode": 0o444}]}},
    {"secret": {"name": "hidden"}},
    {"downwardAPI": {"items": [_LABELS]}},
    _TOKEN,
    {"configMap": {"name": "absent", "optional": True}},
]
KINDS: Mapping[str, Json] = {
    "room": {"emptyDir": {}},
    "fast": {"emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
    "map": {"configMap": {"name": "map", "defaultMode": 0o640}},
    "hidden": {"secret": {"secretName": "hidden", "items": [{"key": "word", "path": "deep/er/word", "mode": 0o400}]}},
    "about": {"downwardAPI": {"items": [_LABELS, _CPU]}},
    "together": {"projected": {"sources": _PROJECTED, "defaultMode": 0o400}},
    "perhaps": {"configMap": {"name": "absent", "optional": True}},
    "hosts-own": {"hostPath": {"path": "/etc"}},
    "hosts-made": {"hostPath": {"path": "/var/tmp/soak", "type": "DirectoryOrCreate"}},
    "closure": {"image": {"reference": "", "pullPolicy": "IfNotPresent"}},
    "claim-local": {"persistentVolumeClaim": {"claimName": "local"}},
    "claim-path": {"persistentVolumeClaim": {"claimName": "path"}},
    OWN: {"ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
}
# What can be taken of a volume by subPath: one that is there, or (of an emptyDir) that is made.
_SUB_PATHS: Mapping[str, Json] = {
    "room": {"subPath": "some/folder"},
    "fast": {"subPathExpr": "of-$(POD_NAME)"},
    "map": {"subPath": "one"},
    "hidden": {"subPath": "deep/er"},
    "together": {"subPath": "a/b"},
    "closure": {"subPath": "bin"},
    "hosts-own": {"subPath": "hostname"},
}
_READ_ONLY = ("map", "hidden", "about", "together", "perhaps", "hosts-own")


def some(making: Making, of: Json) -> None:
    """Mounts of one to four volumes, which the Pod has then."""
    for kind in making.draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=4, unique=True)):
        making.volumes[kind] = _volume(making, kind)
        mount: Json = {"name": kind, "mountPath": f"{making.root}/v/{kind}"}
        if kind in _SUB_PATHS and making.handler == "nspawn" and making.draw(st.integers(0, 2)) == 0:
            mount |= _SUB_PATHS[kind]
            if "subPathExpr" in mount:
                name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
                env = of.setdefault("env", [])
                env[:] = [name, *(each for each in env if each["name"] != "POD_NAME")]
        if kind in _READ_ONLY or making.draw(st.booleans()):
            mount["readOnly"] = True
            if making.handler == "nspawn" and making.draw(st.integers(0, 3)) == 0:
                mount["recursiveReadOnly"] = "IfPossible"
        elif making.handler == "nspawn" and making.draw(st.integers(0, 3)) == 0:
            mount["mountPropagation"] = "HostToContainer"
        of.setdefault("volumeMounts", []).append(mount)


def _volume(making: Making, kind: str) -> Json:
    if kind == "closure":
        return {"image": {"reference": making.images["agnhost"]}}
    if kind == OWN:
        return {"ephemeral": {"volumeClaimTemplate": {"spec": {**_CLAIM, "volumeName": making.name}}}}
    return KINDS[kind]
