"""vknix.planning: what `vknix plan` prints, in full for some Pods."""

import json
from collections.abc import Callable

import pytest

from tests.unit.build import GOLDEN, golden, parses
from vknix import planning
from vknix.errors import Refused
from vknix.nspawn import files
from vknix.nspawn.tree import File

HEAD = "kind: Pod\nmetadata: {name: x}\nspec:\n"
MAIN = f"{HEAD}  containers:\n  - name: main\n    image: /nix/store/{'a' * 32}-x/bin/x\n"


NAMES = ["plain", "two", "readonly", "unit", "nixos"]


@pytest.mark.parametrize("name", NAMES)
def test_golden_plan(name: str) -> None:
    text = (GOLDEN / f"{name}.yaml").read_text()
    golden(f"{name}.txt", planning.describe(text) + configurations(text))


def configurations(text: str) -> str:
    """Each config.json, laid out for people."""
    made = files.files(planning.make(planning.read(text), planning.Options()), "", "0")
    configs = (entry for entry in made if isinstance(entry, File) and entry.path.endswith("/config.json"))
    return "".join(f"\n## {file.path}\n{json.dumps(json.loads(file.data), indent=2)}\n" for file in configs)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_to_be_run_is_a_script(name: str) -> None:
    text = (GOLDEN / f"{name}.yaml").read_text()
    parses(planning.preparation(text))
    parses(planning.commands(text))


@pytest.mark.parametrize("show", [planning.describe, planning.commands], ids=["plan", "commands"])
def test_values_are_not_shown(show: Callable[[str], str]) -> None:
    text = MAIN + "    env:\n    - {name: A, value: hunter2}\n"
    assert "hunter2" not in show(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "no YAML"),
        ("", "no Pod"),
        ("[]", "no Pod"),
        ("kind: Deployment\nspec: {}", "no Pod"),
        ("kind: Pod\nspec:", "no Pod"),
        ("kind: Pod\nspec: text", "no Pod"),
        ("kind: Pod\nspec: {}", "no Pod"),
        (MAIN + "    command: text\n", "no Pod"),
        (MAIN + "---\n" + MAIN, "no YAML"),
        (MAIN + "  resourceClaims: [{name: gpu}]\n", "spec.resourceClaims"),
        (MAIN + "    resources: {limits: {cpu: lots}}\n", "no quantity"),
        (MAIN + "    volumeMounts: [{name: none, mountPath: /x}]\n", "no volume 'none'"),
        (MAIN.replace("main", "../up"), "no DNS label"),
        (MAIN.replace("{name: x}", "{name: x, uid: ../../etc}"), "no UUID"),
    ],
)
def test_what_is_no_pod_that_can_be_had_is_refused(text: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        planning.describe(text)


@pytest.mark.parametrize("metadata", ["{}", "", "{generateName: x-}", "{name: x, creationTimestamp: null}"])
def test_a_pod_that_no_api_server_has_seen(metadata: str) -> None:
    assert "1 machines" in planning.describe(MAIN.replace("{name: x}", metadata))
