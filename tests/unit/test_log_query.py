"""What a query for logs asks for, and whose log is meant."""

from typing import Any
from urllib.parse import parse_qsl

import pytest

from tests.kubelet.world import UID, facts, pod
from vknix.core.facts import ContainerFacts, Exit, HostName, ImageFacts, ImageState, PodFacts, Reason, State, StorePath
from vknix.kubelet.logs import LogQuery, attempt, log_query
from vknix.kubelet.target import Rejection, Target

NOW = 1_800_000_000.0


def query(text: str) -> LogQuery:
    return log_query(dict(parse_qsl(text, keep_blank_values=True)), NOW)


def test_nothing_asked_is_everything_so_far() -> None:
    assert query("") == LogQuery(False, False, False, None, None, None)


ASKED: list[Any] = [
    pytest.param("follow=true", "follow", True, id="follow"),
    pytest.param("follow=1", "follow", True, id="follow-1"),
    pytest.param("follow=False", "follow", False, id="no-follow"),
    pytest.param("previous", "previous", True, id="a-flag-without-value-is-set"),
    pytest.param("timestamps=0", "timestamps", False, id="no-timestamps"),
    pytest.param("tailLines=0", "tail_lines", 0, id="tail-0"),
    pytest.param("tail=5&tailLines=9", "tail_lines", 5, id="old-tail-wins"),
    pytest.param("tail=all&tailLines=9", "tail_lines", None, id="tail-all"),
    pytest.param("limitBytes=10", "limit_bytes", 10, id="limit"),
    pytest.param("sinceSeconds=60", "since", NOW - 60, id="since-seconds"),
    pytest.param("sinceTime=2027-01-15T08:00:00Z", "since", NOW, id="since-time"),
    pytest.param("sinceTime=2027-01-15T09:00:00.5%2B01:00", "since", NOW + 0.5, id="since-time-with-zone"),
    pytest.param("sinceTime=", "since", None, id="since-nothing"),
]


@pytest.mark.parametrize(("text", "field", "value"), ASKED)
def test_a_parameter_is_understood(text: str, field: str, value: object) -> None:
    assert getattr(query(text), field) == value


WRONG: list[Any] = [
    pytest.param("tailLines=-1", 422, id="tail-negative"),
    pytest.param("limitBytes=0", 422, id="limit-0"),
    pytest.param("sinceSeconds=0", 422, id="since-0"),
    pytest.param("sinceSeconds=1&sinceTime=2027-01-15T08:00:00Z", 422, id="since-twice"),
    pytest.param("tailLines=two", 400, id="tail-text"),
    pytest.param("limitBytes=", 400, id="limit-empty"),
    pytest.param("sinceTime=yesterday", 400, id="since-text"),
    pytest.param("sinceTime=2027-13-15T08:00:00Z", 400, id="since-no-date"),
    pytest.param("sinceTime=2027-01-15T08:00:00", 400, id="since-no-zone"),
]


@pytest.mark.parametrize(("text", "status"), WRONG)
def test_a_wrong_parameter_is_refused(text: str, status: int) -> None:
    with pytest.raises(Rejection) as caught:
        query(text)
    assert caught.value.status == status


def ended(number: int) -> Exit:
    return Exit(number, "", 1, 0, Reason.ERROR, None, NOW)


RUNNING = ContainerFacts("c", State.RUNNING, 0)
RESTARTED = ContainerFacts("c", State.RUNNING, 2, exits=(ended(0), ended(1)))
ENDED = ContainerFacts("c", State.STOPPED, 0, exits=(ended(0),))
BACKING_OFF = ContainerFacts("c", State.STOPPED, 1, exits=(ended(0), ended(1)), host_restarts=True)
PREPARING = ContainerFacts("c", State.PREPARING, 0)
PREPARING_AGAIN = ContainerFacts("c", State.PREPARING, 1, exits=(ended(0),))

WHOSE: list[Any] = [
    pytest.param(RUNNING, 0, None, id="running"),
    pytest.param(RESTARTED, 2, 1, id="restarted"),
    pytest.param(ENDED, 0, None, id="ended"),
    pytest.param(BACKING_OFF, 1, 1, id="backing-off"),
    pytest.param(PREPARING, None, None, id="preparing"),
    pytest.param(PREPARING_AGAIN, 0, 0, id="preparing-again"),
]


@pytest.mark.parametrize(("container", "current", "before"), WHOSE)
def test_whose_log_is_meant(container: ContainerFacts, current: int | None, before: int | None) -> None:
    target = Target(pod("c"), facts(container))
    for previous, expected in ((False, current), (True, before)):
        if expected is not None:
            assert attempt(target, "c", previous=previous) == expected
        else:
            with pytest.raises(Rejection) as caught:
                attempt(target, "c", previous=previous)
            assert caught.value.status == 400


def images(state: ImageState, retry_at: float | None = None) -> PodFacts:
    path = StorePath("/nix/store/x")
    return PodFacts(UID, HostName("red"), "ns", "p", images={path: ImageFacts(path, state, retry_at=retry_at)})


WAITING: list[Any] = [
    pytest.param(Target(pod("c"), None), "ContainerCreating", id="nothing-seen"),
    pytest.param(Target(pod("c", init=("i",)), None), "PodInitializing", id="init"),
    pytest.param(Target(pod("c"), images(ImageState.PULLING)), "ContainerCreating", id="pulling"),
    pytest.param(Target(pod("c"), images(ImageState.FAILED)), "image can't be pulled", id="failed"),
    pytest.param(Target(pod("c"), images(ImageState.FAILED, NOW)), "trying and failing to pull image", id="backing-off"),
]


@pytest.mark.parametrize(("target", "reason"), WAITING)
def test_a_container_that_waits_says_for_what(target: Target, reason: str) -> None:
    with pytest.raises(Rejection) as caught:
        attempt(target, "c", previous=False)
    assert caught.value.text == f'container "c" in pod "p" is waiting to start: {reason}'
