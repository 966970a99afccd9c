"""Variables of random Pods that come from a file, which an init container has written just before."""

from typing import Any

from tests.bench.making import Making
from tests.bench.programs import Truth
from tests.integration.build import container

Json = dict[str, Any]

NAME = "writes"
VOLUME = "said"
WRONG = 99  # what a program exits with that was told something else
_CHECK = f"[ \"$SAID ${{NOTHING-unset}}\" = 'two words unset' ] || exit {WRONG}\n"


def take(making: Making, of: Json) -> None:
    """One variable that is there, and one that need not be; the program sees to it that they are so."""
    names: dict[str, Json] = {"SAID": {}, "NOTHING": {"optional": True}}
    for name, more in names.items():
        ref = {"volumeName": VOLUME, "path": "in/env", "key": name, **more}
        of.setdefault("env", []).append({"name": name, "valueFrom": {"fileKeyRef": ref}})
    of["command"][-1] = _CHECK + of["command"][-1]
    making.volumes[VOLUME] = {"emptyDir": {}}
    making.writes = True


def writer(making: Making) -> Json:
    """The init container, which is to be the first one."""
    folder = f"{making.root}/{VOLUME}"
    making.truths[NAME] = Truth(codes=frozenset({0}))
    script = f"mkdir -p {folder}/in; printf \"# ours\\nSAID='two words' # why\\n\" > {folder}/in/env"
    return container(making.images["busybox"], script, name=NAME, volumeMounts=[{"name": VOLUME, "mountPath": folder}])
