"""Which fields of a Pod's spec are honoured, left to others, or refused. A field that is not in the table is refused.

The walk goes down a Pod's JSON until the table has a verdict for the path; list items read `[]`. A verdict covers all below it,
so what is honoured is said of each leaf: a field that a later Kubernetes adds beside it is refused, not ignored.
What holds on the handlers unit and nixos in its place is in core/handler_fields.py, and part of the table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from vknix.core import host_network, host_ports, quantity
from vknix.core.handler_fields import INSTEAD, check_paths
from vknix.core.handlers import DEFAULT, Handler
from vknix.core.image import NONE as NO_ALIASES
from vknix.core.image import Aliases
from vknix.core.resources import HUGE
from vknix.core.rule import ELSEWHERE as _ELSEWHERE
from vknix.core.rule import OTHER_NODE as _OTHER_NODE
from vknix.core.rule import YES as _YES
from vknix.core.rule import Rule as Rule
from vknix.core.rule import Verdict as Verdict
from vknix.core.rule import no as _no
from vknix.errors import Refused

# As on every kubelet whose kernel enforces no labels.
_LABELS = Rule(Verdict.HONOURED, "NixOS has no SELinux: nothing has a label, and nothing is kept from what has another")
_TOGETHER = Rule(Verdict.HONOURED, "with RestartAllContainers all containers are restarted by vknix, not while vknix is away")
_BY_VKNIX = Rule(Verdict.HONOURED, "such a container is restarted by vknix, not while vknix is away")


def _each(within: str, names: str, rule: Rule = _YES) -> dict[str, Rule]:
    """One rule for several fields of the same parent."""
    return {f"{within}.{name}": rule for name in names.split()}


_FIELD = _each("fieldRef", "apiVersion fieldPath")
_RESOURCE = _each("resourceFieldRef", "containerName divisor resource")
_KEY = "key name optional"
_FILE = "items[].key items[].mode items[].path optional"
_DOWNWARD = {f"items[].{path}": rule for path, rule in {"path": _YES, "mode": _YES, **_FIELD, **_RESOURCE}.items()}

_HTTP_GET = _each("httpGet", "host httpHeaders[].name httpHeaders[].value path port scheme")
_HOOK: Mapping[str, Rule] = {
    "exec.command": _YES,
    **_HTTP_GET,
    "sleep.seconds": _YES,
    "tcpSocket": _no("no kubelet has ever carried out such a hook", "use exec, httpGet or sleep"),
}

_PROBE: Mapping[str, Rule] = {
    **dict.fromkeys(
        (
            "exec.command",
            "tcpSocket.host",
            "tcpSocket.port",
            "grpc.port",
            "grpc.service",
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
            "terminationGracePeriodSeconds",
        ),
        _YES,
    ),
    **_HTTP_GET,
}

_CONTAINER: Mapping[str, Rule] = {
    "name": _YES,
    "image": _YES,
    "imagePullPolicy": Rule(Verdict.HONOURED, "a store path never changes: Always means IfNotPresent"),
    "command": _YES,
    "args": _YES,
    "workingDir": _YES,
    "env[].name": _YES,
    "env[].value": _YES,
    **_each("env[].valueFrom.configMapKeyRef", _KEY),
    **_each("env[].valueFrom.secretKeyRef", _KEY),
    **{f"env[].valueFrom.{path}": rule for path, rule in {**_FIELD, **_RESOURCE}.items()},
    **_each("env[].valueFrom.fileKeyRef", "key optional path volumeName", _BY_VKNIX),
    **_each("envFrom[]", "prefix configMapRef.name configMapRef.optional secretRef.name secretRef.optional"),
    "ports[].name": _YES,
    "ports[].containerPort": _YES,
    "ports[].protocol": _YES,
    "ports[].hostPort": Rule(Verdict.HONOURED, "of TCP and UDP, on the one host of the pool that the Pod is on: its hostIP"),
    "ports[].hostIP": Rule(Verdict.HONOURED, "IPv4; that of a host of the pool chooses that host"),
    "resources.limits": _YES,
    "resources.requests": _YES,
    "resources.claims": _no("devices by claim are not supported"),
    "resizePolicy[].resourceName": _YES,
    "resizePolicy[].restartPolicy": _YES,
    "restartPolicy": _YES,
    "restartPolicyRules[].action": _TOGETHER,
    **dict.fromkeys(("restartPolicyRules[].exitCodes.operator", "restartPolicyRules[].exitCodes.values"), _BY_VKNIX),
    "volumeMounts[].name": _YES,
    "volumeMounts[].mountPath": _YES,
    "volumeMounts[].readOnly": _YES,
    "volumeMounts[].recursiveReadOnly": _YES,
    "volumeMounts[].mountPropagation": _no(
        "a container's own mounts stay inside: systemd-nspawn shows none of them to the host",
        "use HostToContainer, or mount on the host",
        "None",
        "HostToContainer",
    ),
    "volumeMounts[].subPath": _YES,
    "volumeMounts[].subPathExpr": _YES,
    "volumeDevices": _no("block devices are not supported"),
    **{f"{kind}Probe.{path}": rule for kind in ("startup", "liveness", "readiness") for path, rule in _PROBE.items()},
    **{f"lifecycle.{hook}.{path}": rule for hook in ("postStart", "preStop") for path, rule in _HOOK.items()},
    "lifecycle.stopSignal": _YES,
    "terminationMessagePath": _YES,
    "terminationMessagePolicy": _YES,
    "stdin": _YES,
    "stdinOnce": _YES,
    "tty": _YES,
    "securityContext.runAsUser": _YES,
    "securityContext.runAsGroup": _YES,
    "securityContext.runAsNonRoot": _YES,
    **_each("securityContext.capabilities", "add drop"),
    "securityContext.allowPrivilegeEscalation": _YES,
    "securityContext.readOnlyRootFilesystem": _YES,
    "securityContext.privileged": _YES,
    "securityContext.procMount": _YES,
    "securityContext.seccompProfile.type": _YES,
    "securityContext.seccompProfile.localhostProfile": _no("own seccomp profiles are not supported", "use RuntimeDefault"),
    **dict.fromkeys((f"securityContext.seLinuxOptions.{name}" for name in ("level", "role", "type", "user")), _LABELS),
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
            "priorityClassName",
            "schedulingGroup",
            "preemptionPolicy",
            "automountServiceAccountToken",
        ),
        _ELSEWHERE,
    ),
    "priority": _YES,
    "imagePullSecrets": Rule(Verdict.ELSEWHERE, "closures come from the host's own substituters: no registry, no secret"),
    "serviceAccountName": _YES,
    "serviceAccount": _YES,
    "restartPolicy": _YES,
    "terminationGracePeriodSeconds": _YES,
    "dnsPolicy": _YES,
    **_each("dnsConfig", "nameservers searches options[].name options[].value"),
    **_each("hostAliases[]", "ip hostnames"),
    "hostname": _YES,
    "subdomain": _YES,
    "enableServiceLinks": _YES,
    "readinessGates[].conditionType": _YES,
    "os.name": _YES,
    "securityContext.runAsUser": _YES,
    "securityContext.runAsGroup": _YES,
    "securityContext.runAsNonRoot": _YES,
    "securityContext.supplementalGroups": _YES,
    "securityContext.supplementalGroupsPolicy": _YES,
    "securityContext.seccompProfile.type": _YES,
    "securityContext.seccompProfile.localhostProfile": _no("own seccomp profiles are not supported", "use RuntimeDefault"),
    "securityContext.fsGroup": _YES,
    "securityContext.fsGroupChangePolicy": _YES,
    **_each("securityContext.sysctls[]", "name value"),
    **dict.fromkeys((f"securityContext.seLinuxOptions.{name}" for name in ("level", "role", "type", "user")), _LABELS),
    "securityContext.seLinuxChangePolicy": _LABELS,
    "securityContext.appArmorProfile": _no("AppArmor is not supported", "leave it out"),
    "securityContext.windowsOptions": _no("this is a Linux node"),
    "activeDeadlineSeconds": _YES,
    "hostNetwork": _YES,
    "hostPID": _YES,
    "hostIPC": _YES,
    "hostUsers": _YES,
    "shareProcessNamespace": _YES,
    "setHostnameAsFQDN": _YES,
    "hostnameOverride": _YES,
    "runtimeClassName": _YES,
    "overhead": Rule(Verdict.HONOURED, "part of what the Pod requests, and of its limit where it has one"),
    "resourceClaims": _no("devices by claim are not supported"),
    "resources.limits": _YES,
    "resources.requests": _YES,
    "resources.claims": _no("devices by claim are not supported"),
    "volumes[].name": _YES,
    "volumes[].emptyDir.medium": _no("huge pages are not set up on the hosts", "use medium Memory", "", "Memory"),
    "volumes[].emptyDir.sizeLimit": _YES,
    **_each("volumes[].configMap", f"name defaultMode {_FILE}"),
    **_each("volumes[].secret", f"secretName defaultMode {_FILE}"),
    **{f"volumes[].downwardAPI.{path}": rule for path, rule in {"defaultMode": _YES, **_DOWNWARD}.items()},
    "volumes[].projected.defaultMode": _YES,
    **_each("volumes[].projected.sources[].configMap", f"name {_FILE}"),
    **_each("volumes[].projected.sources[].secret", f"name {_FILE}"),
    **{f"volumes[].projected.sources[].downwardAPI.{path}": rule for path, rule in _DOWNWARD.items()},
    **_each("volumes[].projected.sources[].serviceAccountToken", "audience expirationSeconds path"),
    "volumes[].projected.sources[].clusterTrustBundle": _no("trust bundles are not supported", "project a ConfigMap"),
    "volumes[].projected.sources[].podCertificate": _no("Pod certificates are not supported", "project a Secret"),
    **_each("volumes[].hostPath", "path type"),
    "volumes[].image.reference": _YES,
    "volumes[].image.pullPolicy": Rule(Verdict.HONOURED, "a store path never changes: Always means IfNotPresent"),
    **_each("volumes[].nfs", "server path readOnly"),
    **_each("volumes[].persistentVolumeClaim", "claimName readOnly"),
    "volumes[].ephemeral.volumeClaimTemplate": Rule(
        Verdict.ELSEWHERE, "a controller makes the claim, which is mounted as any other"
    ),
    "volumes[].csi": _no("there is no CSI driver on the hosts"),
    "volumes[].gitRepo": _no("Kubernetes has turned gitRepo off", "clone in an init container into an emptyDir"),
    **_each(
        "volumes[]",
        "awsElasticBlockStore azureDisk azureFile cephfs cinder fc flexVolume flocker gcePersistentDisk glusterfs iscsi"
        " photonPersistentDisk portworxVolume quobyte rbd scaleIO storageos vsphereVolume",
        _no("volumes of this kind are not supported"),
    ),
    **{f"containers[].{path}": rule for path, rule in _CONTAINER.items()},
    **{f"initContainers[].{path}": rule for path, rule in _CONTAINER.items()},
    **{f"ephemeralContainers[].{path}": rule for path, rule in _CONTAINER.items()},
    "ephemeralContainers[].targetContainerName": _YES,
}


def _instead(path: str) -> Mapping[Handler, Rule]:
    """What is said of a field's parent on a handler holds for the field."""
    ends = [end for end in range(len(path), 0, -1) if end == len(path) or path[end] in ".["]
    return next((INSTEAD[path[:end]] for end in ends if path[:end] in INSTEAD), {})


FIELDS: Mapping[str, Rule] = {f"spec.{path}": replace(rule, instead=_instead(path)) for path, rule in _POD.items()}
_INNER = frozenset(path[:end] for path in FIELDS for end in range(len(path)) if path[end] in ".[" and path[:end] != "spec")


def judge(value: Any, handler: Handler = DEFAULT, pattern: str = "spec", path: str = "spec") -> Iterator[Refused]:
    """What a Pod's spec (as JSON) asks for and does not get on that handler, each with its path."""
    rule = _rule(pattern, handler)
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


def _rule(pattern: str, handler: Handler) -> Rule | None:
    """The verdict on a field, or what a handler refuses as a whole."""
    if pattern in FIELDS:
        return FIELDS[pattern].on(handler)
    whole = INSTEAD.get(pattern.removeprefix("spec."), {}).get(handler)
    return whole if whole is not None and whole.verdict is Verdict.REFUSED else None


def _harmless(value: Any, rule: Rule) -> bool:
    return value is None or value in ([], {}) or any(value == allowed and type(value) is type(allowed) for allowed in rule.harmless)


def check(spec: dict[str, Any], handler: Handler = DEFAULT, aliases: Aliases = NO_ALIASES) -> None:
    """Raises Refused for the first thing that can't be had: a field, an unreadable image or a bad quantity."""
    for refusal in (*judge(spec, handler), *check_paths(spec, handler), *host_network.judge(spec), *host_ports.judge(spec)):
        raise refusal
    each = [
        (f"spec.{kind}[{index}]", container)
        for kind in ("initContainers", "containers", "ephemeralContainers")
        for index, container in enumerate(spec.get(kind) or ())
    ]
    for path, container in each:
        aliases.find(container.get("image") or "", f"{path}.image")
    for path, of in (("spec", spec), *each):
        for kind in ("limits", "requests"):
            for name, amount in ((of.get("resources") or {}).get(kind) or {}).items():
                _check_amount(f"{path}.resources.{kind}.{name}", name, amount)
    for index, volume in enumerate(spec.get("volumes") or ()):
        if (of := volume.get("image")) is not None:
            aliases.find(of.get("reference") or "", f"spec.volumes[{index}].image.reference")


_RESOURCES = ("cpu", "memory", "ephemeral-storage")


def _check_amount(path: str, name: str, amount: str | int | float) -> None:
    if name not in _RESOURCES and not name.startswith(HUGE):
        offered = (*_RESOURCES, f"{HUGE}2Mi")
        raise Refused(path, "this node has no such resource", remedy="ask for " + ", ".join(offered) + " only")
    try:
        quantity.parse(amount)
    except ValueError as error:
        raise Refused(path, str(error), remedy="write a Kubernetes quantity") from error
