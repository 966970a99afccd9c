"""vknix.core.restart: the kubelet's crash loop."""

import pytest

from tests.unit.build import ended, stopped
from vknix.core import restart
from vknix.core.facts import Exit


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
    assert restart.may_restart(policy, code) is again


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
