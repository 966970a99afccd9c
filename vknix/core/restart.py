"""Restart policy and back-off: (policy, how it ended, how often) -> again at, or never. Rule: the kubelet's crash loop.

The host's systemd climbs the same ladder by itself (RestartSec=10, RestartSteps=5, RestartMaxDelaySec=300); only the first
restart, which is due at once, is vknix's to make.
"""

from vknix.core.facts import ContainerFacts, Exit

LADDER_S = (0, 10, 20, 40, 80, 160, 300)
GOOD_S = 600  # an attempt that ran this long ends a streak


def may_restart(policy: str, code: int) -> bool:
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def delay_s(streak: int) -> int:
    return LADDER_S[min(max(streak, 1), len(LADDER_S)) - 1]


def due(container: ContainerFacts, ended: Exit) -> float:
    return ended.finished + delay_s(container.streak)


def streak(exits: tuple[Exit, ...]) -> int:
    """How many attempts in a row ended before they had run for GOOD_S; `exits` are all of them, oldest first."""
    count = 0
    for ended in reversed(exits):
        count += 1
        if ended.started is not None and ended.finished - ended.started >= GOOD_S:
            break
    return count
