"""vknix.core.image: which texts name a closure."""

import pytest

from tests.unit.build import ROOT
from vknix.core import image
from vknix.core.facts import StorePath
from vknix.core.image import Alias, Aliases
from vknix.errors import Refused


@pytest.mark.parametrize(
    ("text", "path", "program"),
    [
        (ROOT, ROOT, ""),
        (f"nix:0{ROOT}", ROOT, ""),
        (f"{ROOT}:latest", ROOT, ""),
        (f"nix:0{ROOT}:v1.2-3_x", ROOT, ""),
        (f"{ROOT}/bin/hello", ROOT, f"{ROOT}/bin/hello"),
        (f"{ROOT}/bin/hello:latest", ROOT, f"{ROOT}/bin/hello"),
        (f"{ROOT}/bin/..hello", ROOT, f"{ROOT}/bin/..hello"),
        (f"{ROOT}/bin/$(x)'", ROOT, f"{ROOT}/bin/$(x)'"),
        (f"{ROOT}?a=b", f"{ROOT}?a=b", ""),
    ],
)
def test_store_path_and_program(text: str, path: str, program: str) -> None:
    assert image.parse(text, "f") == image.Image(StorePath(path), (program,) if program else ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nginx",
        "docker.io/library/nginx:1",
        "/nix/store",
        "/nix/store/short-x",
        f"/nix/store/{'e' * 32}-x",
        f"/nix/store/{'a' * 32}",
        f"/nix/store/{'a' * 32}-",
        f"/nix/store/{'a' * 32}-{'x' * 212}",
        f"{ROOT}/..",
        f"{ROOT}/../../etc",
        f"{ROOT}/bin/./sh",
        f"{ROOT}/..:latest",
        f"{ROOT}//bin",
        f"{ROOT}/",
        f"{ROOT}/a b",
        f"{ROOT}\n",
        f"{ROOT} ",
        f"{ROOT};reboot",
        f"{ROOT}$(reboot)",
        f"{ROOT}'",
        f"{ROOT}*",
        f"{ROOT}:",
        f"{ROOT}:a/b",
        f"nix:1{ROOT}",
        f" {ROOT}",
        f"/nix/store/../store/{'a' * 32}-x",
    ],
)
def test_everything_else_is_an_invalid_image_name(text: str) -> None:
    with pytest.raises(Refused) as refused:
        image.parse(text, "spec.containers[0].image")
    assert refused.value.reason == "InvalidImageName"
    assert refused.value.field == "spec.containers[0].image"


AGNHOST = image.Image(ROOT, ("/agnhost",), ("pause",), is_root=True)
TABLE = Aliases((Alias("registry.example/agnhost:2.*", AGNHOST), Alias("*/agnhost*", image.Image(ROOT))))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("registry.example/agnhost:2.63", AGNHOST),
        ("registry.example/agnhost:2.63@sha256:ab", AGNHOST),
        ("registry.example/agnhost:1", image.Image(ROOT)),
        (f"{ROOT}/bin/x", image.Image(ROOT, (f"{ROOT}/bin/x",))),
    ],
)
def test_the_first_alias_that_fits_counts(text: str, found: image.Image) -> None:
    assert TABLE.find(text, "f") == found


def test_a_name_without_an_alias_is_refused_with_the_remedy() -> None:
    with pytest.raises(Refused, match="configuration's images"):
        TABLE.find("nginx", "f")
