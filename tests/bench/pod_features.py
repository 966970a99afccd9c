"""What a random Pod as a whole may have: a table by name, of functions that draw it and write it down. Part of features.py."""

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

from tests.bench.making import Making, Reaches

Json = dict[str, Any]
Feature = Callable[[Making, Json], None]


def _users(making: Making, spec: Json) -> None:
    context: st.SearchStrategy[Json] = st.fixed_dictionaries(
        {"runAsUser": st.just(1000), "runAsNonRoot": st.just(True)},
        optional={
            "runAsGroup": st.sampled_from((0, 1000)),
            "supplementalGroups": st.just([5, 6]),
            "fsGroup": st.just(2000),
            "fsGroupChangePolicy": st.sampled_from(("Always", "OnRootMismatch")),
        },
    )
    spec["securityContext"] = {**spec.get("securityContext", {}), **making.draw(context)}


def _sysctls(making: Making, spec: Json) -> None:
    if making.own_network:
        wanted = [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]
        spec.setdefault("securityContext", {})["sysctls"] = wanted


def _names(making: Making, spec: Json) -> None:
    spec["hostname"] = "named"
    if making.draw(st.booleans()):
        spec |= {"subdomain": "below", "setHostnameAsFQDN": making.draw(st.booleans())}


def _aliases(making: Making, spec: Json) -> None:
    spec["hostAliases"] = [{"ip": "192.0.2.7", "hostnames": ["a.example", "b"]}]


def _dns(making: Making, spec: Json) -> None:
    spec["dnsPolicy"] = making.draw(st.sampled_from(("None", "Default", "ClusterFirst", "ClusterFirstWithHostNet")))
    spec["dnsConfig"] = {"nameservers": ["192.0.2.53"], "searches": ["example.org"], "options": [{"name": "ndots", "value": "2"}]}


def _host_network(making: Making, spec: Json) -> None:
    if spec.get("hostUsers") is not False and "sysctls" not in spec.get("securityContext", {}):
        spec["hostNetwork"] = True


def _host_processes(making: Making, spec: Json) -> None:
    if spec.get("hostUsers") is not False and not spec.get("shareProcessNamespace"):
        spec["hostPID"] = True


def _host_ipc(making: Making, spec: Json) -> None:
    if spec.get("hostUsers") is not False:
        spec["hostIPC"] = True


def _own_users(making: Making, spec: Json) -> None:
    if not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        spec["hostUsers"] = False


def _share(making: Making, spec: Json) -> None:
    if not spec.get("hostPID"):
        spec["shareProcessNamespace"] = True


def _deadline(making: Making, spec: Json) -> None:
    spec["activeDeadlineSeconds"] = making.draw(st.integers(2, 8))
    making.come_to(Reaches.BEGUN)


def _gates(making: Making, spec: Json) -> None:
    spec["readinessGates"] = [{"conditionType": "example.com/never"}]


def _pod_resources(making: Making, spec: Json) -> None:
    spec["resources"] = {"requests": {"cpu": "150m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}}


def _no_token(making: Making, spec: Json) -> None:
    spec["automountServiceAccountToken"] = False
    spec["enableServiceLinks"] = False


_POD_ANY: Mapping[str, Feature] = {
    "dns": _dns,
    "deadline": _deadline,
    "gates": _gates,
    "resources": _pod_resources,
    "no token": _no_token,
}
_POD_UNIT: Mapping[str, Feature] = {**_POD_ANY, "users": _users, "aliases": _aliases, "host network": _host_network}
_POD_NSPAWN: Mapping[str, Feature] = {
    **_POD_UNIT,
    "sysctls": _sysctls,
    "names": _names,
    "host processes": _host_processes,
    "host ipc": _host_ipc,
    "own users": _own_users,
    "share": _share,
}
_POD_HAS: Mapping[str, Mapping[str, Feature]] = {"nspawn": _POD_NSPAWN, "unit": _POD_UNIT, "nixos": _POD_ANY}


def decorate(making: Making) -> None:
    has = _POD_HAS[making.handler]
    for name in making.draw(st.lists(st.sampled_from(list(has)), max_size=4, unique=True)):
        has[name](making, making.spec)
