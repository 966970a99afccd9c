"""vknix.kube.client, auth and api: what is sent, what is tried again, and which error comes out."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from tests.fakes.cluster import Fault, cluster, connected
from vknix import __version__
from vknix.errors import ConfigError, Conflict, Expired, Forbidden, NotFound, Unreachable, VknixError
from vknix.kube import api
from vknix.kube.auth import load
from vknix.kube.client import ApiError, Client, error_of

PATH = "/api/v1/namespaces/shop/pods/web"
STATUS = b'{"kind":"Status","message":"because","reason":"Some"}'


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Forbidden),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, Expired),
        (422, ApiError),
        (400, ApiError),
        (302, ApiError),
        (429, Unreachable),
        (500, Unreachable),
        (503, Unreachable),
    ],
)
def test_a_status_has_one_error(status: int, kind: type[VknixError]) -> None:
    error = error_of(status, STATUS, "GET /x")
    assert type(error) is kind
    assert "GET /x: because" in str(error)


def test_a_page_of_a_proxy_is_not_quoted() -> None:
    assert str(error_of(502, b"<html>bad gateway</html>", "GET /x")) == "GET /x: HTTP 502"


async def test_says_who_it_is(tmp_path: Path) -> None:
    async with connected(tmp_path) as (fake, client):
        with pytest.raises(NotFound, match='pods "web" not found'):
            await client.request("GET", PATH)
        headers = fake.requests[0].headers
        assert headers["User-Agent"] == f"vknix/{__version__}"
        assert headers["Authorization"] == "Bearer me"


@pytest.mark.parametrize(
    ("method", "fault", "tries"),
    [
        ("GET", Fault(lambda _: True, times=99, status=503), 4),
        ("GET", Fault(lambda _: True, times=99, close=True), 4),
        ("PATCH", Fault(lambda _: True, times=99, status=500), 4),
        ("DELETE", Fault(lambda _: True, times=99, status=502), 4),
        ("POST", Fault(lambda _: True, times=99, status=503), 1),
        ("POST", Fault(lambda _: True, times=99, close=True), 1),
        ("POST", Fault(lambda _: True, times=99, status=429), 4),
    ],
    ids=["get-503", "get-closed", "patch-500", "delete-502", "post-503", "post-closed", "post-429"],
)
async def test_tries_again_what_may_be_repeated(tmp_path: Path, method: str, fault: Fault, tries: int) -> None:
    async with connected(tmp_path) as (fake, client):
        fake.faults.append(fault)
        with pytest.raises(Unreachable):
            await client.request(method, PATH, body=None if method == "GET" else b"{}")
        # aiohttp itself repeats a request once where a kept connection turns out closed
        assert tries <= len(fake.asked(method)) <= tries + (fault.close and method != "POST") * tries


async def test_waits_as_long_as_the_server_asks(tmp_path: Path) -> None:
    async with connected(tmp_path) as (fake, client):
        fake.put("pods", {"metadata": {"name": "web", "namespace": "shop"}})
        fake.faults.append(Fault(lambda _: True, status=429, headers={"Retry-After": "1"}))
        started = time.monotonic()
        assert json.loads(await client.request("GET", PATH))["metadata"]["name"] == "web"
        assert time.monotonic() - started >= 1


async def test_a_server_that_says_nothing_is_unreachable_in_time(tmp_path: Path) -> None:
    async with connected(tmp_path) as (fake, client):
        fake.faults.append(Fault(lambda _: True, silence=True))
        with pytest.raises(Unreachable, match="no answer"):
            await client.request("GET", PATH, timeout_s=0.2)


async def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    async with cluster() as fake:
        credentials = await load(fake.kubeconfig(tmp_path))
    async with Client(credentials) as client:
        with pytest.raises(Unreachable, match=PATH):
            await client.request("GET", PATH)


async def test_a_refused_token_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    async with cluster() as fake:
        config = json.loads(fake.kubeconfig(tmp_path).read_text())
        config["users"][0]["user"] = {"tokenFile": str(token)}
        (tmp_path / "with-file").write_text(json.dumps(config))
        credentials = await load(tmp_path / "with-file")
        credentials._renewed -= 30  # the last renewal was a while ago
        fake.put("pods", {"metadata": {"name": "web", "namespace": "shop"}})
        fake.faults.append(Fault(lambda request: request.headers["Authorization"] == "Bearer old", times=99, status=401))
        async with Client(credentials) as client:
            token.write_text("new")
            await client.request("GET", PATH)
        assert [request.headers["Authorization"] for request in fake.requests] == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize(
    "text", ["", "{", "users: []", "current-context: x\ncontexts: []"], ids=["empty", "no-yaml", "bare", "dangling"]
)
async def test_a_bad_kubeconfig_is_the_operators_to_mend(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad").write_text(text)
    with pytest.raises(ConfigError, match=r"cluster\.kubeconfig: no cluster credentials from"):
        await load(tmp_path / "bad")


@pytest.mark.parametrize("path", [Path("/nonexistent/kubeconfig"), None], ids=["no-file", "not-in-a-cluster"])
async def test_missing_credentials_are_the_operators_to_mend(path: Path | None) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.kubeconfig"):
        await load(path)


async def test_names_are_quoted_into_paths(tmp_path: Path) -> None:
    async with connected(tmp_path) as (fake, client):
        with pytest.raises(NotFound):
            await api.get_secret(client, "shop", "../../x?y=z#%2F")
        assert fake.requests[0].path == "/api/v1/namespaces/shop/secrets/..%2F..%2Fx%3Fy%3Dz%23%252F"
        assert fake.requests[0].query == {}


async def test_a_status_patch_names_the_uid_and_keeps_foreign_conditions(tmp_path: Path) -> None:
    async with connected(tmp_path) as (fake, client):
        uid = fake.put(
            "pods",
            {"metadata": {"name": "web", "namespace": "shop"}, "status": {"conditions": [{"type": "Gate", "status": "True"}]}},
        )["metadata"]["uid"]
        patch = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}, "metadata": {"annotations": {"a": "b"}}}
        await api.patch_pod_status(client, "shop", "web", uid, patch)
        seen = fake.get("pods", "shop", "web")
        assert [condition["type"] for condition in seen["status"]["conditions"]] == ["Gate", "Ready"]
        assert seen["metadata"]["annotations"] == {"a": "b"}
        with pytest.raises(Conflict):
            await api.patch_pod_status(client, "shop", "web", "another", patch)


async def test_the_last_delete_never_hits_a_successor_of_the_same_name(tmp_path: Path) -> None:
    async with connected(tmp_path) as (fake, client):
        uid = fake.put("pods", {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"nodeName": "n1"}})["metadata"]["uid"]
        assert not await api.delete_pod(client, "shop", "web", "another")
        assert ("pods", "shop", "web") in fake.objects
        assert await api.delete_pod(client, "shop", "web", uid)
        assert not await api.delete_pod(client, "shop", "web", uid)


async def test_a_token_is_bound_to_its_pod_and_does_not_show(tmp_path: Path) -> None:
    async with connected(tmp_path) as (fake, client):
        token = await api.create_token(client, "shop", "default", pod="web", pod_uid="u1", audiences=(), expiration_s=3607)
        assert token.token == fake.token
        assert fake.token not in f"{token}{token!r}"
        spec = fake.requests[0].body["spec"]
        assert spec["boundObjectRef"] == {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u1"}
        assert spec["expirationSeconds"] == 3607


async def test_a_service_is_found_by_a_list_since_nodes_may_not_get(tmp_path: Path) -> None:
    async with connected(tmp_path) as (fake, client):
        fake.put("services", {"metadata": {"name": "kube-dns", "namespace": "kube-system"}, "spec": {"clusterIP": "10.96.0.10"}})
        found = json.loads(await api.get_service(client, "kube-system", "kube-dns"))
        assert found["spec"]["clusterIP"] == "10.96.0.10"
        with pytest.raises(NotFound, match="kube-system/none"):
            await api.get_service(client, "kube-system", "none")


async def test_cancelling_a_call_ends_it(tmp_path: Path) -> None:
    async with connected(tmp_path) as (fake, client):
        fake.faults.append(Fault(lambda _: True, silence=True))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.request("GET", PATH)
