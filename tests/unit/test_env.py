"""vknix.core.env: the environment as a kubelet makes it."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import UID, around, container, pod
from vknix.core import env
from vknix.core.container import FieldSelector
from vknix.core.fetched import Fetched, ObjectKey, Service, ServicePort
from vknix.errors import Refused

WEB = Service("shop", "my-svc", "10.96.0.7", (ServicePort("http", 80, "TCP"), ServicePort("dns-udp", 53, "UDP")))
KUBERNETES = Service("default", "kubernetes", "10.96.0.1", (ServicePort("https", 443, "TCP"),))
DATA = Fetched(
    {
        ObjectKey("ConfigMap", "c"): {"A": b"of c", "B": b"b"},
        ObjectKey("Secret", "s"): {"A": b"of s", "key": b"\xff"},
        ObjectKey("Secret", "none"): None,
    }
)


def made(fetched: Fetched = DATA, spec: Mapping[str, Any] | None = None, **of_container: Any) -> dict[str, str]:
    of = pod(container(**of_container), **(spec or {}))
    return env.environment(of, "spec.containers[0]", of.spec.containers[0], fetched, around())


def go_expand(text: str, of: Mapping[str, str]) -> str:
    """third_party/forked/golang/expansion, word for word."""
    out, at, checkpoint = "", 0, 0
    while at < len(text):
        if text[at] == "$" and at + 1 < len(text):
            out += text[checkpoint:at]
            read, is_variable, advance = _go_read(text[at + 1 :])
            out += of.get(read, f"$({read})") if is_variable else read
            at += advance
            checkpoint = at + 1
        at += 1
    return out + text[checkpoint:]


def _go_read(text: str) -> tuple[str, bool, int]:
    if text[0] == "$":
        return "$", False, 1
    if text[0] == "(":
        end = text.find(")", 1)
        return (text[1:end], True, end + 1) if end >= 0 else ("$(", False, 1)
    return "$" + text[0], False, 1


@given(st.text("$()aB\n", max_size=14), st.dictionaries(st.text("aB$(", max_size=2), st.text("$()x", max_size=4)))
def test_expand_is_gos(text: str, of: dict[str, str]) -> None:
    assert env.expand(text, of) == go_expand(text, of)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(NONE)", "$(NONE)"),
        ("$A ${A} `A`", "$A ${A} `A`"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("$()", "$()"),
        ("$(LOOP)", "$(LOOP)"),
        ("50%", "50%"),
    ],
)
def test_expand(text: str, expanded: str) -> None:
    assert env.expand(text, {"A": "1", "LOOP": "$(LOOP)"}) == expanded


def test_later_sources_win() -> None:
    services = (KUBERNETES,)
    variables = [{"name": "P_B", "value": "own"}, {"name": "KUBERNETES_SERVICE_HOST", "value": "mine"}]
    of = made(
        Fetched(DATA.objects, {}, services),
        envFrom=[{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}, {"prefix": "P_", "configMapRef": {"name": "c"}}],
        env=variables,
    )
    assert (of["A"], of["P_A"], of["P_B"], of["B"]) == ("of s", "of c", "own", "b")
    assert (of["KUBERNETES_SERVICE_HOST"], of["KUBERNETES_SERVICE_PORT"]) == ("mine", "443")


def test_values_see_what_comes_before_them() -> None:
    variables = [{"name": "X", "value": "$(A)-$(Y)"}, {"name": "Y", "value": "$(X)"}, {"name": "X", "value": "$(Y)!"}]
    of = made(envFrom=[{"configMapRef": {"name": "c"}}], env=variables)
    assert of == {"A": "of c", "B": "b", "X": "of c-$(Y)!", "Y": "of c-$(Y)"}


def test_what_is_fetched_is_not_expanded() -> None:
    fetched = Fetched({ObjectKey("ConfigMap", "c"): {"A": b"$(HOME) $$"}})
    ref = {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "A"}}}
    assert made(fetched, envFrom=[{"configMapRef": {"name": "c"}}], env=[ref]) == {"A": "$(HOME) $$", "B": "$(HOME) $$"}


def test_odd_values_stay_as_they_are() -> None:
    odd = "a\nb\t'\" \\ %n $HOME \x01 é " + "x" * 200_000
    assert made(env=[{"name": "X", "value": odd}, {"name": "EMPTY"}]) == {"X": odd, "EMPTY": ""}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"envFrom": [{"configMapRef": {"name": "x"}}]}, 'configmap "x" not found'),
        ({"envFrom": [{"secretRef": {"name": "none"}}]}, 'secret "none" not found'),
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]}, 'secret "none" not found'),
        ({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]}, "find key k in ConfigMap shop/c"),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.secrets"}}}]}, "is no field of the downward API"),
    ],
)
def test_what_is_missing_is_a_config_error(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        made(**asked)
    assert refused.value.reason == "CreateContainerConfigError"


def test_optional_sources_may_be_missing() -> None:
    refs: list[dict[str, Any]] = [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "none", "optional": True}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k", "optional": True}}},
    ]
    assert made(envFrom=[{"secretRef": {"name": "none", "optional": True}}], env=refs) == {}


META = {"labels": {"app": "web", "z": "1"}, "annotations": {"a/b": 'line\nnext "q" \\ é\x01\x7f\u00a0'}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", UID),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['a/b']", META["annotations"]["a/b"]),
        ("metadata.labels", 'app="web"\nz="1"'),
        ("metadata.annotations", r'a/b="line\nnext \"q\" \\ é\x01\x7f\u00a0"'),
        ("spec.nodeName", "pool"),
        ("spec.serviceAccountName", "robot"),
        ("status.hostIP", "192.0.2.1"),
        ("status.podIP", "10.0.0.2"),
        ("status.podIPs", "10.0.0.2"),
    ],
)
def test_downward_api(path: str, value: str) -> None:
    of = pod(metadata=META, serviceAccountName="robot")
    assert env.field_value(of, FieldSelector(field_path=path), around(), "f") == value


def test_service_variables_are_dockers() -> None:
    links = dict(env.service_links(pod(), [WEB]))
    assert links == {
        "MY_SVC_SERVICE_HOST": "10.96.0.7",
        "MY_SVC_SERVICE_PORT": "80",
        "MY_SVC_SERVICE_PORT_HTTP": "80",
        "MY_SVC_SERVICE_PORT_DNS_UDP": "53",
        "MY_SVC_PORT": "tcp://10.96.0.7:80",
        "MY_SVC_PORT_80_TCP": "tcp://10.96.0.7:80",
        "MY_SVC_PORT_80_TCP_PROTO": "tcp",
        "MY_SVC_PORT_80_TCP_PORT": "80",
        "MY_SVC_PORT_80_TCP_ADDR": "10.96.0.7",
        "MY_SVC_PORT_53_UDP": "udp://10.96.0.7:53",
        "MY_SVC_PORT_53_UDP_PROTO": "udp",
        "MY_SVC_PORT_53_UDP_PORT": "53",
        "MY_SVC_PORT_53_UDP_ADDR": "10.96.0.7",
    }


def test_links_that_are_off_leave_the_api_server() -> None:
    links = dict(env.service_links(pod(enableServiceLinks=False), [WEB, KUBERNETES]))
    assert {name.split("_")[0] for name in links} == {"KUBERNETES"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_service_named_kubernetes_of_the_own_namespace_wins(order: tuple[int, int]) -> None:
    own = Service("shop", "kubernetes", "10.96.0.99", (ServicePort("", 80, "TCP"),))
    services = [(own, KUBERNETES)[index] for index in order]
    assert dict(env.service_links(pod(), services))["KUBERNETES_SERVICE_HOST"] == "10.96.0.99"


def test_ipv6_services_have_brackets_in_urls_only() -> None:
    links = dict(env.service_links(pod(), [Service("shop", "six", "fd00::1", (ServicePort("", 80, "TCP"),))]))
    assert (links["SIX_PORT"], links["SIX_SERVICE_HOST"]) == ("tcp://[fd00::1]:80", "fd00::1")
