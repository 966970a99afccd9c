"""The calls that vknix makes, each a named function on a Client. JSON documents as mappings in, bytes as they came out.

What is called here, and no more, is in manifests/rbac.yaml: a test holds the two together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from vknix.errors import Conflict, NotFound
from vknix.kube.client import STRATEGIC_MERGE, ApiError, Client

Json = Mapping[str, object]
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Collection:
    """What `watch.follow` takes: a path and what to select there."""

    path: str
    query: Mapping[str, str]


def pods_of_node(node: str) -> Collection:
    """A node's identity may see the Pods that are bound to it and no others, hence the selector."""
    return Collection("/api/v1/pods", {"fieldSelector": f"spec.nodeName={node}"})


def node_itself(node: str) -> Collection:
    return Collection("/api/v1/nodes", {"fieldSelector": f"metadata.name={node}"})


def all_services() -> Collection:
    return Collection("/api/v1/services", {})


def config_map_itself(namespace: str, name: str) -> Collection:
    """A node's identity may watch what its Pods name, each by its name."""
    return Collection(_core(namespace, "configmaps"), {"fieldSelector": f"metadata.name={name}"})


def secret_itself(namespace: str, name: str) -> Collection:
    return Collection(_core(namespace, "secrets"), {"fieldSelector": f"metadata.name={name}"})


# Pods


async def patch_pod_status(client: Client, namespace: str, name: str, uid: str, patch: Json) -> bytes:
    """Merges `patch` (`{"status": ...}`, annotations too) into the Pod of that UID. Conflict where the name has a new UID."""
    metadata = {**_mapping(patch.get("metadata")), "uid": uid}
    body = _encode({**patch, "metadata": metadata})
    path = f"{_core(namespace, 'pods', name)}/status"
    try:
        return await client.request("PATCH", path, body=body, content_type=STRATEGIC_MERGE)
    except ApiError as error:
        if "metadata.uid" in error.fields:  # the API server's words for another UID: "field is immutable"
            raise Conflict(str(error)) from error
        raise


async def delete_pod(client: Client, namespace: str, name: str, uid: str) -> bool:
    """The last step of a deletion. False where that Pod is not there any more, which is as good."""
    body = _encode({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}})
    try:
        await client.request("DELETE", _core(namespace, "pods", name), body=body)
    except (NotFound, Conflict):
        return False
    return True


# What Pods refer to


async def get_config_map(client: Client, namespace: str, name: str) -> bytes:
    return await client.request("GET", _core(namespace, "configmaps", name))


async def get_secret(client: Client, namespace: str, name: str) -> bytes:
    return await client.request("GET", _core(namespace, "secrets", name))


async def get_claim(client: Client, namespace: str, name: str) -> bytes:
    return await client.request("GET", _core(namespace, "persistentvolumeclaims", name))


async def get_volume(client: Client, name: str) -> bytes:
    return await client.request("GET", f"/api/v1/persistentvolumes/{_segment(name)}")


async def get_service(client: Client, namespace: str, name: str) -> bytes:
    """A node's identity may list Services and get none, so this is a list of one. NotFound where it is empty."""
    listed = await client.request("GET", _core(namespace, "services"), query={"fieldSelector": f"metadata.name={name}"})
    items = msgspec.json.decode(listed, type=_Items).items
    if not items:
        raise NotFound(f"there is no Service {namespace}/{name}")
    return bytes(items[0])


async def get_runtime_class(client: Client, name: str) -> bytes:
    return await client.request("GET", f"/apis/node.k8s.io/v1/runtimeclasses/{_segment(name)}")


async def list_service_cidrs(client: Client) -> tuple[str, ...]:
    """NotFound before Kubernetes 1.33; Forbidden for a node's identity."""
    listed = await client.request("GET", "/apis/networking.k8s.io/v1/servicecidrs")
    return tuple(cidr for item in msgspec.json.decode(listed, type=_ServiceCidrs).items or () for cidr in item.spec.cidrs)


@dataclass(frozen=True, slots=True)
class Token:
    """`expires` is RFC 3339, as the API server says it: it may grant more or less than was asked for."""

    token: str
    expires: str

    def __repr__(self) -> str:
        return f"Token(expires={self.expires!r})"  # the token itself must not get into a log


async def create_token(
    client: Client,
    namespace: str,
    service_account: str,
    *,
    pod: str,
    pod_uid: str,
    audiences: Sequence[str],
    expiration_s: int,
) -> Token:
    """A ServiceAccount token that is good while that Pod exists. No audiences: the API server's own."""
    spec = {
        "audiences": list(audiences),
        "expirationSeconds": expiration_s,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": pod_uid},
    }
    body = _encode({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
    answer = await client.request("POST", f"{_core(namespace, 'serviceaccounts', service_account)}/token", body=body)
    status = msgspec.json.decode(answer, type=_TokenRequest).status
    return Token(status.token, status.expirationTimestamp)


# Events


async def create_event(client: Client, namespace: str, event: Json) -> bytes:
    return await client.request("POST", _core(namespace, "events"), body=_encode(event))


async def patch_event(client: Client, namespace: str, name: str, patch: Json) -> bytes:
    path = _core(namespace, "events", name)
    return await client.request("PATCH", path, body=_encode(patch), content_type=STRATEGIC_MERGE)


# The node


async def create_node(client: Client, node: Json) -> bytes:
    """Conflict where it is there already."""
    return await client.request("POST", "/api/v1/nodes", body=_encode(node))


async def get_node(client: Client, name: str) -> bytes:
    return await client.request("GET", _node(name))


async def patch_node(client: Client, name: str, patch: Json) -> bytes:
    return await client.request("PATCH", _node(name), body=_encode(patch), content_type=STRATEGIC_MERGE)


async def patch_node_status(client: Client, name: str, patch: Json) -> bytes:
    path = f"{_node(name)}/status"
    return await client.request("PATCH", path, body=_encode(patch), content_type=STRATEGIC_MERGE)


async def get_lease(client: Client, name: str, *, timeout_s: float) -> bytes:
    return await client.request("GET", _lease(name), timeout_s=timeout_s)


async def create_lease(client: Client, lease: Json, *, timeout_s: float) -> bytes:
    """Conflict where it is there already."""
    return await client.request("POST", _lease(), body=_encode(lease), timeout_s=timeout_s)


async def update_lease(client: Client, name: str, lease: Json, *, timeout_s: float) -> bytes:
    """Conflict where its `metadata.resourceVersion` is not the newest."""
    return await client.request("PUT", _lease(name), body=_encode(lease), timeout_s=timeout_s)


# Who may call the kubelet API, and its certificate


async def review_token(client: Client, token: str, audiences: Sequence[str] = ()) -> bytes:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": audiences}}
    return await client.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=_encode(body))


async def review_access(client: Client, spec: Json) -> bytes:
    """`spec` is a SubjectAccessReviewSpec: user, groups, resourceAttributes."""
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return await client.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=_encode(body))


async def create_csr(client: Client, csr: Json) -> bytes:
    return await client.request("POST", _CSRS, body=_encode(csr))


async def get_csr(client: Client, name: str) -> bytes:
    return await client.request("GET", f"{_CSRS}/{_segment(name)}")


_CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


class _Items(msgspec.Struct):
    items: list[msgspec.Raw] | None = None


class _TokenStatus(msgspec.Struct):
    token: str
    expirationTimestamp: str  # noqa: N815 - the API's word


class _TokenRequest(msgspec.Struct):
    status: _TokenStatus


class _ServiceCidrSpec(msgspec.Struct):
    cidrs: tuple[str, ...] = ()


class _ServiceCidr(msgspec.Struct):
    spec: _ServiceCidrSpec


class _ServiceCidrs(msgspec.Struct):
    items: tuple[_ServiceCidr, ...] | None = None  # Go writes an empty list as null


def _segment(name: str) -> str:
    return quote(name, safe="")


def _core(namespace: str, kind: str, name: str = "") -> str:
    path = f"/api/v1/namespaces/{_segment(namespace)}/{kind}"
    return f"{path}/{_segment(name)}" if name else path


def _node(name: str) -> str:
    return f"/api/v1/nodes/{_segment(name)}"


def _lease(name: str = "") -> str:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    return f"{path}/{_segment(name)}" if name else path


def _mapping(value: object) -> Mapping[str, object]:
    assert value is None or isinstance(value, Mapping)
    return value or {}
