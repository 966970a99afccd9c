"""vknix.core.handlers and handler_fields: which machine a RuntimeClass means, and which fields mean something on it."""

from typing import Any

import pytest

from tests.unit.build import container
from vknix.core import fields, handlers
from vknix.core.fields import FIELDS, Verdict
from vknix.core.handler_fields import INSTEAD
from vknix.core.handlers import Handler
from vknix.errors import Refused


@pytest.mark.parametrize("handler", list(Handler))
def test_each_handler_has_its_own_name(handler: Handler) -> None:
    assert handlers.chosen("some-class", handler.value, {}) is handler


def test_the_configuration_may_give_a_handler_more_names() -> None:
    assert handlers.chosen("c", "test-handler", {"test-handler": "unit"}) is Handler.UNIT


def test_an_unknown_handler_is_refused_as_a_kubelet_does_and_the_known_ones_are_listed() -> None:
    with pytest.raises(Refused) as refused:
        handlers.chosen("fast", "gvisor", {"runc": "nspawn"})
    assert refused.value.reason == "FailedCreatePodSandBox"
    assert "'gvisor'" in str(refused.value)
    assert "nixos, nspawn, runc, unit" in refused.value.remedy


def test_a_class_that_is_gone_is_said_to_be() -> None:
    with pytest.raises(Refused, match="no RuntimeClass 'fast'"):
        handlers.chosen("fast", None, {})


def test_the_node_lists_the_default_and_each_name() -> None:
    assert [each["name"] for each in handlers.runtime_handlers({"runc": "nspawn"}, own_users=True)] == [
        "",
        "nixos",
        "nspawn",
        "runc",
        "unit",
    ]


@pytest.mark.parametrize("own_users", [True, False])
def test_the_node_says_what_each_handler_can_do(own_users: bool) -> None:
    can = {each["name"]: each["features"] for each in handlers.runtime_handlers({"runc": "nspawn"}, own_users=own_users)}
    for name in ("", "nspawn", "runc"):
        assert can[name] == {"recursiveReadOnlyMounts": True, "userNamespaces": own_users}
    assert can["nixos"] == {"recursiveReadOnlyMounts": True, "userNamespaces": False}
    assert can["unit"] == {"recursiveReadOnlyMounts": False, "userNamespaces": False}


def spec(own: dict[str, Any] | None = None, **of_pod: Any) -> dict[str, Any]:
    return {"containers": [container(**(own or {}))], **of_pod}


ROOTLESS = {"securityContext": {"readOnlyRootFilesystem": True}}
MOUNT = {"volumeMounts": [{"name": "v", "mountPath": "/data"}]}
MESSAGE = {"terminationMessagePath": "/tmp/message"}


@pytest.mark.parametrize(
    ("handler", "asked", "path"),
    [
        (Handler.UNIT, spec(ROOTLESS), "spec.containers[0].securityContext.readOnlyRootFilesystem"),
        (Handler.UNIT, spec(hostname="a"), "spec.hostname"),
        (Handler.UNIT, spec(MOUNT, volumes=[{"name": "v", "emptyDir": {}}]), "spec.containers[0].volumeMounts[0].mountPath"),
        (Handler.UNIT, spec(MESSAGE), "spec.containers[0].terminationMessagePath"),
        (Handler.NIXOS, spec(), "spec.containers[0].command"),
        (Handler.NIXOS, spec({"command": None}, securityContext={"runAsUser": 7}), "spec.securityContext.runAsUser"),
        (Handler.NIXOS, spec({"command": None}, hostAliases=[{"ip": "192.0.2.1"}]), "spec.hostAliases"),
    ],
)
def test_what_means_nothing_on_a_handler_is_refused_there_alone(handler: Handler, asked: dict[str, Any], path: str) -> None:
    with pytest.raises(Refused) as refused:
        fields.check(asked, handler)
    assert (refused.value.field, bool(refused.value.remedy)) == (path, True)
    fields.check(asked)


@pytest.mark.parametrize("target", ["/run/app", "/var/run/secrets/kubernetes.io/serviceaccount"])
def test_a_unit_may_have_volumes_below_run(target: str) -> None:
    mount = {"volumeMounts": [{"name": "v", "mountPath": target}], "terminationMessagePath": "/dev/termination-log"}
    fields.check(spec(mount, volumes=[{"name": "v", "emptyDir": {}}]), Handler.UNIT)


@pytest.mark.parametrize("target", ["/run", "/run/", "/run/../etc", "/run/systemd/x", "/run/vknix", "run/x", "//run/x"])
def test_no_volume_of_a_unit_covers_what_is_the_hosts(target: str) -> None:
    mount = {"volumeMounts": [{"name": "v", "mountPath": target}]}
    with pytest.raises(Refused, match="mountPath"):
        fields.check(spec(mount, volumes=[{"name": "v", "emptyDir": {}}]), Handler.UNIT)


def test_each_exception_is_about_a_field_that_is_honoured_or_refused_in_the_table() -> None:
    assert [
        path for path in INSTEAD if not any(f"{field}.".startswith((f"spec.{path}.", f"spec.{path}[")) for field in FIELDS)
    ] == []


def test_each_refusal_of_a_handler_names_a_remedy() -> None:
    rules = [(path, rule.on(handler)) for path, rule in FIELDS.items() for handler in Handler]
    assert [path for path, rule in rules if rule.verdict is Verdict.REFUSED and not (rule.why and rule.remedy)] == []
