"""What a host prints of the files of one Pod, as vknix and vktool write them."""

import json
from typing import Any

from tests.unit.build import ROOT, UID32
from vknix.nspawn import paths, tree
from vknix.nspawn.tree import Entry, File

RECORD = {"namespace": "shop", "name": "web", "addresses": ["10.0.0.2"], "closures": {"main": ROOT}}


def fact(number: int = 0, **fields: Any) -> dict[str, Any]:
    """As vktool writes it."""
    usual = {
        "attempt": number,
        "id": f"id-{number}",
        "started": 10**9,
        "finished": 2 * 10**9,
        "result": "success",
        "code": "exited",
    }
    return {**usual, "status": "0", "signal": "", "oom": False, "message": "", **fields}


def lines(*facts: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in facts)


def printed(facts: bytes = b"", logs: str = "", record: bytes = json.dumps(RECORD).encode(), *more: Entry) -> bytes:
    files: list[Entry] = [File(f"{paths.var(UID32)}/pod.json", record), File(f"{paths.var_of(UID32, 'main')}/facts", facts)]
    return logs.encode() + b"\0" + tree.pack([*files, *more])
