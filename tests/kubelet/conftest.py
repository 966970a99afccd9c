"""A kubelet API on loopback with real TLS, one Pod, and programs in place of containers."""

import ssl
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import aiohttp
import pytest

from tests.kubelet.pki import Authority
from tests.kubelet.programs import Programs
from tests.kubelet.world import Keys, Kubelet, facts, pod, views
from vknix.core.facts import ContainerFacts, State
from vknix.kube.certificates import server_context
from vknix.kubelet.auth import Attributes, Guard, User
from vknix.kubelet.server import KubeletServer, Settings
from vknix.kubelet.target import Target

LOUD = ("asyncio", "aiohttp", "vknix.kubelet.http")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder: Path = tmp_path_factory.mktemp("pki")
    authority = Authority(folder, "lab-ca")
    return Keys(authority, authority.sign("node"), authority.sign("apiserver", ("system:masters",)))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """asyncio and aiohttp tell only the log of an exception in a callback or a handler."""
    yield
    loud = [record.getMessage() for record in caplog.get_records("call") if record.name.startswith(LOUD)]
    assert loud == []


@pytest.fixture
async def kubelet(keys: Keys) -> AsyncIterator[Kubelet]:
    provider = Programs()
    targets = {
        ("ns", "p"): Target(
            pod("c", "stopped"),
            facts(ContainerFacts("c", State.RUNNING, 0), ContainerFacts("stopped", State.STOPPED, 0)),
        )
    }

    async def review_token(token: str) -> User | None:
        return User("metrics-server") if token == "good" else None

    async def authorize(user: User, asked: Attributes) -> bool:
        made.asked.append(user)
        return made.allowed is None or (asked.verb, asked.subresource) in made.allowed

    made: Kubelet

    guard = Guard(review_token, authorize, clock=count(step=1000).__next__)  # remembers nothing
    tls = server_context(keys.authority.certificate)
    tls.load_cert_chain(keys.server.certificate, keys.server.key)
    server = KubeletServer(
        Settings("127.0.0.1", 0, tls),
        guard=guard,
        lookup=lambda namespace, name: targets.get((namespace, name)),
        backend=provider,
        views=views(lambda: made.stalled),
    )
    anonymous = ssl.create_default_context(cafile=str(keys.authority.certificate))
    client = ssl.create_default_context(cafile=str(keys.authority.certificate))
    client.load_cert_chain(keys.api_server.certificate, keys.api_server.key)
    async with server.listening() as port:
        made = Kubelet(port, server, provider, client, anonymous, guard, targets=targets)
        yield made


@pytest.fixture
async def http(kubelet: Kubelet) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=kubelet.client, force_close=True)
    async with aiohttp.ClientSession(kubelet.url(""), connector=connector) as session:
        yield session
