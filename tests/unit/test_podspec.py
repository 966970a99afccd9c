"""core/fields.py against the API server's own list of a Pod's fields: none is ignored in silence, and none is made up."""

import pytest

from tests import podspec
from vknix.core.fields import FIELDS, Verdict

LEAVES = podspec.recorded()


def rule_of(path: str) -> str | None:
    """The path in the table whose verdict holds for a field: its own, or that of what it is in."""
    ends = [end for end in range(len(path), 0, -1) if end == len(path) or path[end] in ".["]
    return next((path[:end] for end in ends if path[:end] in FIELDS), None)


def unaccounted(leaves: list[str]) -> list[str]:
    """Fields without a verdict. To say of a whole object that it is honoured would be to promise what is not known yet."""
    found = {leaf: rule_of(leaf) for leaf in leaves}
    return [leaf for leaf, rule in found.items() if rule is None or (rule != leaf and FIELDS[rule].verdict is Verdict.HONOURED)]


def test_each_field_of_the_api_has_a_verdict() -> None:
    assert unaccounted(LEAVES) == []


def test_each_rule_is_for_a_field_that_there_is() -> None:
    known = {leaf[:end] for leaf in LEAVES for end in range(1, len(leaf) + 1) if end == len(leaf) or leaf[end] in ".["}
    known |= {f"{path}[]" for path in known}
    assert sorted(FIELDS.keys() - known) == []


def test_a_field_of_a_later_kubernetes_is_found() -> None:
    new = ["spec.fromTheFuture", "spec.dnsConfig.more", "spec.containers[].securityContext.capabilities.lend"]
    assert unaccounted([*LEAVES, *new]) == new


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"plain": {"type": "string"}}, ["spec.plain"]),
        ({"list": {"type": "array", "items": {"type": "string"}}}, ["spec.list"]),
        ({"map": {"type": "object", "additionalProperties": {"type": "string"}}}, ["spec.map"]),
        ({"amount": {"$ref": "#/components/schemas/Quantity"}}, ["spec.amount"]),
        ({"object": {"description": "x", "allOf": [{"$ref": "#/components/schemas/Inner"}]}}, ["spec.object.key"]),
        ({"objects": {"type": "array", "items": {"$ref": "#/components/schemas/Inner"}}}, ["spec.objects[].key"]),
    ],
)
def test_walk_ends_where_a_value_is(properties: podspec.Json, expected: list[str]) -> None:
    inner = {"type": "object", "properties": {"key": {"type": "string"}}}
    schemas = {"io.k8s.api.core.v1.PodSpec": {"properties": properties}, "Inner": inner, "Quantity": {"type": "string"}}
    assert list(podspec.leaves({"components": {"schemas": schemas}})) == expected
