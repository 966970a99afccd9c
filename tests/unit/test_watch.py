"""vknix.kube.watch against a server that does what API servers and proxies do."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fakes.cluster import Cluster, Fault, Request, connected
from vknix.errors import Unreachable
from vknix.kube.client import Client
from vknix.kube.watch import Changed, Gone, Listed, Lost, Pace, follow

QUICK = Pace(first_s=0.02, cap_s=0.1)
PODS = "/api/v1/pods"
HERE = {"fieldSelector": "spec.nodeName=n1"}


def pod(name: str, node: str = "n1", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", **more}, "spec": {"nodeName": node}}


class _Metadata(msgspec.Struct):
    name: str


class _Named(msgspec.Struct):
    metadata: _Metadata


def name_of(raw: bytes) -> str:
    return msgspec.json.decode(raw, type=_Named).metadata.name


def told(event: object) -> tuple[str, object]:
    match event:
        case Listed(items):
            return "listed", sorted(items)
        case Changed(item):
            return "changed", item
        case Gone(item):
            return "gone", item
        case Lost():
            return "lost", None
    raise AssertionError(event)


def is_watch(request: Request) -> bool:
    return request.query.get("watch") == "true"


@contextlib.asynccontextmanager
async def following(folder: Path, pace: Pace = QUICK) -> AsyncIterator[tuple[Cluster, Callable[[], Any]]]:
    """A cluster with one Pod on n1 and one elsewhere, and a function for the next thing that a follower says."""
    async with connected(folder) as (fake, client):
        fake.put("pods", pod("web"))
        fake.put("pods", pod("other", node="n2"))
        async with contextlib.aclosing(follow(client, PODS, query=HERE, decode=name_of, pace=pace)) as events:

            async def following_event() -> tuple[str, object]:
                async with asyncio.timeout(10):
                    return told(await anext(events))

            yield fake, following_event


async def test_lists_then_tells_each_change_of_what_was_selected(tmp_path: Path) -> None:
    async with following(tmp_path) as (fake, next_event):
        assert await next_event() == ("listed", ["web"])
        fake.put("pods", pod("api"))
        fake.put("pods", pod("noise", node="n2"))
        fake.remove("pods", "shop", "web")
        assert [await next_event(), await next_event()] == [("changed", "api"), ("gone", "web")]


async def test_resumes_where_it_was_without_a_new_list(tmp_path: Path) -> None:
    async with following(tmp_path) as (fake, next_event):
        await next_event()
        fake.put("pods", pod("api"))
        assert await next_event() == ("changed", "api")
        fake.end_watches()
        fake.put("pods", pod("late"))
        assert await next_event() == ("changed", "late")
        assert len([request for request in fake.asked("GET") if not is_watch(request)]) == 1


async def test_a_bookmark_moves_the_place_to_resume_from(tmp_path: Path) -> None:
    async with following(tmp_path) as (fake, next_event):
        await next_event()
        fake.put("pods", pod("api"))
        await next_event()
        fake.bookmark("pods")
        marked = str(fake._version)
        fake.put("pods", pod("after"))
        assert await next_event() == ("changed", "after")
        fake.bookmark("pods")
        fake.end_watches()
        fake.put("pods", pod("late"))
        assert await next_event() == ("changed", "late")
        assert fake.asked("GET")[-1].query["resourceVersion"] > marked


EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
STRANGE = {"kind": "Status", "code": 500, "status": "Failure"}  # without a message


@pytest.mark.parametrize(
    "fault",
    [
        Fault(is_watch, status=410, body=json.dumps(EXPIRED).encode()),
        Fault(is_watch, body=json.dumps({"type": "ERROR", "object": EXPIRED}).encode() + b"\n"),
        Fault(is_watch, body=json.dumps({"type": "ERROR", "object": STRANGE}).encode() + b"\n"),
    ],
    ids=["410", "410-as-event", "error-without-message"],
)
async def test_lists_again_when_the_server_has_forgotten_so_that_missed_deletes_show(tmp_path: Path, fault: Fault) -> None:
    async with following(tmp_path) as (fake, next_event):
        fake.faults.append(fault)
        assert await next_event() == ("listed", ["web"])
        lists = asyncio.Event()

        def remove_before_the_second_list(request: Request) -> bool:
            if not is_watch(request) and not lists.is_set():
                lists.set()
                fake.remove("pods", "shop", "web")
            return False

        fake.faults.append(Fault(remove_before_the_second_list))
        assert await next_event() == ("listed", [])


@pytest.mark.parametrize(
    ("fault", "then"),
    [
        (Fault(is_watch, status=502, body=b"<html>bad gateway</html>\n<p>x</p>\n"), ("changed", "api")),
        (Fault(is_watch, times=2, close=True), ("changed", "api")),  # aiohttp itself tries a kept connection once more
        (Fault(is_watch, body=b"<html>login</html>\n"), ("listed", ["api", "web"])),
        (Fault(is_watch, body=b'{"type":"ADDED","object":{"metadata":{"na'), ("listed", ["api", "web"])),
        (Fault(is_watch, body=b'{"type":"ADDED","object":[]}\n'), ("listed", ["api", "web"])),
    ],
    ids=["502-html", "connection-dropped", "200-html", "half-a-line", "not-a-pod"],
)
async def test_says_lost_and_goes_on(tmp_path: Path, fault: Fault, then: tuple[str, object]) -> None:
    async with following(tmp_path) as (fake, next_event):
        fake.faults.append(fault)
        assert await next_event() == ("listed", ["web"])
        assert await next_event() == ("lost", None)
        fake.put("pods", pod("api"))
        assert await next_event() == then


async def test_a_server_that_closes_at_once_is_not_hammered(tmp_path: Path) -> None:
    async with following(tmp_path, Pace(first_s=0.05, cap_s=10)) as (fake, next_event):
        fake.faults.append(Fault(is_watch, times=10_000))
        await next_event()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await next_event()
        # 0.05 + 0.1 + 0.2 + 0.4 s: five watches at most, six with jitter
        assert 3 <= len([request for request in fake.asked("GET") if is_watch(request)]) <= 6


async def test_a_silent_connection_is_given_up(tmp_path: Path) -> None:
    async with following(tmp_path, replace(QUICK, idle_s=0.2)) as (fake, next_event):
        fake.faults.append(Fault(is_watch, silence=True))
        assert await next_event() == ("listed", ["web"])
        started = time.monotonic()
        assert await next_event() == ("lost", None)
        assert time.monotonic() - started < 5


async def test_a_list_comes_in_pages(tmp_path: Path) -> None:
    async with following(tmp_path, replace(QUICK, page=2)) as (fake, next_event):
        for n in range(4):
            fake.put("pods", pod(f"p{n}"))
        assert await next_event() == ("listed", ["p0", "p1", "p2", "p3", "web"])
        assert [request.query.get("continue") for request in fake.asked("GET")] == [None, "2", "4"]


async def test_a_line_of_three_megabytes_is_an_event(tmp_path: Path) -> None:
    async with following(tmp_path) as (fake, next_event):
        await next_event()
        fake.put("pods", pod("big", annotations={"a": "x" * 3_000_000}))
        assert await next_event() == ("changed", "big")


async def test_a_line_that_is_too_long_costs_a_list_and_no_more(tmp_path: Path) -> None:
    async with following(tmp_path) as (fake, next_event):
        await next_event()
        fake.put("pods", pod("huge", annotations={"a": "x" * 6_000_000}))
        assert await next_event() == ("lost", None)
        assert await next_event() == ("listed", ["huge", "web"])


async def test_lost_names_what_is_wrong(tmp_path: Path) -> None:
    async with connected(tmp_path) as (fake, client):
        fake.faults.append(Fault(lambda _: True, times=100, status=503))
        async with contextlib.aclosing(follow(client, PODS, query={}, decode=name_of, pace=QUICK)) as events:
            event = await anext(events)
        assert isinstance(event, Lost)
        assert isinstance(event.error, Unreachable)
        assert PODS in str(event.error)


async def test_closing_it_closes_the_connection(tmp_path: Path) -> None:
    async with connected(tmp_path) as (fake, client):
        fake.put("pods", pod("web"))
        async with contextlib.aclosing(follow(client, PODS, query={}, decode=name_of, pace=QUICK)) as events:
            await anext(events)
            fake.put("pods", pod("api"))
            await anext(events)
        assert _open_connections(client) == 0


def _open_connections(client: Client) -> int:
    assert client._session is not None
    connector = client._session.connector
    assert connector is not None
    return len(connector._acquired)
