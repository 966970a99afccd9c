"""vknix.core.restart: the kubelet's crash loop."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.build import container, ended, pod, stopped
from vknix.core import pod as pods
from vknix.core import restart
from vknix.core.facts import Exit
from vknix.core.pod import Member


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 137, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_policy(policy: str, code: int, again: bool) -> None:
    assert restart.may_restart(member(whole=policy), code) is again


def member(whole: str = "Always", **fields: Any) -> Member:
    return next(pods.members(pod(container(**fields), restart=whole)))


def rule(operator: str, *values: int) -> dict[str, Any]:
    return {"action": "Restart", "exitCodes": {"operator": operator, "values": list(values)}}


@pytest.mark.parametrize(
    ("own", "rules", "code", "again"),
    [
        pytest.param("Never", [], 1, False, id="the container's policy"),
        pytest.param("Never", [rule("In", 42)], 42, True, id="a rule"),
        pytest.param("Never", [rule("In", 42)], 1, False, id="no rule: the policy"),
        pytest.param("Never", [rule("NotIn", 1, 2)], 3, True, id="not in"),
        pytest.param("Never", [rule("NotIn", 1, 2)], 2, False, id="in what is left out"),
        pytest.param("Never", [rule("In", 1), rule("In", 2)], 2, True, id="the second rule"),
        pytest.param("OnFailure", [rule("In", 42)], 1, True, id="no rule: on failure"),
    ],
)
def test_rules_come_before_the_policy_of_the_container(own: str, rules: list[Any], code: int, again: bool) -> None:
    of = member("Always" if own == "Never" else "Never", restartPolicy=own, restartPolicyRules=rules)
    assert restart.may_restart(of, code) is again
    assert of.host_policy == ("Never" if rules else own)


@pytest.mark.parametrize(
    ("policy", "redefined", "again"),
    [("Always", False, True), ("OnFailure", False, True), ("Never", False, False), ("Never", True, True)],
)
def test_what_was_killed_to_be_started_again_is_whatever_it_exited_with(policy: str, redefined: bool, again: bool) -> None:
    last = ended(0, finished=100.0)
    seen = replace(stopped("main", last, last), doomed="sick", redefined=redefined)
    assert restart.again(member(policy), seen, last) is again
    assert restart.due(seen, last) == (100.0 if redefined else 110.0)
    assert restart.again(member(policy), stopped("main", last), replace(last, again=True)) is (again and not redefined)


def test_the_ladder_is_the_kubelets() -> None:
    assert [restart.delay_s(streak) for streak in range(1, 9)] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_it_is_due_from_the_end() -> None:
    last = ended(1, 2, finished=1000.0)
    assert restart.due(stopped("main", ended(1, 0), ended(1, 1), last), last) == 1020.0


SHORT, GOOD = ended(1, started=0.0, finished=599.9), ended(1, started=0.0, finished=600.0)


@pytest.mark.parametrize(
    ("ends", "streak"),
    [
        ((), 0),
        ((SHORT,), 1),
        ((SHORT, SHORT, SHORT), 3),
        ((SHORT, GOOD), 1),
        ((SHORT, GOOD, SHORT), 2),
        ((GOOD, ended(137, started=None)), 2),
    ],
)
def test_ten_good_minutes_end_a_streak(ends: tuple[Exit, ...], streak: int) -> None:
    assert restart.streak(ends) == streak
