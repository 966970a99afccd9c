"""vknix.core.happenings: Events of a start and of an end, each once."""

from dataclasses import replace

import pytest

from tests.unit.build import ROOT, UID, container, ended, facts, host, pod, running, stopped
from vknix.core.facts import ContainerFacts, ImageFacts, ImageState, PodFacts, Reason, State
from vknix.core.happenings import happenings, unenforced

STARTING = ContainerFacts("main", State.PREPARING, 0)
NO_START = replace(ended(128), reason=Reason.START_ERROR)
PULLING = ImageFacts(ROOT, ImageState.PULLING)


@pytest.mark.parametrize(
    ("before", "after", "reasons"),
    [
        pytest.param(None, facts(), [], id="a sandbox"),
        pytest.param(None, facts(images=(PULLING,)), ["Pulling"], id="a pull"),
        pytest.param(facts(images=(PULLING,)), facts(images=(PULLING,)), [], id="the same pull"),
        pytest.param(
            facts(images=(PULLING,)), facts(images=(ImageFacts(ROOT, ImageState.PRESENT, took_s=1.234),)), ["Pulled"], id="pulled"
        ),
        pytest.param(None, facts(images=(ImageFacts(ROOT, ImageState.PRESENT),)), ["Pulled"], id="was there"),
        pytest.param(
            facts(images=(PULLING,)), facts(images=(ImageFacts(ROOT, ImageState.FAILED, "no"),)), ["Failed", "Failed"], id="no pull"
        ),
        pytest.param(None, facts(STARTING), ["Created"], id="created"),
        pytest.param(facts(STARTING), facts(running()), ["Started"], id="started"),
        pytest.param(None, facts(running()), ["Created", "Started"], id="created and started"),
        pytest.param(facts(running()), facts(running()), [], id="runs on"),
        pytest.param(facts(STARTING), facts(stopped("main", ended(0))), ["Started"], id="ended before it was seen to run"),
        pytest.param(None, facts(stopped("main", ended(0))), ["Created", "Started"], id="began and ended unseen"),
        pytest.param(facts(STARTING), facts(stopped("main", NO_START)), ["Failed"], id="could not start"),
        pytest.param(facts(stopped("main", NO_START)), facts(stopped("main", NO_START)), [], id="still could not start"),
        pytest.param(facts(running()), facts(running("main", 1, ended(1))), ["Created", "Started"], id="restarted meanwhile"),
        pytest.param(facts(running()), facts(stopped("main", ended(1))), [], id="first end: it restarts at once"),
        pytest.param(
            facts(running("main", 1, ended(1))), facts(stopped("main", ended(1), ended(1, 1))), ["BackOff"], id="second end"
        ),
        pytest.param(
            facts(stopped("main", ended(1), ended(1, 1))), facts(stopped("main", ended(1), ended(1, 1))), [], id="still waits"
        ),
    ],
)
def test_reasons(before: PodFacts | None, after: PodFacts, reasons: list[str]) -> None:
    assert [happening.reason for happening in happenings(pod(), before, after)] == reasons


def test_messages_are_the_kubelets() -> None:
    images = (ImageFacts(ROOT, ImageState.PRESENT, took_s=1.234),)
    told = [each.message for each in happenings(pod(), None, facts(running(), images=images))]
    assert told == [
        f'Successfully pulled image "{ROOT}" in 1.23s',
        "Created container: main",
        "Started container main",
    ]
    back_off = [*happenings(pod(), facts(running("main", 1)), facts(stopped("main", ended(1), ended(1, 1))))]
    assert back_off[-1].message == f"Back-off restarting failed container main in pod web_shop({UID})"
    assert back_off[-1].warning


def test_a_leaving_pod_backs_off_from_nothing() -> None:
    after = facts(stopped("main", ended(1), ended(1, 1)))
    assert "BackOff" not in [each.reason for each in happenings(pod(leaving=True), facts(running("main", 1)), after)]


@pytest.mark.parametrize(
    ("controllers", "limits", "lacking"),
    [
        ({"cpu", "memory"}, {"cpu": "1", "memory": "1Gi"}, ()),
        ({"cpu"}, {"cpu": "1", "memory": "1Gi"}, ("spec.containers[0].resources.limits.memory",)),
        (set(), {"cpu": "1"}, ("spec.containers[0].resources.limits.cpu",)),
        (set(), {"ephemeral-storage": "1Gi"}, ()),
        (set(), {}, ()),
    ],
)
def test_limits_that_a_host_cant_enforce(controllers: set[str], limits: dict[str, str], lacking: tuple[str, ...]) -> None:
    of = pod(container(resources={"limits": limits}))
    assert unenforced(of, host(controllers=frozenset(controllers))) == lacking


INIT = [container("first"), container("side", restartPolicy="Always")]


def test_init_containers_are_told_of_in_their_order() -> None:
    of = pod(initContainers=INIT)
    told = [(each.reason, each.container) for each in happenings(of, None, facts(running("side"), running("first"), running()))]
    assert told == [(reason, name) for name in ("first", "side", "main") for reason in ("Created", "Started")]


@pytest.mark.parametrize(
    ("policy", "name", "code", "backs_off"),
    [
        ("Always", "first", 0, False),
        ("Always", "first", 1, True),
        ("Never", "first", 1, False),
        ("Never", "side", 0, True),
        ("Never", "main", 1, False),
    ],
)
def test_back_off_is_by_the_policy_that_holds_for_the_container(policy: str, name: str, code: int, backs_off: bool) -> None:
    after = facts(stopped(name, ended(code), ended(code, 1)))
    told = [each.reason for each in happenings(pod(restart=policy, initContainers=INIT), facts(running(name, 1)), after)]
    assert told == (["BackOff"] if backs_off else [])


def test_limits_of_init_containers_are_named_by_their_path() -> None:
    of = pod(initContainers=[container("first", resources={"limits": {"cpu": "1"}})])
    assert unenforced(of, host(controllers=frozenset())) == ("spec.initContainers[0].resources.limits.cpu",)
