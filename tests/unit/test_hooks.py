"""vknix.core.hooks and known: what hooks, probes and another image make of the facts."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.build import ROOT, container, ended, facts, pod, running, stopped
from vknix.core import hooks, known
from vknix.core.facts import ContainerFacts, State
from vknix.core.hooks import Hooked, Stage
from vknix.core.pod import Pod

HOOK: dict[str, Any] = {"lifecycle": {"postStart": {"exec": {"command": ["true"]}}}}
WEB = pod(container(**HOOK))


def status(state: str, identity: str = "id-0") -> dict[str, Any]:
    return {"containerStatuses": [{"name": "main", "containerID": f"systemd-nspawn://{identity}", "state": {state: {}}}]}


def applied(of: Pod, seen: ContainerFacts, hooked: Hooked | None) -> ContainerFacts:
    return hooks.applied(of, facts(seen), {"main": hooked} if hooked else {}).containers["main"]


@pytest.mark.parametrize(
    ("of", "hooking"),
    [
        (WEB, True),
        (pod(), False),
        (pod(container(**HOOK), status=status("running")), False),
        (pod(container(**HOOK), status=status("running", "id-of-another")), True),
        (pod(container(**HOOK), status=status("waiting")), True),
    ],
    ids=["new", "no hook", "told to run", "another was", "told to wait"],
)
def test_attempt_that_was_told_to_run_has_passed_its_hook(of: Pod, hooking: bool) -> None:
    seen = applied(of, running(), None)
    assert (seen.hooking, seen.up, seen.ready) == (hooking, not hooking, not hooking)


def test_hook_that_passed_changes_nothing() -> None:
    assert applied(WEB, running(), Hooked(0, Stage.PASSED)) == running()


def test_hook_that_failed_dooms_its_attempt_and_no_other() -> None:
    failed = Hooked(0, Stage.FAILED, "it said no")
    assert applied(WEB, running(), failed).doomed == "FailedPostStartHook"
    assert applied(WEB, stopped("main", ended(143)), failed).hook_error == "it said no"
    assert applied(WEB, running("main", 1, ended(143)), failed).doomed == ""


def told(of: Pod, seen: ContainerFacts, doomed: known.Doomed) -> ContainerFacts:
    return known.facts(of, facts(seen), {}, {}, doomed).containers["main"]


@pytest.mark.parametrize("state", [State.RUNNING, State.PREPARING, State.STOPPING])
def test_another_image_dooms_what_runs(state: State) -> None:
    seen = told(pod(), ContainerFacts("main", state, 0, image="/nix/store/another"), {})
    assert (seen.doomed, seen.redefined) == ("Container main definition changed, will be restarted", True)


@pytest.mark.parametrize("image", ["", ROOT], ids=["not known", "the same"])
def test_same_image_dooms_nothing(image: str) -> None:
    assert not told(pod(), replace(running(), image=image), {}).doomed


def test_doom_is_known_of_an_attempt_that_has_ended_and_not_of_the_next() -> None:
    doomed: known.Doomed = {}
    told(pod(), replace(running(), image="/nix/store/another"), doomed)
    assert told(pod(), stopped("main", ended(0)), doomed).redefined
    assert not told(pod(), running("main", 1, ended(0)), doomed).redefined
