"""What README and docs show is what the programs take."""

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from vknix import config, planning

ROOT = Path(__file__).parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0yTb7m6PsTTtQTt7pDNnTbMTRvOeXaQ4n7GqvRRIFZ"


def blocks(kind: str) -> list[str]:
    """YAML examples of README.md, as written, without what indents them."""
    found = re.findall(r"^( *)```yaml\n(.*?)^\1```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    texts = ["\n".join(line.removeprefix(indent) for line in text.splitlines()) for indent, text in found]
    return [text for text in texts if f"kind: {kind}" in text]


def test_the_configuration_in_the_readme_is_taken(tmp_path: Path) -> None:
    (text,) = blocks("Configuration")
    for name in ("kubeconfig", "ssh_key", "ca.crt"):
        (tmp_path / name).touch()
    text = re.sub(r"/etc/\S*/(\S+)", rf"{tmp_path}/\1", text).replace("ssh-ed25519 AAAA...", KEY)
    assert config.parse(text, tmp_path).nodes[0].hosts[0].name == "host1"


def test_the_pod_in_the_readme_can_be_planned() -> None:
    (text,) = blocks("Pod")
    assert "vk-" in planning.describe(text.replace("HASH", "0" * 32))


def keys(of: type, prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(of)
    for each in dataclasses.fields(of):
        key = each.metadata.get("key") or re.sub(r"_(\w)", lambda match: match[1].upper(), each.name)
        inner = [hint for hint in (hints[each.name], *typing.get_args(hints[each.name])) if dataclasses.is_dataclass(hint)]
        if not inner or each.name == "taints":
            yield prefix + key
        for hint in inner if each.name != "taints" else ():
            assert isinstance(hint, type)
            yield from keys(hint, f"{prefix}{key}{'' if hints[each.name] is hint else '[]'}.")


@pytest.mark.parametrize("key", list(keys(config.Config)))
def test_each_key_is_in_the_docs(key: str) -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    rows = [row for row in text.splitlines() if row.startswith("| `")]
    prefix, _, last = key.rpartition(".")
    assert any(f"`{key}`" in row or (f"`{prefix}." in row and (f"`.{last}`" in row or f".{last}`" in row)) for row in rows), key
