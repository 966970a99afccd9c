"""Who a caller is, what is asked of the cluster, and for how long its answer holds."""

from typing import Any

import pytest

from vknix.errors import Unreachable
from vknix.kubelet.auth import Attributes, Guard, User, attributes, certificate_user
from vknix.kubelet.target import Rejection

PATHS: list[Any] = [
    pytest.param("GET", "/stats/summary", "get", ("stats",), id="stats"),
    pytest.param("GET", "/metrics/resource", "get", ("metrics",), id="metrics"),
    pytest.param("GET", "/metricsx", "get", ("proxy",), id="not-metrics"),
    pytest.param("GET", "/logs/x", "get", ("log",), id="logs"),
    pytest.param("POST", "/checkpoint/ns/p/c", "create", ("checkpoint",), id="checkpoint"),
    pytest.param("GET", "/statusz", "get", ("statusz",), id="statusz"),
    pytest.param("GET", "/flagz", "get", ("configz",), id="flagz"),
    pytest.param("GET", "/pods", "get", ("pods", "proxy"), id="pods"),
    pytest.param("GET", "/runningpods/", "get", ("pods", "proxy"), id="runningpods"),
    pytest.param("GET", "/healthz/ping", "get", ("healthz", "proxy"), id="healthz"),
    pytest.param("GET", "/configz", "get", ("configz", "proxy"), id="configz"),
    pytest.param("GET", "/containerLogs/ns/p/c", "get", ("proxy",), id="container-logs"),
    pytest.param("GET", "/exec/ns/p/c", "create", ("proxy",), id="exec-by-websocket"),
    pytest.param("GET", "/attach/ns/p/c", "create", ("proxy",), id="attach-by-websocket"),
    pytest.param("GET", "/portForward/ns/p", "create", ("proxy",), id="port-forward-by-websocket"),
    pytest.param("POST", "/run/ns/p/c", "create", ("proxy",), id="run"),
    pytest.param("PUT", "/x", "update", ("proxy",), id="put"),
    pytest.param("PATCH", "/x", "patch", ("proxy",), id="patch"),
    pytest.param("DELETE", "/x", "delete", ("proxy",), id="delete"),
    pytest.param("OPTIONS", "/x", "", ("proxy",), id="other-method"),
]


@pytest.mark.parametrize(("method", "path", "verb", "subresources"), PATHS)
def test_each_path_asks_for_its_subresource(method: str, path: str, verb: str, subresources: tuple[str, ...]) -> None:
    assert attributes(method, path) == tuple(Attributes(verb, subresource) for subresource in subresources)


def test_a_certificate_names_user_and_groups() -> None:
    subject = ((("organizationName", "system:masters"),), (("organizationName", "ops"),), (("commonName", "ada"),))
    assert certificate_user({"subject": subject}) == User("ada", ("system:masters", "ops", "system:authenticated"))
    assert certificate_user({"subject": ((("organizationName", "ops"),),)}) is None
    assert certificate_user(None) is None


class Cluster:
    """Answers, and counts how often it is asked; `down` makes it fail."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[object] = []
        self.allowed = {"proxy"}
        self.down = False
        self.guard = Guard(self.review, self.authorize, clock=lambda: self.now)

    async def review(self, token: str) -> User | None:
        self._ask(token)
        return User("prometheus") if token == "good" else None

    async def authorize(self, user: User, asked: Attributes) -> bool:
        self._ask(asked)
        return asked.subresource in self.allowed

    def _ask(self, question: object) -> None:
        if self.down:
            raise Unreachable("the cluster does not answer")
        self.asked.append(question)

    async def admit(self, token: str = "good", path: str = "/containerLogs/ns/p/c") -> User:
        return await self.guard.admit(None, f"Bearer {token}", method="GET", path=path)

    async def refused(self, token: str = "good", path: str = "/containerLogs/ns/p/c") -> Rejection:
        with pytest.raises(Rejection) as caught:
            await self.admit(token, path)
        return caught.value


async def test_answers_hold_as_long_as_a_kubelets() -> None:
    cluster = Cluster()
    for seconds, questions in ((0, 2), (119, 2), (2, 3), (178, 4), (2, 5)):  # 0, 119, 121, 299, 301
        cluster.now += seconds
        await cluster.admit()
        assert len(cluster.asked) == questions, cluster.now


async def test_a_denial_holds_for_half_a_minute() -> None:
    cluster = Cluster()
    cluster.allowed.clear()
    await cluster.refused()
    cluster.allowed.add("proxy")
    cluster.now += 29
    await cluster.refused()
    cluster.now += 2
    assert (await cluster.admit()).name == "prometheus"


async def test_any_one_subresource_suffices() -> None:
    cluster = Cluster()
    await cluster.admit(path="/pods")
    assert [each.subresource for each in cluster.asked if isinstance(each, Attributes)] == ["pods", "proxy"]


async def test_a_denial_has_the_kubelets_words() -> None:
    cluster = Cluster()
    cluster.allowed.clear()
    error = await cluster.refused(path="/pods")
    assert error.status == 403
    assert error.text == "Forbidden (user=prometheus, verb=get, resource=nodes, subresource(s)=[pods proxy])\n"


@pytest.mark.parametrize("token", ["bad", ""])
async def test_an_unknown_caller_is_unauthorized(token: str) -> None:
    assert (await Cluster().refused(token)).status == 401


async def test_a_token_that_could_not_be_reviewed_is_asked_again() -> None:
    cluster = Cluster()
    cluster.down = True
    assert (await cluster.refused()).status == 401
    cluster.down = False
    await cluster.admit()


async def test_a_cluster_that_does_not_answer_is_a_server_error() -> None:
    cluster = Cluster()
    await cluster.admit()
    cluster.down = True
    error = await cluster.refused(path="/stats/summary")
    assert error.status == 500
    assert error.text == "Authorization error (user=prometheus, verb=get, resource=nodes, subresource=stats)"


async def test_what_is_remembered_is_bounded() -> None:
    cluster = Cluster()
    for number in range(5000):
        await cluster.refused(f"bad-{number}")
    await cluster.refused("bad-4999")
    assert len(cluster.asked) == 5000
    await cluster.refused("bad-0")
    assert len(cluster.asked) == 5001
