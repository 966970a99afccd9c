"""What can't be had, now or at all: sometimes a random Pod asks for it."""

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

from tests.bench import programs
from tests.bench.making import Making, Reaches

Json = dict[str, Any]
Trouble = Callable[[Making, Json], Reaches]

NOTHING = "nix:0/nix/store/00000000000000000000000000000000-nothing"


def _env(source: Json) -> Trouble:
    def trouble(making: Making, main: Json) -> Reaches:
        main.setdefault("env", []).append({"name": "X", "valueFrom": source})
        return Reaches.HELD

    return trouble


def _file(making: Making, main: Json) -> Reaches:
    """Which nobody has written."""
    ref = {"volumeName": "trouble", "path": "absent", "key": "X", "optional": True}
    main.setdefault("env", []).append({"name": "X", "valueFrom": {"fileKeyRef": ref}})
    making.volumes["trouble"] = {"emptyDir": {}}
    return Reaches.HELD


def _protocol(making: Making, main: Json) -> Reaches:
    """Of a host's port."""
    if not making.own_network:
        return making.reaches
    main["ports"] = [{"containerPort": 8080, "hostPort": making.host_port(main["name"]), "protocol": "SCTP"}]
    return Reaches.REFUSED


def _volume(source: Json, reaches: Reaches = Reaches.HELD) -> Trouble:
    def trouble(making: Making, main: Json) -> Reaches:
        making.volumes["trouble"] = source
        main.setdefault("volumeMounts", []).append({"name": "trouble", "mountPath": f"{making.root}/trouble"})
        return reaches

    return trouble


def _image(reference: str) -> Trouble:
    def trouble(making: Making, main: Json) -> Reaches:
        main["image"] = reference
        return Reaches.HELD

    return trouble


def _absent(making: Making, main: Json) -> Reaches:
    """Its Pod begins, and ends or goes on as its policy says."""
    if "command" in main:
        main["command"] = ["/no/such/program", "x"]
        making.truths[main["name"]] = programs.ABSENT
    return Reaches.BEGUN


def _root(making: Making, main: Json) -> Reaches:
    if making.handler == "nixos":
        return Reaches.RUNNING
    main["securityContext"] = {"runAsNonRoot": True, "runAsUser": 0}
    return Reaches.HELD


def _refused(**fields: Any) -> Trouble:
    def trouble(making: Making, main: Json) -> Reaches:
        main.setdefault("securityContext", {}).update(fields)
        return Reaches.REFUSED

    return trouble


def _hook(making: Making, main: Json) -> Reaches:
    main.setdefault("lifecycle", {})["postStart"] = {"tcpSocket": {"port": 8080}}
    return Reaches.REFUSED


def _unsafe(making: Making, main: Json) -> Reaches:
    making.spec.pop("hostIPC", None)
    making.spec.setdefault("securityContext", {})["sysctls"] = [{"name": "kernel.msgmax", "value": "10000"}]
    return Reaches.REFUSED


def _walls(making: Making, main: Json) -> Reaches:
    """Of a unit, which has none."""
    if making.handler != "unit":
        return making.reaches
    main.setdefault("securityContext", {})["readOnlyRootFilesystem"] = True
    return Reaches.REFUSED


def _odd_name(making: Making, main: Json) -> Reaches:
    """Of a variable: for a system's init alone."""
    main.setdefault("env", []).append({"name": "odd.name", "value": "x"})
    return Reaches.HELD if making.handler == "nixos" else making.reaches


def _no_class(making: Making, main: Json) -> Reaches:
    making.spec["runtimeClassName"] = "nobody-has-it"
    return Reaches.HELD


TROUBLES: Mapping[str, Trouble] = {
    "no secret": _env({"secretKeyRef": {"name": "absent", "key": "x"}}),
    "no key": _env({"configMapKeyRef": {"name": "map", "key": "absent"}}),
    "no file": _file,
    "protocol": _protocol,
    "no map": _volume({"configMap": {"name": "absent"}}),
    "no item": _volume({"secret": {"secretName": "hidden", "items": [{"key": "absent", "path": "x"}]}}),
    "no folder": _volume({"hostPath": {"path": "/no/such/folder", "type": "Directory"}}),
    "no closure": _image(NOTHING),
    "no closure as a volume": _volume({"image": {"reference": NOTHING}}),
    "no image": _image("Not A Name"),
    "no program": _absent,
    "root": _root,
    "no class": _no_class,
    "label": _refused(appArmorProfile={"type": "Unconfined"}),
    "profile": _refused(seccompProfile={"type": "Localhost", "localhostProfile": "own.json"}),
    "driver": _volume({"csi": {"driver": "csi.example.com"}}, Reaches.REFUSED),
    "hook": _hook,
    "unsafe": _unsafe,
    "walls": _walls,
    "odd name": _odd_name,
}


def perhaps(making: Making) -> None:
    """One of eight Pods is in trouble, by its first container."""
    if making.draw(st.integers(0, 7)) == 0:
        name = making.draw(st.sampled_from(sorted(TROUBLES)))
        making.come_to(TROUBLES[name](making, making.spec["containers"][0]))
