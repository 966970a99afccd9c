"""Restart policy, rules and back-off: (container, how it ended, how often) -> again at, or never. Rule: the kubelet's crash loop.

The host's systemd climbs the same ladder by itself (RestartSec=10, RestartSteps=5, RestartMaxDelaySec=300); only the first
restart, which is due at once, is vknix's to make. Containers with rules are vknix's to restart each time: systemd knows no rules.
"""

from vknix.core.container import RestartRule
from vknix.core.facts import ContainerFacts, Exit, State
from vknix.core.pod import RESTART_ALL, Member

LADDER_S = (0, 10, 20, 40, 80, 160, 300)
GOOD_S = 600  # an attempt that ran this long ends a streak


def may_restart(member: Member, code: int) -> bool:
    """By a rule that matches the exit code, whether it restarts this one or all, else by the policy."""
    if _rule(member, code) is not None:
        return True
    return member.policy == "Always" or (member.policy == "OnFailure" and code != 0)


def restarts_all(member: Member, code: int) -> bool:
    """Whether the first rule that matches says so."""
    rule = _rule(member, code)
    return rule is not None and rule.action == RESTART_ALL


def _rule(member: Member, code: int) -> RestartRule | None:
    return next((rule for rule in member.rules if _matches(rule, code)), None)


def _matches(rule: RestartRule, code: int) -> bool:
    of = rule.exit_codes
    return of is not None and (code in (of.values or ())) is (of.operator == "In")


def again(member: Member, seen: ContainerFacts, ended: Exit) -> bool:
    """Whether a container that has stopped is started again; one that was killed to be started again, whatever it exited with."""
    killed = bool(seen.doomed) or ended.again
    return seen.redefined or (killed and member.policy != "Never") or may_restart(member, ended.code)


def is_alive(seen: ContainerFacts) -> bool:
    """Something of it runs, or its host will start it again."""
    return seen.state is not State.STOPPED or seen.host_restarts


def delay_s(streak: int) -> int:
    return LADDER_S[min(max(streak, 1), len(LADDER_S)) - 1]


def due(container: ContainerFacts, ended: Exit) -> float:
    """Another definition begins a ladder of its own."""
    return ended.finished + (0 if container.redefined else delay_s(container.streak))


def streak(exits: tuple[Exit, ...]) -> int:
    """How many attempts in a row ended before they had run for GOOD_S; `exits` are all of them, oldest first."""
    count = 0
    for ended in reversed(exits):
        count += 1
        if ended.started is not None and ended.finished - ended.started >= GOOD_S:
            break
    return count
