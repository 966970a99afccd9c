"""The API server's OpenAPI document of v1 -> each leaf field of a Pod's spec, as core/fields.py writes paths.

`python -m tests.podspec LAB` records what that lab's API server has; scripts/golden calls it.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab

Json = Mapping[str, Any]
DOCUMENT = "/openapi/v3/api/v1"
RECORDED = Path(__file__).with_name("unit") / "golden" / "podspec.txt"


def leaves(document: Json) -> Iterator[str]:
    """List items read `[]`; a list of plain values and a map are leaves. Fields behind a feature gate are in it, whatever is on."""
    yield from _below(document["components"]["schemas"], "io.k8s.api.core.v1.PodSpec", "spec")


def _below(schemas: Json, name: str, at: str) -> Iterator[str]:
    for key, schema in schemas[name]["properties"].items():
        item = schema["items"] if schema.get("type") == "array" else schema
        inner = _reference(item)
        if inner is not None and "properties" in schemas[inner]:
            yield from _below(schemas, inner, f"{at}.{key}" + ("" if item is schema else "[]"))
        else:
            yield f"{at}.{key}"


def _reference(schema: Json) -> str | None:
    """A field with a description of its own has its type in `allOf`."""
    of = schema.get("$ref") or next((each.get("$ref") for each in schema.get("allOf", ())), None)
    return str(of).rpartition("/")[2] if of else None


def of_lab(lab: Lab) -> list[str]:
    return sorted(leaves(json.loads(lab.kubectl("get", "--raw", DOCUMENT).stdout)))


def recorded() -> list[str]:
    return RECORDED.read_text().splitlines()


if __name__ == "__main__":
    RECORDED.write_text("".join(f"{path}\n" for path in of_lab(Lab.up(sys.argv[1]))))
