"""A small API server over real HTTP on loopback: list, watch, get, create, patch, replace and delete of any kind; faults on demand.

It knows no schema. What it does as the real one does: resourceVersions, UIDs as preconditions, bookmarks, 410 for versions that it
has compacted, graceful deletion of Pods, status as a subresource, metav1.Status for errors. `requests` is all that was asked.
"""

import asyncio
import itertools
import json
import pathlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from vknix.kube.auth import load
from vknix.kube.client import Client

Object = dict[str, Any]
HISTORY = 1000
MERGE_KEYS = {"conditions": "type", "taints": "key", "containerStatuses": None, "addresses": "type"}


class Refusal(Exception):
    def __init__(self, code: int, reason: str, message: str, field_path: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.causes = [{"field": field_path}] if field_path else []


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass
class Fault:
    """What to do to the next `times` requests that `matches`: an answer of `status` and `body`, `close` or `silence`; or the true
    answer, once `held` is set."""

    matches: Callable[[Request], bool]
    times: int = 1
    status: int = 0
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False
    silence: bool = False
    held: asyncio.Event | None = None


@dataclass(frozen=True)
class Path:
    """`/api/v1/namespaces/shop/pods/web/status`, taken apart. `kind` has the group in front: `coordination.k8s.io/leases`."""

    kind: str
    namespace: str
    name: str
    subresource: str

    @classmethod
    def parse(cls, path: str) -> "Path":
        words = path.strip("/").split("/")
        group, words = ("", words[2:]) if words[0] == "api" else (words[1], words[3:])
        namespace = ""
        if words[0] == "namespaces" and len(words) > 2:
            namespace, words = words[1], words[2:]
        resource, name, subresource = (*words, "", "")[:3]
        return cls(f"{group}/{resource}" if group else resource, namespace, name, subresource)


class Cluster:
    """Use as `async with cluster() as c`. `objects` is keyed (kind, namespace, name)."""

    def __init__(self) -> None:
        self.url = ""
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.token = "fake-token"  # what TokenRequest and TokenReview answer with
        self._versions = itertools.count(100)
        self._version = 100
        self._compacted = 0
        self._history: list[tuple[int, str, str, Object]] = []
        self._changed = asyncio.Event()
        self._kick = 0

    # What a test does to the cluster

    def put(self, kind: str, obj: Object) -> Object:
        """Creates or replaces an object, as somebody else would."""
        metadata = obj.setdefault("metadata", {})
        key = (kind, metadata.get("namespace", ""), metadata["name"])
        old = self.objects.get(key)
        metadata.setdefault("uid", old["metadata"]["uid"] if old else str(uuid.uuid4()))
        return self._store("MODIFIED" if old else "ADDED", key, obj)

    def remove(self, kind: str, namespace: str, name: str) -> None:
        key = (kind, namespace, name)
        self._store("DELETED", key, self.objects[key])
        del self.objects[key]

    def get(self, kind: str, namespace: str, name: str) -> Object:
        return self.objects[kind, namespace, name]

    def compact(self) -> None:
        """Forgets what was: watches of older versions get 410."""
        self._compacted = self._version
        self._history.clear()

    def end_watches(self) -> None:
        self._kick += 1
        self._wake()

    def bookmark(self, kind: str) -> None:
        """Sends a bookmark to each watch of `kind`."""
        self._version = next(self._versions)
        bookmark = {"kind": "Bookmark", "metadata": {"resourceVersion": str(self._version)}}
        self._append("BOOKMARK", kind, bookmark)

    def asked(self, method: str, part: str = "") -> list[Request]:
        return [request for request in self.requests if request.method == method and part in request.path]

    def kubeconfig(self, folder: pathlib.Path, token: str = "me") -> pathlib.Path:
        """Writes one that leads here."""
        names = {"clusters": {"cluster": {"server": self.url}}, "users": {"user": {"token": token}}}
        contexts = [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}]
        lists = {key: [{"name": "fake", **value}] for key, value in names.items()}
        path = folder / "kubeconfig"
        head = {"apiVersion": "v1", "kind": "Config", "current-context": "fake", "contexts": contexts}
        path.write_text(json.dumps({**head, **lists}))
        return path

    # HTTP

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        seen = Request(
            request.method, request.rel_url.raw_path, dict(request.query), dict(request.headers), json.loads(raw) if raw else None
        )
        self.requests.append(seen)
        fault = next((fault for fault in self.faults if fault.times > 0 and fault.matches(seen)), None)
        if fault is not None:
            fault.times -= 1
            if fault.held is None:
                return await self._fail(fault, request)
            await fault.held.wait()
        try:
            path = Path.parse(request.path)
            if seen.query.get("watch") == "true":
                return await self._watch(request, path, seen.query)
            return web.json_response(self._answer(seen, path), status=201 if seen.method == "POST" else 200)
        except Refusal as refusal:
            status: Object = {"kind": "Status", "code": refusal.code, "reason": refusal.reason, "message": str(refusal)}
            status["details"] = {"causes": refusal.causes}
            return web.json_response(status, status=refusal.code)

    async def _fail(self, fault: Fault, request: web.Request) -> web.StreamResponse:
        if fault.silence:
            await asyncio.Event().wait()
        if fault.close:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=fault.status or 200, body=fault.body, headers=fault.headers)

    def _answer(self, request: Request, path: Path) -> Object:
        if not path.name:
            return self._list(path, request.query) if request.method == "GET" else self._create(path, request.body)
        if path.subresource == "token":
            expires = {"token": self.token, "expirationTimestamp": "2100-01-01T00:00:00Z"}
            return {**request.body, "status": expires}
        key = (path.kind, path.namespace, path.name)
        if key not in self.objects:
            raise Refusal(404, "NotFound", f'{path.kind} "{path.name}" not found')
        old = self.objects[key]
        match request.method:
            case "GET":
                return old
            case "PATCH":
                return self._replace(key, path, merge(old, request.body), request.body)
            case "PUT":
                return self._replace(
                    key, path, {**request.body, "metadata": {**old["metadata"], **request.body["metadata"]}}, request.body
                )
            case "DELETE":
                return self._delete(key, request.body or {})
        raise Refusal(405, "MethodNotAllowed", request.method)

    def _create(self, path: Path, obj: Object) -> Object:
        if path.kind == "authentication.k8s.io/tokenreviews":
            known = obj["spec"]["token"] == self.token
            return {**obj, "status": {"authenticated": known, "user": {"username": "somebody"} if known else {}}}
        if path.kind == "authorization.k8s.io/subjectaccessreviews":
            return {**obj, "status": {"allowed": True}}
        metadata = obj.setdefault("metadata", {})
        if "name" not in metadata:
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        if path.namespace:
            metadata["namespace"] = path.namespace
        if (path.kind, path.namespace, metadata["name"]) in self.objects:
            raise Refusal(409, "AlreadyExists", f'{path.kind} "{metadata["name"]}" already exists')
        return self.put(path.kind, obj)

    def _replace(self, key: tuple[str, str, str], path: Path, new: Object, sent: Object) -> Object:
        old = self.objects[key]
        metadata = sent.get("metadata", {})
        if metadata.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            raise Refusal(422, "Invalid", "metadata.uid: field is immutable", "metadata.uid")
        if metadata.get("resourceVersion", old["metadata"]["resourceVersion"]) != old["metadata"]["resourceVersion"]:
            raise Refusal(409, "Conflict", f"resourceVersion is {old['metadata']['resourceVersion']}")
        if path.subresource == "status":
            new["spec"] = old.get("spec", {})
        elif path.kind in {"pods", "nodes"}:
            new["status"] = old.get("status", {})
        return self._store("MODIFIED", key, new)

    def _delete(self, key: tuple[str, str, str], options: Object) -> Object:
        """A Pod on a node goes in two steps, as in a real cluster: the node's agent confirms with a grace of 0."""
        old = self.objects[key]
        uid = options.get("preconditions", {}).get("uid")
        if uid and uid != old["metadata"]["uid"]:
            raise Refusal(409, "Conflict", f"uid is {old['metadata']['uid']}, not {uid}")
        grace = options.get("gracePeriodSeconds", old.get("spec", {}).get("terminationGracePeriodSeconds", 30))
        if key[0] == "pods" and grace and old.get("spec", {}).get("nodeName"):
            marks = {"deletionTimestamp": "2100-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}
            return self._store("MODIFIED", key, {**old, "metadata": {**old["metadata"], **marks}})
        self.remove(*key)
        return old

    def _list(self, path: Path, query: Mapping[str, str]) -> Object:
        found = [obj for key, obj in self.objects.items() if selected(path, query, key[0], obj)]
        start, limit = int(query.get("continue", "0")), int(query.get("limit", "0")) or len(found)
        more = {"continue": str(start + limit)} if start + limit < len(found) else {}
        metadata = {"resourceVersion": str(self._version), **more}
        return {"kind": "List", "metadata": metadata, "items": found[start : start + limit] or None}

    async def _watch(self, request: web.Request, path: Path, query: Mapping[str, str]) -> web.StreamResponse:
        at, kick = int(query["resourceVersion"]), self._kick
        if at < self._compacted:
            raise Refusal(410, "Expired", f"too old resource version: {at} ({self._compacted})")
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        while kick == self._kick:
            changed = self._changed
            for version, type_, kind, obj in [entry for entry in self._history if entry[0] > at]:
                at = version
                if (type_ == "BOOKMARK" and kind == path.kind) or selected(path, query, kind, obj):
                    await response.write(json.dumps({"type": type_, "object": obj}).encode() + b"\n")
            if changed is self._changed:
                await changed.wait()
        return response

    def _store(self, type_: str, key: tuple[str, str, str], obj: Object) -> Object:
        self._version = next(self._versions)
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
        self.objects[key] = obj
        self._append(type_, key[0], obj)
        return obj

    def _append(self, type_: str, kind: str, obj: Object) -> None:
        self._history = [*self._history[-HISTORY:], (self._version, type_, kind, obj)]
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def selected(path: Path, query: Mapping[str, str], kind: str, obj: Object) -> bool:
    """By kind, namespace and field selector; `spec.nodeName` and `metadata.name` are what is asked for."""
    if kind != path.kind or (path.namespace and obj["metadata"].get("namespace") != path.namespace):
        return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        where, _, wanted = term.partition("=")
        value: Any = obj
        for word in where.split("."):
            value = value.get(word, {})
        if value != wanted:
            return False
    return True


def merge(old: Any, patch: Any, field_name: str = "") -> Any:
    """A strategic merge, good enough for status: lists with a merge key by that, others replaced, null removes."""
    if isinstance(patch, dict) and isinstance(old, dict):
        merged = {**old, **{key: merge(old.get(key), value, key) for key, value in patch.items()}}
        return {key: value for key, value in merged.items() if value is not None and not key.startswith("$")}
    by = MERGE_KEYS.get(field_name)
    if by and isinstance(patch, list) and isinstance(old, list):
        rest = {item[by]: item for item in old}
        for item in patch:
            if item.get("$patch") == "delete":
                rest.pop(item[by], None)
            else:
                rest[item[by]] = merge(rest.get(item[by], {}), item)
        return list(rest.values())
    return patch


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    fake = Cluster()
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        fake.url = f"http://{host}:{port}"
        yield fake
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connected(folder: pathlib.Path) -> AsyncIterator[tuple[Cluster, Client]]:
    """A cluster, and vknix's own client of it."""
    async with cluster() as fake, Client(await load(fake.kubeconfig(folder))) as client:
        yield fake, client


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for happens behind sockets
            await asyncio.sleep(0.005)
