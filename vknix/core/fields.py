"""Which fields of a Pod's spec are honoured, left to others, or refused. A field that is not in the table is refused.

The walk goes down a Pod's JSON until the table has a verdict for the path; list items read `[]`. A verdict covers all below it.
What holds on the handlers unit and nixos in its place is in core/handler_fields.py, and part of the table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from vknix.core import image, quantity
from vknix.core.handler_fields import INSTEAD, check_paths
from vknix.core.handlers import DEFAULT, Handler
from vknix.core.rule import ELSEWHERE as _ELSEWHERE
from vknix.core.rule import OTHER_NODE as _OTHER_NODE
from vknix.core.rule import YES as _YES
from vknix.core.rule import Rule as Rule
from vknix.core.rule import Verdict as Verdict
from vknix.core.rule import no as _no
from vknix.errors import Refused

_PROBE: Mapping[str, Rule] = dict.fromkeys(
    (
        "exec",
        "httpGet",
        "tcpSocket",
        "grpc",
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
        "terminationGracePeriodSeconds",
    ),
    _YES,
)

_CONTAINER: Mapping[str, Rule] = {
    "name": _YES,
    "image": _YES,
    "imagePullPolicy": Rule(Verdict.HONOURED, "a store path never changes: Always means IfNotPresent"),
    "command": _YES,
    "args": _YES,
    "workingDir": _YES,
    "env[].name": _YES,
    "env[].value": _YES,
    "env[].valueFrom.configMapKeyRef": _YES,
    "env[].valueFrom.secretKeyRef": _YES,
    "env[].valueFrom.fieldRef": _YES,
    "env[].valueFrom.resourceFieldRef": _YES,
    "env[].valueFrom.fileKeyRef": _no("env from a file is not supported yet", "read the file in the program"),
    "envFrom": _YES,
    "ports[].name": _YES,
    "ports[].containerPort": _YES,
    "ports[].protocol": _YES,
    "ports[].hostPort": _no("host ports are not supported yet", "use the Pod IP", 0),
    "ports[].hostIP": _no("host ports are not supported yet", "use the Pod IP", ""),
    "resources.limits": _YES,
    "resources.requests": _YES,
    "resources.claims": _no("devices by claim are not supported"),
    "resizePolicy": _no("in-place resize is not supported yet", "leave resizePolicy out"),
    "restartPolicy": _no("a restart policy of one container is not supported yet", "use the Pod's restartPolicy"),
    "restartPolicyRules": _no("restart rules are not supported yet", "use the Pod's restartPolicy"),
    "volumeMounts[].name": _YES,
    "volumeMounts[].mountPath": _YES,
    "volumeMounts[].readOnly": _YES,
    "volumeMounts[].recursiveReadOnly": _no("not supported yet", "use readOnly", "Disabled"),
    "volumeMounts[].mountPropagation": _no("mount propagation is not supported yet", "leave it out", "None"),
    "volumeMounts[].subPath": _no("subPath is not supported yet", "mount the whole volume", ""),
    "volumeMounts[].subPathExpr": _no("subPathExpr is not supported yet", "mount the whole volume", ""),
    "volumeDevices": _no("block devices are not supported"),
    **{f"{kind}Probe.{path}": rule for kind in ("startup", "liveness", "readiness") for path, rule in _PROBE.items()},
    "lifecycle": _no("lifecycle hooks are not supported yet", "do it in the program"),
    "terminationMessagePath": _YES,
    "terminationMessagePolicy": _YES,
    "stdin": _no("an open standard input is not supported yet", "use kubectl exec -i", False),
    "stdinOnce": _no("an open standard input is not supported yet", "use kubectl exec -i", False),
    "tty": _no("a terminal for the main process is not supported yet", "use kubectl exec -it", False),
    "securityContext.runAsUser": _YES,
    "securityContext.runAsGroup": _YES,
    "securityContext.runAsNonRoot": _YES,
    "securityContext.capabilities": _YES,
    "securityContext.allowPrivilegeEscalation": _YES,
    "securityContext.readOnlyRootFilesystem": _YES,
    "securityContext.privileged": _no("privileged containers are not supported yet", "add the capabilities it needs", False),
    "securityContext.procMount": _no("not supported yet", "leave it out", "Default"),
    "securityContext.seccompProfile.type": _YES,
    "securityContext.seccompProfile.localhostProfile": _no("own seccomp profiles are not supported", "use RuntimeDefault"),
    "securityContext.seLinuxOptions": _no("NixOS has no SELinux", "leave it out"),
    "securityContext.appArmorProfile": _no("AppArmor is not supported", "leave it out"),
    "securityContext.windowsOptions": _no("this is a Linux node"),
}

_POD: Mapping[str, Rule] = {
    **dict.fromkeys(
        (
            "nodeName",
            "nodeSelector",
            "affinity",
            "tolerations",
            "topologySpreadConstraints",
            "schedulerName",
            "schedulingGates",
            "priority",
            "priorityClassName",
            "preemptionPolicy",
            "automountServiceAccountToken",
            "overhead",
        ),
        _ELSEWHERE,
    ),
    "imagePullSecrets": Rule(Verdict.ELSEWHERE, "closures come from the host's own substituters: no registry, no secret"),
    "serviceAccountName": _YES,
    "serviceAccount": _YES,
    "restartPolicy": _YES,
    "terminationGracePeriodSeconds": _YES,
    "dnsPolicy": _YES,
    "dnsConfig": _YES,
    "hostAliases": _YES,
    "hostname": _YES,
    "subdomain": _YES,
    "enableServiceLinks": _YES,
    "readinessGates": _YES,
    "os.name": _YES,
    "securityContext.runAsUser": _YES,
    "securityContext.runAsGroup": _YES,
    "securityContext.runAsNonRoot": _YES,
    "securityContext.supplementalGroups": _YES,
    "securityContext.supplementalGroupsPolicy": _no(
        "a closure has no /etc/group: there is nothing to leave out", "use Merge", "Merge"
    ),
    "securityContext.seccompProfile.type": _YES,
    "securityContext.seccompProfile.localhostProfile": _no("own seccomp profiles are not supported", "use RuntimeDefault"),
    "securityContext.fsGroup": _no("fsGroup is not supported yet", "run as the user that owns the files"),
    "securityContext.fsGroupChangePolicy": _no("fsGroup is not supported yet", "leave it out"),
    "securityContext.sysctls": _no("sysctls are not supported yet", "leave them out"),
    "securityContext.seLinuxOptions": _no("NixOS has no SELinux", "leave it out"),
    "securityContext.seLinuxChangePolicy": _no("NixOS has no SELinux", "leave it out"),
    "securityContext.appArmorProfile": _no("AppArmor is not supported", "leave it out"),
    "securityContext.windowsOptions": _no("this is a Linux node"),
    "ephemeralContainers": _no("ephemeral containers are not supported yet", "use kubectl exec"),
    "activeDeadlineSeconds": _no("a deadline is not supported yet", "end the program in time"),
    "hostNetwork": _no("the host's network is not supported yet", "use the Pod IP", False),
    "hostPID": _no("the host's processes are not shown to Pods yet", "leave it out", False),
    "hostIPC": _no("the host's IPC is not shared with Pods yet", "leave it out", False),
    "hostUsers": _no("user namespaces are not supported yet", "leave it out", True),
    "shareProcessNamespace": _no("a shared process namespace is not supported yet", "leave it out", False),
    "setHostnameAsFQDN": _no("not supported yet", "set hostname", False),
    "hostnameOverride": _no("not supported yet", "set hostname"),
    "runtimeClassName": _no("runtime classes are not supported yet", "leave it out", ""),
    "resourceClaims": _no("devices by claim are not supported"),
    "resources": _no("resources of the whole Pod are not supported yet", "set them on its containers"),
    "volumes[].name": _YES,
    "volumes[].emptyDir.medium": _no("only the default medium is supported yet", "leave medium out", ""),
    "volumes[].emptyDir.sizeLimit": _no("a size limit of a volume is not supported yet", "leave sizeLimit out"),
    "volumes[].emptyDir": _YES,
    "volumes[].hostPath": _no("host paths are not supported yet", "use an emptyDir"),
    "volumes[].image": _no("image volumes are not supported yet", "put the path into the closure"),
    "volumes[].persistentVolumeClaim": _no("persistent volumes are not supported yet"),
    "volumes[].nfs": _no("NFS volumes are not supported yet"),
    "volumes[].configMap": _YES,
    "volumes[].secret": _YES,
    "volumes[].downwardAPI": _YES,
    "volumes[].projected.defaultMode": _YES,
    "volumes[].projected.sources[].configMap": _YES,
    "volumes[].projected.sources[].secret": _YES,
    "volumes[].projected.sources[].downwardAPI": _YES,
    "volumes[].projected.sources[].serviceAccountToken": _YES,
    **{f"containers[].{path}": rule for path, rule in _CONTAINER.items()},
    **{f"initContainers[].{path}": rule for path, rule in _CONTAINER.items()},
    "initContainers[].restartPolicy": _no("only Always, which makes a sidecar, is supported yet", "leave it out", "Always"),
}

FIELDS: Mapping[str, Rule] = {
    f"spec.{path}": replace(rule, instead=INSTEAD.get(path, {})) if path in INSTEAD else rule for path, rule in _POD.items()
}
_INNER = frozenset(path[:end] for path in FIELDS for end in range(len(path)) if path[end] in ".[" and path[:end] != "spec")


def judge(value: Any, handler: Handler = DEFAULT, pattern: str = "spec", path: str = "spec") -> Iterator[Refused]:
    """What a Pod's spec (as JSON) asks for and does not get on that handler, each with its path."""
    rule = FIELDS[pattern].on(handler) if pattern in FIELDS else None
    if rule is not None and not (pattern in _INNER and value and rule.verdict is not Verdict.REFUSED):
        if rule.verdict is Verdict.REFUSED and not _harmless(value, rule):
            yield Refused(path, rule.why, remedy=rule.remedy)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from judge(inner, handler, f"{pattern}.{key}", f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from judge(inner, handler, f"{pattern}[]", f"{path}[{index}]")
    elif value is not None:
        yield Refused(path, "this version of vknix does not know the field", remedy="leave it out, or " + _OTHER_NODE)


def _harmless(value: Any, rule: Rule) -> bool:
    return value is None or value in ([], {}) or any(value == allowed and type(value) is type(allowed) for allowed in rule.harmless)


def check(spec: dict[str, Any], handler: Handler = DEFAULT) -> None:
    """Raises Refused for the first thing that can't be had: a field, an unreadable image or a bad quantity."""
    for refusal in (*judge(spec, handler), *check_paths(spec, handler)):
        raise refusal
    each = [
        (f"spec.{kind}[{index}]", container)
        for kind in ("initContainers", "containers")
        for index, container in enumerate(spec.get(kind) or ())
    ]
    for path, container in each:
        image.parse(container.get("image") or "", f"{path}.image")
        for kind in ("limits", "requests"):
            for name, amount in ((container.get("resources") or {}).get(kind) or {}).items():
                _check_amount(f"{path}.resources.{kind}.{name}", name, amount)


_RESOURCES = ("cpu", "memory", "ephemeral-storage")


def _check_amount(path: str, name: str, amount: str | int | float) -> None:
    if name not in _RESOURCES:
        raise Refused(path, "this node has no such resource", remedy="ask for " + ", ".join(_RESOURCES) + " only")
    try:
        quantity.parse(amount)
    except ValueError as error:
        raise Refused(path, str(error), remedy="write a Kubernetes quantity") from error
