"""A seed -> Pods of all kinds that vknix takes, and how each is to be treated. The same seed makes the same Pods.

A case is drawn by hypothesis: a handler, programs whose ends are known, a few features of tests/bench/features.py for the Pod and
for each container, sometimes a trouble. What holds the case back, or ends it early, is known from what was drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.bench import env_file, features, pod_features, programs, troubles, volumes
from tests.bench.making import Making, Reaches
from tests.bench.programs import Truth
from tests.integration.build import container, pod

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Treatment:
    """`until`: made, reached (what the case comes to) or ended. `after_s`: seconds between that and the DELETE. `grace_s` None: the
    Pod's. `look`: an ephemeral container that is added then. `relabel`: labels change then.

    `forced`: it goes from the API at once.
    """

    until: str
    after_s: float
    grace_s: int | None
    forced: bool
    look: Json | None
    relabel: bool


@dataclass(frozen=True, slots=True)
class Case:
    """`beside`: persistent volumes that are there for this Pod alone."""

    pod: Json
    beside: tuple[Json, ...]
    treatment: Treatment
    reaches: Reaches
    truths: Mapping[str, Truth]


def case(of: int, number: int, images: Mapping[str, str]) -> Case:
    """Each number has a draw of its own, so that one Pod can be made again alone."""
    drawn: list[Case] = []

    @seed(f"{of}-{number}")
    @settings(max_examples=2, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(cases(f"soak-{number}", images))
    def draw(one: Case) -> None:
        drawn.append(one)

    draw()
    return drawn[-1]  # hypothesis begins with the simplest


@st.composite
def cases(draw: st.DrawFn, name: str, images: Mapping[str, str]) -> Case:
    handler = draw(st.sampled_from(("nspawn",) * 16 + ("unit",) * 3 + ("nixos",)))
    making = Making(draw, images, name, handler, pod(name))
    spec = making.spec
    spec["restartPolicy"] = draw(st.sampled_from(("Never", "Never", "OnFailure", "Always")))
    spec["terminationGracePeriodSeconds"] = draw(st.sampled_from((0, 1, 1, 2, 2, 5, 5, 5)))
    making.of["metadata"]["labels"] = {"app": "soak", "part": str(draw(st.integers(0, 4)))}
    if handler != "nspawn" or draw(st.integers(0, 9)) == 0:
        spec["runtimeClassName"] = handler
    pod_features.decorate(making)
    spec["initContainers"] = [_init(making, index) for index in range(draw(st.sampled_from((0, 0, 0, 1, 2, 3))))]
    spec["containers"] = [_regular(making, index) for index in range(draw(st.sampled_from((1, 1, 1, 2, 3))))]
    if making.writes:
        spec["initContainers"].insert(0, env_file.writer(making))
    troubles.perhaps(making)
    for each in (*spec["initContainers"], *spec["containers"]):
        _settle(making, each)
    spec["volumes"] = [{"name": kind, **volume} for kind, volume in making.volumes.items()]
    return Case(making.of, volumes.beside(making), _treatment(making), making.reaches, making.truths)


def _regular(making: Making, index: int) -> Json:
    name = f"c{index}"
    if making.handler == "nixos":
        making.truths[name] = programs.SYSTEM
        made: Json = {"name": name, "image": making.images["system"]}
    else:
        made = _program(making, name, serves=index == 0 and making.own_network and making.draw(st.integers(0, 3)) == 0)
    features.decorate(making, made, kind="regular")
    return made


def _program(making: Making, name: str, *, serves: bool) -> Json:
    known = {**programs.SHORT, **programs.LONG}
    weighted = (*programs.SHORT, *programs.LONG, *programs.LONG)
    script = programs.SERVES if serves else making.draw(st.sampled_from(weighted))
    making.truths[name] = known.get(script, Truth())
    return container(making.images["busybox"], script, name=name)


def _init(making: Making, index: int) -> Json:
    """A sidecar, or one that ends; a system has none of these beside it but as containers of other images."""
    if making.handler == "nixos":
        name = f"side{index}"
        making.truths[name] = replace(programs.SYSTEM, disturbed=True)
        return {"name": name, "image": making.images["system"], "restartPolicy": "Always"}
    if making.draw(st.integers(0, 9)) < 4:
        made = _program(making, f"side{index}", serves=False)
        made["restartPolicy"] = "Always"
        features.decorate(making, made, kind="sidecar")
        making.disturb(made["name"])  # the end of the others is its own
        if making.truths[made["name"]].codes:
            making.come_to(Reaches.BEGUN)
        return made
    script, code = making.draw(st.sampled_from((("exit 0", 0), ("exit 0", 0), ("sleep 0.3", 0), ("exit 4", 4))))
    made = container(making.images["busybox"], script, name=f"init{index}")
    making.truths[made["name"]] = Truth(codes=frozenset({code}))
    if code:
        making.come_to(Reaches.BEGUN)
    features.decorate(making, made, kind="init")
    return made


def _settle(making: Making, of: Json) -> None:
    """What is known of a container once all of its Pod is drawn; and the line that bears witness of its starts."""
    name = of["name"]
    if making.spec.get("activeDeadlineSeconds") or making.together:
        making.disturb(name)
    policy = of.get("restartPolicy", making.spec["restartPolicy"])
    once = policy == "Never" and not of.get("restartPolicyRules") and not making.together
    truth = replace(making.truths[name], once=once)
    if making.handler == "nixos" or not truth.witnessed:
        making.truths[name] = replace(truth, witnessed=False)
        return
    making.truths[name] = truth
    making.volumes["soak"] = {"hostPath": {"path": programs.FOLDER, "type": "Directory"}}
    of.setdefault("volumeMounts", []).append({"name": "soak", "mountPath": f"{making.root}/soak"})
    of["command"][-1] = programs.witness(f"{making.root}/soak", making.name, name) + of["command"][-1]


def _treatment(making: Making) -> Treatment:
    draw, spec = making.draw, making.spec
    until = draw(st.sampled_from(("made", "reached", "reached", "reached", *(("ended",) * 3 if _ends(making) else ()))))
    grace = draw(st.sampled_from((None,) * 10 + (1, 3, 0)))
    forced = 0 in (grace, spec["terminationGracePeriodSeconds"] if grace is None else grace)
    look = None
    if making.handler == "nspawn" and making.reaches is Reaches.RUNNING and until == "reached" and draw(st.integers(0, 7)) == 0:
        look = _look(making)
    relabel = until == "reached" and draw(st.integers(0, 7)) == 0
    return Treatment(until, draw(st.sampled_from((0.0, 0.3, 2.0, 5.0))), grace, forced, look, relabel)


def _ends(making: Making) -> bool:
    """Whether its Pod comes to an end by itself, soon."""
    spec = making.spec
    if making.reaches is Reaches.REFUSED:
        return True
    if making.reaches is Reaches.HELD:
        return False
    if spec.get("activeDeadlineSeconds"):
        return True
    plain = [of for of in spec["initContainers"] if of.get("restartPolicy") != "Always"]
    each = [making.truths[of["name"]] for of in spec["containers"]]
    return (
        spec["restartPolicy"] == "Never"
        and all(of.codes and of.once for of in each)
        and all(making.truths[of["name"]].once for of in plain)
        and not (making.reaches is Reaches.BEGUN and len(plain) < len(spec["initContainers"]))
    )


def _look(making: Making) -> Json:
    """An ephemeral container: among the processes of another, or beside them."""
    script = making.draw(st.sampled_from((*programs.SHORT, *programs.LONG)))
    made = container(making.images["busybox"], script, name="look")
    if making.draw(st.booleans()):
        made["targetContainerName"] = making.spec["containers"][0]["name"]
    truth = {**programs.SHORT, **programs.LONG}[script]
    late = programs.ABSENT.codes  # its target may have ended when it begins
    making.truths["look"] = replace(truth, stopped=truth.stopped | late, disturbed=True, once=True, witnessed=False)
    return made
