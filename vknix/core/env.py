"""The environment of a container: Services, envFrom, env, the downward API, $(VAR).

Rules: kubelet_pods.go (makeEnvironmentVariables), third_party/forked/golang/expansion, pkg/fieldpath.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from vknix.core import env_files, resources
from vknix.core.container import Container, EnvVar, FieldSelector, KeySelector, ObjectRef
from vknix.core.fetched import Fetched, Kind, ObjectKey, Service, Surroundings
from vknix.core.pod import Pod
from vknix.errors import Refused


def environment(pod: Pod, path: str, container: Container, fetched: Fetched, around: Surroundings) -> dict[str, str]:
    """In order, later wins: Services, envFrom, env. Names and values as the kubelet makes them."""
    services = dict(service_links(pod, fetched.services))
    env = dict(services)
    for index, source in enumerate(container.env_from or ()):
        refs: tuple[tuple[Kind, ObjectRef | None], ...] = (("ConfigMap", source.config_map_ref), ("Secret", source.secret_ref))
        for kind, ref in refs:
            if ref is not None:
                data = _object(fetched, ObjectKey(kind, ref.name), bool(ref.optional), pod.namespace, f"{path}.envFrom[{index}]")
                env.update((f"{source.prefix or ''}{key}", value.decode(errors="replace")) for key, value in data.items())
    for index, var in enumerate(container.env or ()):
        value = _value(pod, f"{path}.env[{index}]", container, var, env, fetched, around)
        if value is not None:
            env[var.name] = value
    return env


def _value(
    pod: Pod, path: str, container: Container, var: EnvVar, env: Mapping[str, str], fetched: Fetched, around: Surroundings
) -> str | None:
    source = var.value_from
    if source is None:
        return expand(var.value or "", env)
    refs: tuple[tuple[Kind, KeySelector | None], ...] = (
        ("ConfigMap", source.config_map_key_ref),
        ("Secret", source.secret_key_ref),
    )
    for kind, ref in refs:
        if ref is not None:
            data = _object(fetched, ObjectKey(kind, ref.name), bool(ref.optional), pod.namespace, path)
            if ref.key in data:
                return data[ref.key].decode(errors="replace")
            if ref.optional:
                return None
            raise _config_error(path, f"couldn't find key {ref.key} in {kind} {pod.namespace}/{ref.name}", "add the key")
    if source.field_ref is not None:
        return field_value(pod, source.field_ref, around, f"{path}.valueFrom.fieldRef.fieldPath")
    if source.file_key_ref is not None:
        return env_files.value(f"{path}.valueFrom.fileKeyRef", source.file_key_ref, fetched.files)
    if source.resource_field_ref is not None:
        return resources.value(pod, container, source.resource_field_ref, around, path)
    return ""


def _object(fetched: Fetched, key: ObjectKey, optional: bool, namespace: str, path: str) -> Mapping[str, bytes]:
    data = fetched.objects.get(key)
    if data is None and not optional:
        raise _config_error(path, f'{key.kind.lower()} "{key.name}" not found', f"create it in namespace {namespace}")
    return data if data is not None else {}


def _config_error(path: str, why: str, remedy: str) -> Refused:
    return Refused(path, why, remedy=remedy, reason="CreateContainerConfigError")


_KEYED = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")


def field_value(pod: Pod, selector: FieldSelector, around: Surroundings, path: str) -> str:
    """The downward API's fields; Refused where there is no such field."""
    simple = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": str(pod.uid),
        "metadata.labels": _listed(pod.metadata.labels),
        "metadata.annotations": _listed(pod.metadata.annotations),
        "spec.nodeName": around.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name or "",
        "status.hostIP": next(iter(around.host_ips), ""),
        "status.hostIPs": ",".join(around.host_ips),
        "status.podIP": next(iter(around.pod_ips), ""),
        "status.podIPs": ",".join(around.pod_ips),
    }
    if selector.field_path in simple:
        return simple[selector.field_path]
    keyed = _KEYED.fullmatch(selector.field_path)
    if keyed is None:
        raise _config_error(path, f"{selector.field_path!r} is no field of the downward API", "use one of " + ", ".join(simple))
    of = pod.metadata.labels if keyed[1] == "labels" else pod.metadata.annotations
    return (of or {}).get(keyed[2], "")


def _listed(of: Mapping[str, str] | None) -> str:
    """Labels or annotations as a downward API file shows them (fieldpath.FormatMap)."""
    return "\n".join(f'{key}="{_quoted(value)}"' for key, value in sorted((of or {}).items()))


def _quoted(value: str) -> str:
    """Go's %q without its quotation marks."""
    plain = {
        "\\": "\\\\",
        '"': '\\"',
        "\n": "\\n",
        "\t": "\\t",
        "\r": "\\r",
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\v": "\\v",
    }
    return "".join(plain.get(char) or (char if char.isprintable() else _escaped(ord(char))) for char in value)


def _escaped(code: int) -> str:
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_VARIABLE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, env: Mapping[str, str]) -> str:
    """$(NAME) -> its value, $$ -> $; a name that is not known stays as it is written."""
    return _VARIABLE.sub(lambda match: "$" if match[1] is None else env.get(match[1], match[0]), text)


def service_links(pod: Pod, services: Iterable[Service]) -> Iterator[tuple[str, str]]:
    """Docker's link variables: of default/kubernetes always, of the Pod's namespace where enableServiceLinks is not off.

    Those of the Pod's own namespace come last: a Service named kubernetes there wins.
    """
    linked = pod.spec.enable_service_links is not False
    for service in sorted(services, key=lambda service: service.namespace == pod.namespace):
        if (linked and service.namespace == pod.namespace) or (service.namespace, service.name) == ("default", "kubernetes"):
            yield from _links(service)


def _links(service: Service) -> Iterator[tuple[str, str]]:
    if not service.ports:
        return
    name = service.name.upper().replace("-", "_")
    host = f"[{service.cluster_ip}]" if ":" in service.cluster_ip else service.cluster_ip
    first = service.ports[0]
    yield f"{name}_SERVICE_HOST", service.cluster_ip
    yield f"{name}_SERVICE_PORT", str(first.port)
    for port in service.ports:
        if port.name:
            yield f"{name}_SERVICE_PORT_{port.name.upper().replace('-', '_')}", str(port.port)
    yield f"{name}_PORT", f"{first.protocol.lower()}://{host}:{first.port}"
    for port in service.ports:
        prefix = f"{name}_PORT_{port.port}_{port.protocol.upper()}"
        yield prefix, f"{port.protocol.lower()}://{host}:{port.port}"
        yield f"{prefix}_PROTO", port.protocol.lower()
        yield f"{prefix}_PORT", str(port.port)
        yield f"{prefix}_ADDR", service.cluster_ip
