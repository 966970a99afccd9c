"""vknix.core.resize: what a Pod asks for beside what its host has in force -> what changes, and what is told of it."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.build import container, ended, facts, host, pod, running, stopped, told, view
from vknix.core import resize, resources, status
from vknix.core.facts import ContainerFacts
from vknix.core.pod import Pod
from vknix.core.resize import Resize
from vknix.errors import Refused

SMALL, LARGE = {"cpu": "100m", "memory": "64Mi"}, {"cpu": "200m", "memory": "64Mi"}
FULL = Refused("", "Node didn't have enough resource: cpu", reason="Deferred")


def asking(amounts: dict[str, str], *restart: str, **more: Any) -> Pod:
    """`restart`: the resources whose change wants one."""
    policy = [{"resourceName": name, "restartPolicy": "RestartContainer"} for name in restart]
    return pod(container(resources={"limits": amounts, "requests": amounts}, resizePolicy=policy), **more)


def having(amounts: dict[str, str], of: ContainerFacts | None = None, error: str = "") -> ContainerFacts:
    return replace(of or running(), resources={"limits": amounts, "requests": amounts}, resize_error=error)


@pytest.mark.parametrize(
    ("asked", "seen", "wanted"),
    [
        (asking(SMALL), having(SMALL), None),
        (asking({"cpu": "0.1", "memory": "67108864"}), having(SMALL), None),
        (asking(LARGE), running(), None),
        (asking(LARGE), having(SMALL, stopped("main", ended())), None),
        (asking(LARGE), having(SMALL, stopped("main", ended(), host_restarts=True)), Resize(update=True)),
        (asking(LARGE), having(SMALL), Resize(update=True)),
        (asking(LARGE, "memory"), having(SMALL), Resize(update=True)),
        (asking(LARGE, "cpu"), having(SMALL), Resize(restart=("main",))),
        (asking(LARGE), having(SMALL, error="too little"), Resize(update=True, error="too little")),
        (pod(), having(SMALL), Resize(update=True)),
        (asking(LARGE, leaving=True), having(SMALL), None),
    ],
)
def test_what_changes(asked: Pod, seen: ContainerFacts, wanted: Resize | None) -> None:
    assert resize.wanted(asked, facts(seen)) == wanted


def test_status_shows_what_is_in_force_and_only_what_needs_a_restart_is_left_out() -> None:
    asked, seen = asking(LARGE, "cpu"), facts(having(SMALL))
    for of in (resize.in_force(asked, seen), resize.granted(asked, seen, Resize(restart=("main",)))):
        assert resources.told(of.spec.containers[0].resources)["limits"] == SMALL
    assert resize.granted(asked, seen, Resize(update=True)) == asked
    given_up = resize.doomed(seen, Resize(restart=("main",)))
    assert given_up is not None
    assert given_up.containers["main"].doomed


@pytest.mark.parametrize(
    ("asked", "controllers", "why"),
    [
        (asking(LARGE), {"cpu", "memory"}, ""),
        (asking(LARGE), {"cpu"}, ""),
        (asking(LARGE), {"memory"}, "host a has no cgroup controller for the cpu limit of container main"),
        (pod(container(resources={"limits": SMALL, "requests": {"cpu": "50m"}})), set(), ""),
    ],
    ids=["both", "memory stays", "cpu moves", "a request alone"],
)
def test_a_limit_that_nothing_would_keep_is_infeasible(asked: Pod, controllers: set[str], why: str) -> None:
    seen, there = facts(having(SMALL)), host(controllers=frozenset(controllers))
    if not why:
        resize.check_limits(asked, seen, there)
        return
    with pytest.raises(Refused, match=why) as refused:
        resize.check_limits(asked, seen, there)
    assert refused.value.reason == "Infeasible"


@pytest.mark.parametrize(
    ("now", "kind", "reason", "event"),
    [
        (Resize(update=True), resize.IN_PROGRESS, None, "ResizeStarted"),
        (Resize(update=True, error="too little"), resize.IN_PROGRESS, "Error", "ResizeError"),
        (Resize(refused=FULL), resize.PENDING, "Deferred", "ResizeDeferred"),
    ],
)
def test_conditions_and_events_are_told_once_and_the_end_too(now: Resize, kind: str, reason: str | None, event: str) -> None:
    asked, seen = asking(LARGE), facts(having(SMALL))
    assert [each.reason for each in resize.happenings(asked, now)] == [event]
    conditions = {each["type"]: each for each in status.pod_status(asked, view(seen, resizing=now))["conditions"]}
    assert conditions[kind]["reason"] == reason
    known = told(asked, {"conditions": [conditions[kind]]})
    assert not list(resize.happenings(known, now))
    done = [each.reason for each in resize.happenings(known, None)]
    assert done == (["ResizeCompleted"] if kind == resize.IN_PROGRESS else [])
    assert {"type": kind, "$patch": "delete"} in status.pod_status(known, view(seen))["conditions"]


def test_a_pod_that_leaves_has_not_completed_its_resize() -> None:
    assert not list(resize.happenings(asking(LARGE, leaving=True, status={"conditions": [{"type": resize.IN_PROGRESS}]}), None))
