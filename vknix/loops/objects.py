"""What Pods refer to, fetched: ConfigMaps, Secrets and tokens when a Pod is made; Services by one watch, since links need all."""

import asyncio
import base64
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from datetime import datetime

import msgspec

from vknix.core import claims
from vknix.core.claims import Claim
from vknix.core.facts import Uid
from vknix.core.fetched import Fetched, ObjectKey, Service, ServicePort, Token, TokenKey
from vknix.core.inputs import needs
from vknix.core.pod import Pod
from vknix.errors import Forbidden, NotFound, Refused
from vknix.kube import api, watch
from vknix.kube.client import Client
from vknix.loops.following import ABSENT, Following, Ref, version
from vknix.loops.together import all_of, both

_SYNC_S = 10.0


class _Meta(msgspec.Struct):
    name: str
    namespace: str = ""


class _Port(msgspec.Struct):
    port: int
    name: str | None = None
    protocol: str = "TCP"


class _Spec(msgspec.Struct):
    clusterIP: str | None = None  # noqa: N815  # the API's word
    ports: list[_Port] | None = None


class _Service(msgspec.Struct):
    metadata: _Meta
    spec: _Spec


class _Data(msgspec.Struct):
    data: dict[str, str] | None = None
    binaryData: dict[str, str] | None = None  # noqa: N815  # the API's word


class Objects:
    """`run` follows the Services, and what running Pods refer to; `fetch` waits until the Services are known.

    `changed`: the Pods that were made from what is not so any more. Who takes one out of it reads again.
    """

    def __init__(self, client: Client) -> None:
        self.changed: set[Uid] = set()
        self.wake: Callable[[Uid], object] = self.changed.add
        self._client = client
        self._following: Following | None = None
        self._services: dict[tuple[str, str], Service] = {}
        self._known = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._following = Following(self._client, tasks, self._tell)
            await self._follow_services()

    def _tell(self, uid: Uid) -> None:
        self.changed.add(uid)
        self.wake(uid)

    def follow(self, pod: Pod) -> None:
        """From now on the Pod is woken when something changes that it refers to."""
        if self._following is not None:
            self._following.follow(pod.uid, pod.namespace, needs(pod).objects)

    def forget(self, uid: Uid) -> None:
        self.changed.discard(uid)
        if self._following is not None:
            self._following.forget(uid)

    async def _follow_services(self) -> None:
        of = api.all_services()
        async with aclosing(watch.follow(self._client, of.path, query=of.query, decode=_service)) as events:
            async for event in events:
                match event:
                    case watch.Listed(items):
                        self._services = {key: service for key, service in items if service is not None}
                        self._known.set()
                    case watch.Gone((key, _)):
                        self._services.pop(key, None)
                    case watch.Changed((key, service)):
                        self._services.pop(key, None)
                        if service is not None:
                            self._services[key] = service
                    case watch.Lost():
                        pass  # links made meanwhile are of what was known

    @property
    def cluster_dns(self) -> tuple[str, ...]:
        """The address of Service kube-system/kube-dns, where there is one."""
        found = self._services.get(("kube-system", "kube-dns"))
        return (found.cluster_ip,) if found is not None else ()

    async def fetch(self, pod: Pod) -> Fetched:
        """All that the Pod needs, at once. Unreachable where the API server does not answer."""
        async with asyncio.timeout(_SYNC_S):
            await self._known.wait()
        wanted = needs(pod)
        (objects, tokens), found = await both(
            both(
                all_of({key: self._object(pod.namespace, key) for key in wanted.objects}),
                all_of({key: self._token(pod, key) for key in wanted.tokens}),
            ),
            self.claims(pod),
        )
        services = tuple(
            service
            for service in self._services.values()
            if service.namespace == pod.namespace or (service.namespace, service.name) == ("default", "kubernetes")
        )
        return Fetched(objects, tokens, services, found)

    async def claims(self, pod: Pod) -> dict[str, Claim | None]:
        """The claims that the Pod mounts, with their volumes; None: there is no such claim."""
        return await all_of({name: self._claim(pod.namespace, name) for name in claims.names(pod)})

    async def _claim(self, namespace: str, name: str) -> Claim | None:
        try:
            found = msgspec.json.decode(await api.get_claim(self._client, namespace, name), type=claims.ClaimObject)
        except (NotFound, Forbidden):
            return None
        volume = None
        if found.spec.volume_name:
            with suppress(NotFound, Forbidden):
                volume = await api.get_volume(self._client, found.spec.volume_name)
        return claims.claim(name, found, volume)

    async def _object(self, namespace: str, key: ObjectKey) -> Mapping[str, bytes] | None:
        """None where it is not there. The Node authoriser says Forbidden of what it does not know (yet)."""
        get = api.get_config_map if key.kind == "ConfigMap" else api.get_secret
        try:
            raw = await get(self._client, namespace, key.name)
        except (NotFound, Forbidden):
            self._read((namespace, key), ABSENT)
            return None
        found = msgspec.json.decode(raw, type=_Data)
        self._read((namespace, key), version(raw))
        if key.kind == "Secret":
            return {name: base64.b64decode(value) for name, value in (found.data or {}).items()}
        text = {name: value.encode() for name, value in (found.data or {}).items()}
        return text | {name: base64.b64decode(value) for name, value in (found.binaryData or {}).items()}

    def _read(self, ref: Ref, of: str) -> None:
        if self._following is not None:
            self._following.read(ref, of)

    async def _token(self, pod: Pod, key: TokenKey) -> Token:
        """Refused (FailedMount) where the ServiceAccount, or by now the Pod, is not there, or its namespace is going."""
        issued = time.time()
        account = pod.spec.service_account_name or "default"
        try:
            made = await api.create_token(
                self._client,
                pod.namespace,
                account,
                pod=pod.name,
                pod_uid=pod.uid,
                audiences=[key.audience] if key.audience else [],
                expiration_s=key.expiration_s,
            )
        except (NotFound, Forbidden) as error:
            why = f"failed to fetch token: {error}"
            raise Refused("spec.volumes", why, remedy=f"create ServiceAccount {account}", reason="FailedMount") from error
        return Token(made.token, issued, datetime.fromisoformat(made.expires).timestamp())


def _service(raw: bytes) -> tuple[tuple[str, str], Service | None]:
    """None: it has no address of its own (headless, ExternalName)."""
    of = msgspec.json.decode(raw, type=_Service)
    key = (of.metadata.namespace, of.metadata.name)
    if not of.spec.clusterIP or of.spec.clusterIP == "None":
        return key, None
    ports = tuple(ServicePort(port.name or "", port.port, port.protocol) for port in of.spec.ports or ())
    return key, Service(of.metadata.namespace, of.metadata.name, of.spec.clusterIP, ports)
