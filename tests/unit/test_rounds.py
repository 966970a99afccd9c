"""vknix.core.rounds: a container's exit that restarts all, from one round to the next."""

from typing import Any

import pytest

from tests.unit.build import container, ended, facts, pod, running, stopped, told, view
from vknix.core import decide, ending, known, rounds
from vknix.core.decide import Turn
from vknix.core.facts import ContainerFacts, PodFacts, State
from vknix.core.pod import Kind, Pod, members
from vknix.core.status import pod_status

ALL = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
ONE = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42, 43]}}
NOW = 100.0


def ruled(name: str = "main", *rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return container(name, restartPolicy="Never", restartPolicyRules=list(rules or (ALL,)), **fields)


POD = pod(
    ruled(),
    container("other"),
    initContainers=[container("init"), container("side", restartPolicy="Always")],
    restart="Never",
)
DONE = stopped("init", ended())
RUNS = facts(DONE, running("side"), running("main"), running("other"))
TRIGGERED = facts(DONE, running("side"), stopped("main", ended(42)), running("other"))
HALF = facts(DONE, stopped("side", ended(137)), stopped("main", ended(42)), running("other"))
ALL_ENDED = facts(DONE, stopped("side", ended(137)), stopped("main", ended(42)), stopped("other", ended(137)))


def statuses(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in (*made["initContainerStatuses"], *made["containerStatuses"])}


def restarting(made: dict[str, Any]) -> tuple[str, str | None]:
    return next((each["status"], each["reason"]) for each in made["conditions"] if each["type"] == rounds.CONDITION)


def after(of: Pod, seen: PodFacts) -> tuple[Pod, PodFacts]:
    """As they are once what is to be told of it has been told."""
    now = told(of, pod_status(of, view(seen)))
    return now, rounds.current(now, seen)


@pytest.mark.parametrize(
    ("of", "seen", "is_ending"),
    [
        (POD, RUNS, False),
        (POD, TRIGGERED, True),
        (POD, HALF, True),
        (POD, ALL_ENDED, True),
        (POD, facts(DONE, running("side"), stopped("main", ended(1)), running("other")), False),
        (POD, facts(DONE, running("side"), running("main", 1, ended(42)), running("other")), False),
        (POD, facts(DONE, running("side"), running("main"), stopped("other", ended(42))), False),
        (POD, None, False),
        (pod(ruled("main", ONE, ALL)), facts(stopped("main", ended(42))), False),
        (pod(ruled("main", ONE, ALL)), facts(stopped("main", ended(43))), False),
        (pod(ruled("main", ALL, ONE)), facts(stopped("main", ended(42))), True),
        (pod(initContainers=[ruled("first")]), facts(stopped("first", ended(42))), True),
    ],
)
def test_a_round_ends_by_the_first_rule_that_matches(of: Pod, seen: PodFacts | None, is_ending: bool) -> None:
    assert rounds.is_ending(of, seen) is is_ending


def test_all_that_runs_is_ended_at_once_and_nothing_starts() -> None:
    assert decide.containers(POD, TRIGGERED, NOW) == Turn()
    wishes = ending.of_working(POD, TRIGGERED, over=False)
    assert [(wish.name, wish.by, wish.turn) for wish in wishes] == [("side", 0.0, True), ("other", 0.0, True)]
    made = pod_status(POD, view(TRIGGERED))
    assert (made["phase"], restarting(made)) == ("Running", ("True", "RestartAllContainersStarted"))
    assert statuses(made)["main"]["state"]["terminated"]["exitCode"] == 42


@pytest.mark.parametrize("seen", [HALF, TRIGGERED, facts(DONE, running("side"), *TRIGGERED.containers.values())])
def test_while_it_ends_the_pod_runs(seen: PodFacts) -> None:
    assert pod_status(POD, view(seen))["phase"] == "Running"


def test_a_side_that_ends_it_does_not_make_the_pod_fail() -> None:
    side = container("side", restartPolicy="Always", restartPolicyRules=[ALL])
    of = pod(container("main"), initContainers=[side], restart="Never")
    seen = facts(stopped("side", ended(42)), stopped("main", ended(137)))
    assert pod_status(of, view(seen))["phase"] == "Running"


def test_once_all_has_ended_each_is_told_to_wait() -> None:
    made = pod_status(POD, view(ALL_ENDED))
    assert (made["phase"], restarting(made)) == ("Running", ("False", None))
    for name, each in statuses(made).items():
        assert each["state"] == {"waiting": {"reason": rounds.REASON, "message": rounds.MESSAGE}}, name
        end = each["lastState"]["terminated"]
        assert (end["reason"], end["exitCode"], each["restartCount"], each["ready"]) == (rounds.REASON, 137, 1, False)


def test_the_next_round_begins_with_the_init_containers() -> None:
    of, seen = after(POD, ALL_ENDED)
    assert dict(seen.containers) == {}
    assert not rounds.is_ending(of, seen)
    assert decide.containers(of, seen, NOW).run == ("init",)
    of, seen = after(of, seen)  # told again before anything of it runs
    assert decide.containers(of, seen, NOW).run == ("init",)
    made = statuses(pod_status(of, view(seen)))
    assert {each["state"]["waiting"]["reason"] for each in made.values()} == {"PodInitializing"}
    assert {each["restartCount"] for each in made.values()} == {1}


def again(name: str, state: State, *exits: Any) -> ContainerFacts:
    attempt = exits[-1].attempt + (state is not State.STOPPED)
    return ContainerFacts(name, state, attempt, "new", 40.0, exits, streak=len(exits))


def test_each_container_of_the_next_round_is_told_with_how_the_last_one_ended() -> None:
    of, _ = after(POD, ALL_ENDED)
    first = again("init", State.STOPPED, ended(), ended(0, 1, started=40.0, finished=41.0))
    seen = facts(
        first, again("side", State.RUNNING, ended(137)), again("main", State.PREPARING, ended(42)), ALL_ENDED.containers["other"]
    )
    made = pod_status(of, view(rounds.current(of, seen)))
    each = statuses(made)
    assert each["init"]["state"]["terminated"]["exitCode"] == 0
    assert "running" in each["side"]["state"]
    assert each["main"]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert {name: of["lastState"]["terminated"]["reason"] for name, of in each.items()} == dict.fromkeys(each, rounds.REASON)
    assert {name: of["restartCount"] for name, of in each.items()} == dict.fromkeys(each, 1)


def test_a_pod_that_was_initialised_stays_so() -> None:
    of, seen = after(told(POD, pod_status(POD, view(RUNS))), ALL_ENDED)
    made = pod_status(of, view(seen))
    assert next(each["status"] for each in made["conditions"] if each["type"] == "Initialized") == "True"


def test_the_same_rule_may_end_the_next_round() -> None:
    of, _ = after(POD, ALL_ENDED)
    each = [again(name, State.STOPPED, ended(code), ended(code, 1)) for name, code in (("init", 0), ("side", 137), ("main", 42))]
    seen = rounds.current(of, facts(*each, again("other", State.RUNNING, ended(137))))
    assert rounds.is_ending(of, seen)
    assert decide.containers(of, seen, NOW) == Turn()


def test_what_has_not_run_since_takes_no_part_in_the_next_end() -> None:
    """An init container ends the next round before the others have begun in it."""
    of = pod(container("main"), initContainers=[ruled("first"), container("second")], restart="Never")
    seen = facts(stopped("first", ended(42, 1)), stopped("second", ended()), stopped("main", ended(1)))
    of, _ = after(of, seen)
    again_ended = facts(
        again("first", State.STOPPED, ended(42), ended(42, 2)), stopped("second", ended()), stopped("main", ended(1))
    )
    seen = rounds.current(of, again_ended)
    assert set(seen.containers) == {"first"}
    of, seen = after(of, seen)
    assert decide.containers(of, seen, NOW).run == ("first",)
    assert {name: each["restartCount"] for name, each in statuses(pod_status(of, view(seen))).items()} == {
        "first": 3,
        "second": 1,
        "main": 1,
    }


def test_a_pod_that_leaves_or_fails_ends_as_it_did() -> None:
    of = told(POD, {}, deletionTimestamp="2026-01-02T03:04:05Z", deletionGracePeriodSeconds=30)
    made = pod_status(of, view(ALL_ENDED))
    assert made["phase"] == "Failed"
    assert statuses(made)["main"]["state"]["terminated"]["exitCode"] == 42
    assert restarting(made) == ("False", "PodFailed")


def test_nothing_of_such_a_pod_is_started_by_its_host() -> None:
    assert {member.name: member.host_policy for member in members(POD)} == dict.fromkeys(("init", "side", "main", "other"), "Never")
    assert {member.host_policy for member in members(pod())} == {"Always"}


def test_an_ephemeral_container_takes_no_part() -> None:
    of = pod(ruled(), ephemeralContainers=[container("debug")], restart="Never")
    assert [member.name for member in members(of) if member.kind is Kind.EPHEMERAL] == ["debug"]
    seen = facts(stopped("main", ended(42)), running("debug"))
    assert rounds.left(of, seen) == ()
    of, seen = after(of, seen)
    assert decide.containers(of, seen, NOW).run == ("main",)
    assert set(known.facts(of, seen, {}, {}, {}).containers) == {"debug"}
