"""What a random Pod and its containers may have: a table by name for each, of functions that draw it and write it down.

`_UNIT` and `_NIXOS` name what these handlers have as well; all of it is had on nspawn.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from tests.bench import env_file, programs, volumes
from tests.bench.making import Making, Reaches

Json = dict[str, Any]
Feature = Callable[[Making, Json], None]

ENV: tuple[Json, ...] = (
    {"name": "PLAIN", "value": "a $(POD_NAME) b $(NOT_THERE) $$(POD_NAME)"},
    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    {"name": "HOST_IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIPs"}}},
    {"name": "PART", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['part']"}}},
    {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "word"}}},
    {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "one"}}},
    {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "one", "optional": True}}},
    {"name": "odd.name-1", "value": "sp ace\nand 'quotes' \"é\" %n %% \\ \t"},
    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Ki"}}},
    {"name": "BIG", "value": "x" * 60000},
    {"name": "EMPTY", "value": ""},
)
ENV_FROM: tuple[Json, ...] = (
    {"configMapRef": {"name": "map"}},
    {"prefix": "P_", "secretRef": {"name": "hidden"}},
    {"configMapRef": {"name": "absent", "optional": True}},
)


def _some(making: Making, of: tuple[Json, ...], at_most: int = 4) -> list[Json]:
    indexes = making.draw(st.lists(st.integers(0, len(of) - 1), min_size=1, max_size=at_most, unique=True))
    return [dict(of[index]) for index in indexes]


def _env(making: Making, of: Json) -> None:
    some = [each for each in _some(making, ENV) if making.handler != "nixos" or "." not in each["name"]]
    own = [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, *some]
    names = {each["name"] for each in own}
    of["env"] = [*own, *(each for each in of.get("env", ()) if each["name"] not in names)]


def _env_from(making: Making, of: Json) -> None:
    of["envFrom"] = _some(making, ENV_FROM if making.handler != "nixos" else ENV_FROM[:1], 2)  # of a key with a dot


def _secure(**drawn: st.SearchStrategy[Any]) -> Feature:
    def feature(making: Making, of: Json) -> None:
        context = of.setdefault("securityContext", {})
        context |= {name: making.draw(values) for name, values in drawn.items()}
        if context.get("privileged"):  # the API server takes only one of the two
            context.pop("allowPrivilegeEscalation", None)

    return feature


def _proc(making: Making, of: Json) -> None:
    of.setdefault("securityContext", {})["procMount"] = "Unmasked" if making.spec.get("hostUsers") is False else "Default"


HTTP = {"httpGet": {"path": "/", "port": 8080}}
_CHECKS: tuple[tuple[Json, bool], ...] = (
    ({"exec": {"command": ["true"]}}, True),
    ({"exec": {"command": ["sh", "-c", "echo fine"]}}, True),
    ({"exec": {"command": ["false"]}}, False),
    ({"exec": {"command": ["sleep", "3"]}}, False),
    ({"exec": {"command": ["no-such-program"]}}, False),
    (HTTP, False),
    ({"httpGet": {"path": "/x?y", "port": 8080, "httpHeaders": [{"name": "X-Of", "value": "soak"}]}}, False),
    ({"httpGet": {"path": "/", "port": 9, "scheme": "HTTPS"}}, False),
    ({"tcpSocket": {"port": 8080}}, False),
    ({"grpc": {"port": 9, "service": "any"}}, False),
)
_TIMES = st.fixed_dictionaries(
    {"periodSeconds": st.integers(1, 2), "failureThreshold": st.integers(1, 3)},
    optional={"timeoutSeconds": st.integers(1, 2), "initialDelaySeconds": st.integers(0, 2)},
)


def _probe(kind: str) -> Feature:
    def feature(making: Making, of: Json) -> None:
        check, good = making.draw(st.sampled_from(_CHECKS))
        probe = {**check, **making.draw(_TIMES)}
        if kind == "readinessProbe":
            probe["successThreshold"] = making.draw(st.integers(1, 2))
        elif making.draw(st.integers(0, 3)) == 0:
            probe["terminationGracePeriodSeconds"] = making.draw(st.integers(1, 3))
        of[kind] = probe
        if kind != "readinessProbe" and not (good and probe["failureThreshold"] > 1):  # one late answer ends nothing
            making.disturb(of["name"])
        if kind == "startupProbe" and of.get("restartPolicy") == "Always" and of["name"].startswith("side"):
            making.come_to(Reaches.BEGUN)

    return feature


_HOOKS: tuple[tuple[Json, bool], ...] = (
    ({"exec": {"command": ["true"]}}, True),
    ({"exec": {"command": ["sh", "-c", "sleep 1; echo hook"]}}, True),
    ({"sleep": {"seconds": 1}}, True),
    ({"exec": {"command": ["false"]}}, False),
    ({"exec": {"command": ["no-such-program"]}}, False),
    ({"httpGet": {"path": "/", "port": 9}}, False),
)


def _within_grace(making: Making, hook: Json, good: bool) -> tuple[Json, bool]:
    """The API server takes no sleep that is longer than the grace."""
    short = "sleep" in hook and making.spec["terminationGracePeriodSeconds"] <= 1
    return ({"exec": {"command": ["sleep", "1"]}} if short else hook), good


def _post_start(making: Making, of: Json) -> None:
    """One that fails ends its container; so does one whose container has ended before it could run."""
    hook, good = _within_grace(making, *making.draw(st.sampled_from(_HOOKS)))
    of.setdefault("lifecycle", {})["postStart"] = hook
    making.disturb(of["name"])
    if not good or making.truths[of["name"]].codes:
        making.come_to(Reaches.BEGUN)


def _pre_stop(making: Making, of: Json) -> None:
    hook, _ = _within_grace(making, *making.draw(st.sampled_from((*_HOOKS, ({"exec": {"command": ["sleep", "100"]}}, False)))))
    of.setdefault("lifecycle", {})["preStop"] = hook


def _stop_signal(making: Making, of: Json) -> None:
    signal = making.draw(st.sampled_from(programs.STOP_SIGNALS))
    making.spec["os"] = {"name": "linux"}
    of.setdefault("lifecycle", {})["stopSignal"] = signal
    truth = making.truths[of["name"]]
    making.truths[of["name"]] = replace(truth, stopped=truth.stopped | {programs.by_signal(signal)})


_AMOUNTS = st.fixed_dictionaries({"cpu": st.sampled_from(("1m", "10m", "0.02")), "memory": st.sampled_from(("8Mi", "16M"))})


def _resources(making: Making, of: Json) -> None:
    of["resources"] = {"requests": making.draw(_AMOUNTS), "limits": {"cpu": "1", "memory": "256Mi", "ephemeral-storage": "64Mi"}}


def _message(making: Making, of: Json) -> None:
    of["terminationMessagePolicy"] = "FallbackToLogsOnError"


def _working_dir(making: Making, of: Json) -> None:
    of["workingDir"] = making.draw(st.sampled_from(("/tmp", "/", "/nix")))


def _terminal(making: Making, of: Json) -> None:
    of |= making.draw(
        st.sampled_from(({"tty": True}, {"stdin": True}, {"stdin": True, "tty": True}, {"stdin": True, "stdinOnce": True}))
    )
    # A terminal's hangup is one more end; what reads a standard input that has ended goes on.


def _ports(making: Making, of: Json) -> None:
    if making.own_network:
        own: st.SearchStrategy[Json] = st.fixed_dictionaries(
            {"hostPort": st.just(making.host_port(of["name"]))},
            optional={"hostIP": st.sampled_from(("0.0.0.0", "127.0.0.1")), "protocol": st.sampled_from(("TCP", "UDP"))},
        )
        of["ports"] = [{"containerPort": 8080, "name": f"p-{of['name']}", **making.draw(st.one_of(st.just({}), own))}]


def _pull(making: Making, of: Json) -> None:
    of["imagePullPolicy"] = making.draw(st.sampled_from(("Always", "Never", "IfNotPresent")))


def _own_policy(making: Making, of: Json) -> None:
    of["restartPolicy"] = making.draw(st.sampled_from(("Never", "OnFailure", "Always")))


def _rules(making: Making, of: Json) -> None:
    """Restart is asked for by one exit code, or by all others."""
    operator = making.draw(st.sampled_from(("In", "NotIn")))
    of["restartPolicy"] = "Never"
    of["restartPolicyRules"] = [{"action": "Restart", "exitCodes": {"operator": operator, "values": [3, 137]}}]


def _rules_of_all(making: Making, of: Json) -> None:
    """Any failure that is the program's own restarts all containers of the Pod."""
    if "restartPolicyRules" in of:
        return
    codes = {"operator": "NotIn", "values": [0, 128, *sorted(programs.STOPPED)]}
    of["restartPolicy"] = "Never"
    of["restartPolicyRules"] = [{"action": "RestartAllContainers", "exitCodes": codes}]
    making.together = True
    if making.truths[of["name"]].codes:
        making.come_to(Reaches.BEGUN)


_ANY: Mapping[str, Feature] = {
    "env": _env,
    "env from": _env_from,
    "volumes": volumes.some,
    "resources": _resources,
    "message": _message,
    "pull": _pull,
    "ports": _ports,
}
_UNIT: Mapping[str, Feature] = {
    **_ANY,
    "user": _secure(runAsUser=st.sampled_from((1, 65534)), runAsGroup=st.sampled_from((0, 7))),
    "no new privileges": _secure(allowPrivilegeEscalation=st.just(False)),
    "no capabilities": _secure(capabilities=st.just({"drop": ["ALL"]})),
    "capabilities": _secure(capabilities=st.just({"add": ["NET_ADMIN", "SYS_TIME"], "drop": ["CHOWN"]})),
    "filter": _secure(seccompProfile=st.sampled_from(({"type": "RuntimeDefault"}, {"type": "Unconfined"}))),
    "working dir": _working_dir,
}
_NSPAWN: Mapping[str, Feature] = {
    **_UNIT,
    "read-only root": _secure(readOnlyRootFilesystem=st.just(True)),
    "privileged": _secure(privileged=st.just(True)),
    "proc": _proc,
    "terminal": _terminal,
    "labels": _secure(seLinuxOptions=st.just({"level": "s0:c1"})),
}
# Of containers that run beside others, and not of those that only end.
_BESIDE: Mapping[str, Feature] = {
    "liveness": _probe("livenessProbe"),
    "readiness": _probe("readinessProbe"),
    "startup": _probe("startupProbe"),
    "post start": _post_start,
    "pre stop": _pre_stop,
}
_REGULAR: Mapping[str, Feature] = {"own policy": _own_policy, "rules of all": _rules_of_all, "rules": _rules}
_PROGRAM: Mapping[str, Feature] = {"env file": env_file.take}  # of a regular container that runs a script
_HAS: Mapping[str, Mapping[str, Feature]] = {"nspawn": _NSPAWN, "unit": _UNIT, "nixos": _ANY}


def decorate(making: Making, of: Json, *, kind: str) -> None:
    """`kind`: regular, sidecar or init."""
    has = dict(_HAS[making.handler])
    if kind != "init":
        has |= _BESIDE
    if kind == "regular":
        has |= _REGULAR if making.handler == "nixos" else {**_REGULAR, **_PROGRAM}
    if kind != "init" and making.handler == "nspawn":
        has["stop signal"] = _stop_signal
    for name in making.draw(st.lists(st.sampled_from(list(has)), max_size=5, unique=True)):
        has[name](making, of)
