"""manifests/: they parse, their configuration is one, and RBAC names exactly what is called."""

import inspect
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.cluster import Cluster, Request, connected
from tests.fakes.cluster import Path as ApiPath
from vknix import config
from vknix.kube import api
from vknix.kube.client import Client
from vknix.kube.watch import Listed, follow

MANIFESTS = Path(__file__).parents[2] / "manifests"
FILES = sorted(MANIFESTS.rglob("*.yaml"))

Right = tuple[str, str, str, str]  # namespace (empty: the cluster's), group, resource, verb


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def of_kind(file: str, kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents(MANIFESTS / file) if document["kind"] == kind]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_each_document_is_an_object(path: Path) -> None:
    for document in documents(path):
        assert {"apiVersion", "kind", "metadata"} <= set(document)
        assert document["metadata"]["name"]


def granted() -> Iterator[Right]:
    for kind, namespace in (("ClusterRole", ""), ("Role", "kube-node-lease")):
        for rule in of_kind("rbac.yaml", kind)["rules"]:
            assert set(rule) == {"apiGroups", "resources", "verbs"}
            for group in rule["apiGroups"]:
                yield from ((namespace, group, resource, verb) for resource in rule["resources"] for verb in rule["verbs"])


def right_of(request: Request) -> Right:
    path = ApiPath.parse(request.path)
    group, _, resource = path.kind.rpartition("/")
    if path.subresource:
        resource = f"{resource}/{path.subresource}"
    verbs = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    verb = verbs[request.method] if path.name or request.method != "GET" else "list"
    if request.query.get("watch") == "true":
        verb = "watch"
    return (path.namespace if group == "coordination.k8s.io" else "", group, resource, verb)


# For each parameter of a call in vknix.kube.api.
ARGUMENTS: dict[str, Any] = {
    "namespace": "shop",
    "name": "web",
    "uid": "u1",
    "service_account": "web",
    "pod": "web",
    "pod_uid": "u1",
    "audiences": (),
    "expiration_s": 3600,
    "timeout_s": 5.0,
    "token": "t",
    "node": "web",
    "lease": {"metadata": {"name": "new"}},
    "csr": {"metadata": {"generateName": "csr-"}},
}


def prepare(fake: Cluster) -> None:
    for kind, namespace in (
        ("pods", "shop"),
        ("configmaps", "shop"),
        ("secrets", "shop"),
        ("persistentvolumeclaims", "shop"),
        ("persistentvolumes", ""),
        ("services", "shop"),
        ("events", "shop"),
        ("nodes", ""),
        ("coordination.k8s.io/leases", "kube-node-lease"),
        ("certificates.k8s.io/certificatesigningrequests", ""),
        ("node.k8s.io/runtimeclasses", ""),
    ):
        fake.put(kind, {"metadata": {"name": "web", "uid": "u1", **({"namespace": namespace} if namespace else {})}})


async def call_everything(fake: Cluster, client: Client) -> None:
    for name, function in inspect.getmembers(api, inspect.isfunction):
        if function.__module__ != api.__name__ or name.startswith("_"):
            continue
        prepare(fake)
        parameters = [parameter for parameter in inspect.signature(function).parameters if parameter != "client"]
        arguments = {key: ARGUMENTS.get(key, {"metadata": {"name": "new"}}) for key in parameters}
        if name == "create_node":
            arguments["node"] = {"metadata": {"name": "new"}}
        if inspect.iscoroutinefunction(function):
            await function(client, **arguments)
        else:
            await watch_once(fake, client, function(**arguments))


async def watch_once(fake: Cluster, client: Client, collection: api.Collection) -> None:
    async with aclosing(follow(client, collection.path, query=collection.query, decode=bytes)) as events:
        assert isinstance(await anext(events), Listed)
        path = ApiPath.parse(collection.path)
        metadata = {"name": "web", **({"namespace": path.namespace} if path.namespace else {})}
        fake.put(path.kind, {"metadata": metadata, "spec": {"nodeName": "web"}})
        await anext(events)


async def test_rbac_names_exactly_what_is_called(tmp_path: Path) -> None:
    async with connected(tmp_path) as (fake, client):
        await call_everything(fake, client)
        assert {right_of(request) for request in fake.requests} == set(granted())


def test_no_right_is_granted_twice() -> None:
    rights = list(granted())
    assert len(rights) == len(set(rights))


def test_the_configuration_of_the_deployment_is_one(tmp_path: Path) -> None:
    text = of_kind("deployment.yaml", "ConfigMap")["data"]["vknix.yaml"]
    for name in ("ssh-key", "client-ca.crt"):
        (tmp_path / name).write_text("x")
    parsed = config.parse(text.replace("/etc/vknix-secret", str(tmp_path)), tmp_path)
    assert str(parsed.nodes[0].address) == of_kind("deployment.yaml", "Service")["spec"]["clusterIP"]


def test_the_deployment_never_runs_two() -> None:
    spec = of_kind("deployment.yaml", "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize("name", ["pod.yaml", "deployment.yaml"])
def test_samples_go_to_the_node_and_name_a_closure(name: str) -> None:
    document = documents(MANIFESTS / "samples" / name)[0]
    pod = document["spec"] if document["kind"] == "Pod" else document["spec"]["template"]["spec"]
    taint = config.DEFAULT_TAINT
    assert pod["tolerations"][0] == {"key": taint.key, "operator": "Equal", "value": taint.value, "effect": taint.effect}
    assert pod["containers"][0]["image"].startswith("nix:0/nix/store/")
