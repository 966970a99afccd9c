"""tests.bench.random_pods: the same seed makes the same Pods; what is to be refused is, and nothing else; nothing is left out."""

import json
from functools import cache

import pytest

from tests.bench import random_pods, volumes
from tests.bench.making import Reaches
from tests.bench.random_pods import Case
from vknix.core import fields
from vknix.core.handlers import Handler
from vknix.errors import Refused

IMAGES = {name: f"nix:0/nix/store/{'0' * 32}-{name}" for name in ("busybox", "agnhost", "system")}
MANY = 400


@cache
def cases() -> tuple[Case, ...]:
    return tuple(random_pods.case(1, number, IMAGES) for number in range(MANY))


def test_each_number_is_a_pod_of_its_own_and_always_the_same() -> None:
    assert len({json.dumps(each.pod, sort_keys=True) for each in cases()}) == MANY
    assert [random_pods.case(1, number, IMAGES) for number in (0, 17, 300)] == [cases()[number] for number in (0, 17, 300)]
    assert random_pods.case(2, 17, IMAGES) != cases()[17]


def refusal(of: Case) -> Refused | None:
    asked = of.pod["spec"].get("runtimeClassName", "")
    try:
        fields.check(of.pod["spec"], Handler(asked) if asked in {each.value for each in Handler} else Handler.NSPAWN)
    except Refused as refused:
        return refused
    return None


def test_what_is_to_be_refused_is() -> None:
    """By a field; a sysctl that is forbidden is found with the configuration, and a name that names nothing can be put right."""
    for each in cases():
        refused = refusal(each)
        sysctls = (each.pod["spec"].get("securityContext") or {}).get("sysctls") or []
        if refused is not None and refused.reason == "InvalidImageName":
            assert each.reaches is Reaches.HELD
        elif not any(of["name"] == "kernel.msgmax" for of in sysctls):
            assert (refused is not None) is (each.reaches is Reaches.REFUSED), (each.pod["metadata"]["name"], refused)


@pytest.mark.parametrize("handler", ["nspawn", "unit", "nixos"])
def test_all_handlers_are_asked_for(handler: str) -> None:
    assert sum(each.pod["spec"].get("runtimeClassName") == handler for each in cases()) > MANY // 50


def test_what_one_pod_alone_can_have_is_its_own() -> None:
    ports = [
        port["hostPort"]
        for each in cases()
        for of in (*each.pod["spec"]["containers"], *each.pod["spec"]["initContainers"])
        for port in of.get("ports", ())
        if "hostPort" in port
    ]
    volumes_beside = [of["metadata"]["name"] for each in cases() for of in each.beside]
    assert len(set(ports)) == len(ports) > MANY // 50
    assert len(set(volumes_beside)) == len(volumes_beside) > MANY // 50


def test_what_restarts_all_disturbs_all() -> None:
    ruled = [each for each in cases() if "RestartAllContainers" in json.dumps(each.pod)]
    assert len(ruled) > MANY // 50
    mine = [truth for each in ruled for name, truth in each.truths.items() if name != "look"]  # an ephemeral one takes no part
    assert all(truth.disturbed and not truth.once for truth in mine)


def test_file_of_variables_is_written_first() -> None:
    asking = [each for each in cases() if '"key": "SAID"' in json.dumps(each.pod)]
    assert len(asking) > MANY // 50
    assert {each.pod["spec"]["initContainers"][0]["name"] for each in asking} == {"writes"}


@pytest.mark.parametrize("volume", sorted(volumes.KINDS))
def test_all_volumes_are_mounted(volume: str) -> None:
    assert any(of["name"] == volume for each in cases() for of in each.pod["spec"]["volumes"])


@pytest.mark.parametrize("kind", ["regular", "sidecar", "init"])
def test_all_kinds_of_containers_are_there(kind: str) -> None:
    inits = [of for each in cases() for of in each.pod["spec"]["initContainers"]]
    sidecars = [of for of in inits if of.get("restartPolicy") == "Always"]
    found = {"regular": cases(), "sidecar": sidecars, "init": [of for of in inits if of not in sidecars]}
    assert len(found[kind]) > MANY // 20


def test_all_ways_of_treatment_are_tried() -> None:
    treatments = [each.treatment for each in cases()]
    assert {each.until for each in treatments} == {"made", "reached", "ended"}
    assert {each.grace_s for each in treatments} == {None, 0, 1, 3}
    assert any(each.look for each in treatments)
    assert any(each.relabel for each in treatments)
    assert {each.reaches for each in cases()} == set(Reaches)


def test_every_program_has_a_truth() -> None:
    for each in cases():
        spec = each.pod["spec"]
        named = {of["name"] for of in (*spec["containers"], *spec["initContainers"])} | ({"look"} if each.treatment.look else set())
        assert each.truths.keys() == named
