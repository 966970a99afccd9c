"""vknix.nspawn.nix: a closure's view, and texts that keep to the path they are about."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.unit.build import ROOT, parses
from vknix.core.facts import StorePath
from vknix.nspawn import nix, paths, tree
from vknix.nspawn.nix import Closure, Item

ODD = StorePath(f"/nix/store/{'a' * 32}-a?b=c")
LINK, FILE = f"/nix/store/{'b' * 32}-link", f"/nix/store/{'c' * 32}-file"
CLOSURE = Closure(ROOT, (Item(ROOT, "d", ""), Item(LINK, "l", f"{ROOT}/bin"), Item(FILE, "f", "")), ("var",))


def test_a_closure_is_what_query_prints() -> None:
    assert nix.closure(ROOT, f"store var \nd {ROOT} \nl {LINK} {ROOT}/bin\nf {FILE} \n") == CLOSURE
    assert CLOSURE.files == (FILE,)


@pytest.mark.parametrize("root", [ROOT, ODD])
def test_scripts_are_scripts(root: StorePath) -> None:
    texts = (nix.query, nix.fetch, nix.requisites, nix.forget)
    for script in (*(text(root) for text in texts), nix.finish_farm(root, "n"), nix.export((root, FILE)), nix.INVALID, nix.IMPORT):
        parses(script)


def test_a_farm_shows_the_closure_and_hides_the_rest() -> None:
    at = nix.new_farm(ROOT, "n")
    with tarfile.open(fileobj=io.BytesIO(tree.pack(nix.farm(CLOSURE, "n")))) as archive:
        members = {f"/{member.name}": member for member in archive}
    assert members[f"{at}/var"].ischr()
    assert members[f"{at}/store"].pax_headers["SCHILY.xattr.trusted.overlay.opaque"] == "y"
    name = paths.base(ROOT)
    assert members[f"{at}/store/{name}"].pax_headers["SCHILY.xattr.trusted.overlay.redirect"] == f"/store/{name}"
    assert members[f"{at}/store/{paths.base(LINK)}"].linkname == f"{ROOT}/bin"
    assert members[f"{at}/store/{paths.base(FILE)}"].isreg()


def finish(root: Path, of: StorePath, nonce: str) -> None:
    script = nix.finish_farm(of, nonce).replace(paths.VAR, str(root))
    subprocess.run(["sh", "-e"], input=script, text=True, check=True)


def test_a_farm_that_is_in_use_stays(tmp_path: Path) -> None:
    for nonce in ("one", "two"):
        new = tmp_path / "farms" / f".{nonce}-{paths.base(ODD)}"
        new.mkdir(parents=True)
        (new / nonce).touch()
        finish(tmp_path, ODD, nonce)
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()] == [f"farms/{paths.base(ODD)}/one"]


def test_a_name_with_a_question_mark_is_no_pattern(tmp_path: Path) -> None:
    for name in (paths.base(ODD), paths.base(ODD).replace("?", "x")):
        (tmp_path / "farms" / name).mkdir(parents=True)
    forget(tmp_path)
    assert [file.name for file in (tmp_path / "farms").iterdir()] == [paths.base(ODD).replace("?", "x")]


def test_a_forgotten_closure_takes_the_work_folders_of_a_killed_nspawn_along(tmp_path: Path) -> None:
    mine, other = (f".#{name}0f0e0d0c0b0a0908" for name in (paths.base(ODD), paths.base(ROOT)))
    for name in (paths.base(ODD), mine, other):
        (tmp_path / "farms" / name / "work").mkdir(parents=True)
    forget(tmp_path)
    assert [file.name for file in (tmp_path / "farms").iterdir()] == [other]


def forget(base: Path) -> None:
    script = nix.forget(ODD).replace(paths.VAR, str(base)).replace(paths.ROOTS, str(base / "roots"))
    subprocess.run(["sh", "-e"], input=script, text=True, check=True)


def test_a_fetch_of_one_path_is_one_unit() -> None:
    assert f"--unit=vk-fetch-{'a' * 32}.service" in nix.fetch(ROOT)
    assert paths.container_of(f"vk-fetch-{'a' * 32}.service") is None
