"""vknix.core.inputs: what a Pod needs, and what becomes of it."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.build import ROOT, aliased, around, container, inputs, pod
from vknix.core import inputs as inputs_of
from vknix.core.fetched import Fetched, Kind, ObjectKey, Service, ServicePort, TokenKey
from vknix.core.handlers import Handler
from vknix.core.image import Image
from vknix.core.inputs import Inputs


def argv(**of_container: Any) -> tuple[str, ...]:
    made = inputs(pod(container(**{"command": None, **of_container})))
    if made.held:
        raise made.held["main"]
    return made.containers["main"].argv


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ({"command": ["a"], "args": ["b"]}, ("a", "b")),
        ({"command": ["a", "$(X)", "$$(X)"], "env": [{"name": "X", "value": "%n $HOME"}]}, ("a", "%n $HOME", "$(X)")),
        ({"image": f"{ROOT}/bin/hello", "args": ["b"]}, (f"{ROOT}/bin/hello", "b")),
        ({"image": f"{ROOT}/bin/hello", "command": ["a"], "args": ["b"]}, ("a", "b")),
        ({"command": ["", "\n", "'\""]}, ("", "\n", "'\"")),
    ],
)
def test_argv(of: dict[str, Any], words: tuple[str, ...]) -> None:
    assert argv(**of) == words


IMAGE = Image(ROOT, ("/e", "x"), ("y",), user=7, is_root=True)


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ({}, ("/e", "x", "y")),
        ({"args": ["b"]}, ("/e", "x", "b")),
        ({"command": ["a"]}, ("a",)),
        ({"command": ["a"], "args": ["b"]}, ("a", "b")),
        ({"securityContext": {"runAsNonRoot": True}}, ("/e", "x", "y")),
    ],
)
def test_argv_of_an_image_with_an_entrypoint(of: dict[str, Any], words: tuple[str, ...]) -> None:
    made = inputs(aliased(pod(container(image="web:1", **{"command": None, **of})), IMAGE))
    assert made.containers["main"].argv == words


@pytest.mark.parametrize(
    ("of", "field"),
    [
        ({"args": ["only"]}, "spec.containers[0].command"),
        ({}, "spec.containers[0].command"),
        ({"command": ["a\0b"]}, "spec.containers[0].command"),
        ({"command": ["a"], "env": [{"name": "A", "value": "a\0b"}]}, "spec.containers[0].env"),
        ({"command": ["a"], "workingDir": "/a\0"}, "spec.containers[0].workingDir"),
        ({"command": ["a"], "securityContext": {"runAsNonRoot": True}}, "spec.containers[0].securityContext.runAsNonRoot"),
        (
            {"command": ["a"], "securityContext": {"runAsNonRoot": True, "runAsUser": 0}},
            "spec.containers[0].securityContext.runAsNonRoot",
        ),
    ],
)
def test_a_container_that_cant_be_configured_is_held(of: dict[str, Any], field: str) -> None:
    made = inputs(pod(container(**{"command": None, **of}), container("other")))
    assert made.held["main"].field == field
    assert made.held["main"].reason == "CreateContainerConfigError"
    assert set(made.containers) == {"other"}


@pytest.mark.parametrize(
    ("own", "whole"),
    [
        ({"runAsNonRoot": True, "runAsUser": 1}, {}),
        ({}, {"runAsNonRoot": True, "runAsUser": 1}),
        ({"runAsNonRoot": False}, {"runAsNonRoot": True}),
        ({"runAsUser": 1}, {"runAsNonRoot": True, "runAsUser": 0}),
    ],
)
def test_users_that_are_not_root(own: dict[str, Any], whole: dict[str, Any]) -> None:
    assert not inputs(pod(container(securityContext=own), securityContext=whole)).held


LINK = Service("default", "1web", "10.0.0.1", (ServicePort("", 80, "TCP"),))


def for_an_init(*env: dict[str, str]) -> Inputs:
    of = pod(container(env=list(env), command=None), enableServiceLinks=True)
    return inputs_of.resolve(of, Fetched(services=(replace(LINK, namespace=of.namespace),)), around(), Handler.NIXOS)


@pytest.mark.parametrize("name", ["a.b", "1A", "a-b"])
def test_system_can_have_no_variable_of_an_odd_name(name: str) -> None:
    """systemd-nspawn would not start it."""
    held = for_an_init({"name": name, "value": "x"}).held["main"]
    assert (held.field, held.reason) == ("spec.containers[0].env", "CreateContainerConfigError")
    assert repr(name) in str(held)


def test_system_is_not_held_for_what_nobody_asked_for() -> None:
    assert dict(for_an_init({"name": "_A1", "value": "x"}).containers["main"].env) == {"_A1": "x"}


def test_needs_names_each_object_once() -> None:
    of = pod(
        container(
            envFrom=[{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}],
            env=[
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "t", "key": "k"}}},
            ],
        ),
        volumes=[
            {"name": "1", "secret": {"secretName": "v"}},
            {"name": "2", "projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "w"}}]}},
            {"name": "3", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            {"name": "4", "emptyDir": {}},
        ],
    )
    assert inputs_of.needs(of) == inputs_of.Needs(
        frozenset({ObjectKey("ConfigMap", "c"), *(ObjectKey("Secret", name) for name in "stvw")}),
        frozenset({TokenKey("", 3600)}),
        (),
    )


def test_closures_are_named_once_in_order() -> None:
    second = ROOT.replace("hello", "second")
    of = pod(container("a", image=second), container("b", image=f"nix:0{ROOT}"), container("c", image=f"{second}/bin/x"))
    assert inputs_of.closures(of) == (second, ROOT)


def test_dns_that_is_missing_is_noted() -> None:
    made = inputs_of.resolve(pod(), Fetched(), around(cluster_dns=()))
    assert [note.reason for note in made.notes] == ["MissingClusterDNS"]


MISSING = [
    ({"configMapKeyRef": {"name": "c", "key": "k"}}, "MandatoryConfigMapNotFound"),
    ({"configMapKeyRef": {"name": "c", "key": "k", "optional": True}}, "OptionalConfigMapNotFound"),
    ({"secretKeyRef": {"name": "c", "key": "k"}}, "MandatorySecretNotFound"),
    ({"secretKeyRef": {"name": "c", "key": "k", "optional": True}}, "OptionalSecretNotFound"),
]


@pytest.mark.parametrize(("source", "reason"), MISSING)
def test_an_object_that_is_not_there_is_told_by_name(source: dict[str, Any], reason: str) -> None:
    of = pod(container(env=[{"name": "A", "valueFrom": source}, {"name": "B", "valueFrom": source}]))
    (note,) = inputs(of).notes
    assert note.reason == reason
    assert '"c" not found in namespace' in note.message
    kind: Kind = "ConfigMap" if "configMapKeyRef" in source else "Secret"
    there = Fetched(objects={ObjectKey(kind, "c"): {"k": b"v"}})
    assert inputs_of.resolve(of, there, around()).notes == ()


def test_values_are_in_no_repr() -> None:
    assert "hunter2" not in repr(inputs(pod(container(env=[{"name": "A", "value": "hunter2"}]))))
