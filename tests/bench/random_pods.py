"""A seed -> Pods of all kinds that vknix takes, and how each is to be treated. The same seed makes the same Pods."""

from dataclasses import dataclass
from random import Random
from typing import Any

from tests.integration.build import container, pod

Json = dict[str, Any]

CONFIG_MAP = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "map"}, "data": {"one": "first", "two": "x" * 20000}}
SECRET = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "hidden"}, "stringData": {"word": "marker", ".dot": "y"}}
OBJECTS = (CONFIG_MAP, SECRET)

# Programs by how they go on. None outlives its Pod's grace by more than the kubelet's two seconds.
_SHORT = (
    "exit 0",
    "exit 3",
    "echo done; echo said > /dev/termination-log",
    "kill -9 $$",
    "seq 2000; sleep 0.2",
    "sleep 0.5; exit 1",
    "sh -c 'sleep 100 & exit 0'",
)
_LONG = (
    "exec sleep 1000",
    "trap 'exit 0' TERM; sleep 1000 & wait",
    "trap '' TERM; sleep 1000",
    "(sleep 900 &); (sleep 900 &); exec sleep 1000",
    "while :; do date; sleep 1; done",
)


@dataclass(frozen=True, slots=True)
class Treatment:
    """`after`: seconds between what is waited for and the DELETE. `until`: made, begun or ended. `grace_s` None: the Pod's.

    `forced`: it goes from the API at once.
    """

    until: str
    after_s: float
    grace_s: int | None
    forced: bool


@dataclass(frozen=True, slots=True)
class Case:
    pod: Json
    treatment: Treatment


def case(seed: int, number: int, image: str) -> Case:
    dice = Random(f"{seed}-{number}")
    made = _pod(dice, f"soak-{number}", image)
    spec = made["spec"]
    ends = spec["restartPolicy"] == "Never" and all(each["command"][-1] in _SHORT for each in spec["containers"])
    until = dice.choice(("made", "begun", "begun", "ended" if ends else "begun"))
    grace = 0 if dice.random() < 0.08 else dice.choice((None, None, 1, 3))
    forced = 0 in (grace, spec["terminationGracePeriodSeconds"] if grace is None else grace)
    return Case(made, Treatment(until, dice.choice((0.0, 0.3, 2.0, 5.0)), grace, forced))


def _pod(dice: Random, name: str, image: str) -> Json:
    restart = dice.choice(("Never", "Never", "OnFailure", "Always"))
    containers = [_container(dice, f"c{index}", image) for index in range(dice.choice((1, 1, 1, 2, 3)))]
    of = pod(name, *containers, restart=restart, grace_s=dice.choice((0, 1, 2, 5)))
    spec = of["spec"]
    spec["initContainers"] = [_init(dice, index, image) for index in range(dice.choice((0, 0, 0, 1, 2)))]
    spec["volumes"] = _VOLUMES
    spec["automountServiceAccountToken"] = dice.random() < 0.5
    of["metadata"]["labels"] = {"app": "soak", "part": str(dice.randrange(5))}
    for some in (_names, _user, _refused):
        some(dice, spec)
    return of


def _init(dice: Random, index: int, image: str) -> Json:
    if dice.random() < 0.4:
        return container(image, dice.choice(_LONG), name=f"side{index}", restartPolicy="Always")
    return container(image, dice.choice(("exit 0", "exit 0", "sleep 0.3", "exit 4")), name=f"init{index}")


_VOLUMES: list[Json] = [
    {"name": "room", "emptyDir": {}},
    {"name": "map", "configMap": {"name": "map", "defaultMode": 0o640}},
    {"name": "hidden", "secret": {"secretName": "hidden", "items": [{"key": "word", "path": "deep/er/word", "mode": 0o400}]}},
    {"name": "about", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    {
        "name": "together",
        "projected": {"sources": [{"configMap": {"name": "map"}}, {"serviceAccountToken": {"path": "token", "audience": "a"}}]},
    },
    {"name": "perhaps", "configMap": {"name": "absent", "optional": True}},
]
_ENV: list[Json] = [
    {"name": "PLAIN", "value": "a $(POD_NAME) b"},
    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "word"}}},
    {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "one"}}},
    {"name": "odd.name-1", "value": "sp ace\nand 'quotes' \"é\""},
    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    {"name": "BIG", "value": "x" * 60000},
]


def _container(dice: Random, name: str, image: str) -> Json:
    of = container(image, dice.choice((*_SHORT, *_LONG, *_LONG)), name=name)
    of["env"] = [dict(each) for each in _ENV if dice.random() < 0.3]
    of["volumeMounts"] = [{"name": each["name"], "mountPath": f"/v/{each['name']}"} for each in _VOLUMES if dice.random() < 0.3]
    if dice.random() < 0.3:
        of["envFrom"] = [{"prefix": "P_", "configMapRef": {"name": "map"}}]
    if dice.random() < 0.3:
        of["securityContext"] = dice.choice(_SECURITY)
    if dice.random() < 0.3:
        of[dice.choice(("livenessProbe", "readinessProbe", "startupProbe"))] = {
            "exec": {"command": dice.choice((["true"], ["false"], ["sleep", "3"]))},
            "periodSeconds": 1,
            "failureThreshold": 2,
        }
    if dice.random() < 0.3:
        of["resources"] = {"requests": {"cpu": f"{dice.randrange(1, 20)}m", "memory": "8Mi"}}
    if dice.random() < 0.2:
        of["terminationMessagePolicy"] = "FallbackToLogsOnError"
    return of


_SECURITY: tuple[Json, ...] = (
    {"runAsUser": 65534, "runAsGroup": 7},
    {"readOnlyRootFilesystem": True},
    {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    {"capabilities": {"add": ["NET_ADMIN"]}, "seccompProfile": {"type": "RuntimeDefault"}},
)


def _names(dice: Random, spec: Json) -> None:
    if dice.random() < 0.2:
        spec |= {"hostname": "named", "subdomain": "below", "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["a.example", "b"]}]}
    if dice.random() < 0.2:
        spec |= {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.53"], "searches": ["example.org"]}}


def _user(dice: Random, spec: Json) -> None:
    if dice.random() < 0.2:
        spec["securityContext"] = {"runAsUser": 1000, "runAsNonRoot": True, "supplementalGroups": [5, 6]}


def _refused(dice: Random, spec: Json) -> None:
    """Sometimes something that can't be had: now, or at all."""
    main = spec["containers"][0]
    wrong = dice.random()
    if wrong < 0.03:
        main["env"] = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "x"}}}]
    elif wrong < 0.05:
        main["securityContext"] = {"seLinuxOptions": {"level": "s0"}}
    elif wrong < 0.07:
        main["command"] = ["/no/such/program"]
    elif wrong < 0.09:
        main["image"] = "nix:0/nix/store/00000000000000000000000000000000-nothing"
