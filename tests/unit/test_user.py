"""vknix.core.user and accounts: who a container runs as, by its Pod and by its image's own files."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import ROOT, aliased, container, facts, pod, running, view
from vknix.core import accounts, user
from vknix.core.container_status import ContainerView, container_status
from vknix.core.facts import ImageFacts, ImageState
from vknix.core.handlers import Handler
from vknix.core.image import Image
from vknix.core.pod import members
from vknix.core.user import User
from vknix.nspawn import nix

PASSWD = "root:x:0:0:root:/root:/bin/sh\nme:x:1000:100::/home/me:/bin/sh\nother:x:1000:7::/:/bin/sh\nnone:x:2000:2000:::\n"
GROUP = "root:x:0:\nwheel:x:10:other,me\nusers:x:100:\nbig:x:50000:me\nwheel:x:10:me\n"
OF = accounts.parse(PASSWD, GROUP)


@pytest.mark.parametrize(
    ("whole", "own", "image", "who"),
    [
        ({}, {}, {}, User(0, 0, (0,))),
        ({"runAsUser": 1000}, {}, {}, User(1000, 100, (100, 10, 50000))),
        ({"runAsUser": 1}, {}, {}, User(1, 0, (0,))),
        ({"runAsUser": 1000, "supplementalGroups": [10, 5], "fsGroup": 6}, {}, {}, User(1000, 100, (100, 10, 50000, 5, 6))),
        ({"runAsUser": 1}, {"runAsUser": 1000, "runAsGroup": 3}, {}, User(1000, 3, (3, 10, 50000))),
        ({}, {}, {"user": 1000}, User(1000, 100, (100, 10, 50000))),
        ({}, {}, {"user": 1000, "group": 8}, User(1000, 8, (8, 10, 50000))),
        ({"runAsUser": 2000}, {}, {"user": 1000, "group": 8}, User(2000, 2000, (2000,))),
        ({"runAsUser": 1000, "supplementalGroupsPolicy": "Merge"}, {}, {}, User(1000, 100, (100, 10, 50000))),
        (
            {"runAsUser": 1000, "supplementalGroups": [5], "fsGroup": 6, "supplementalGroupsPolicy": "Strict"},
            {},
            {},
            User(1000, 100, (100, 5, 6)),
        ),
    ],
)
def test_user_and_groups(whole: dict[str, Any], own: dict[str, Any], image: dict[str, Any], who: User) -> None:
    of = aliased(pod(container(securityContext=own), securityContext=whole), Image(ROOT, is_root=True, **image))
    member = next(members(of))
    assert user.user(of, member.path, member.container, OF) == who


def test_home_is_the_users() -> None:
    assert [OF.home(uid) for uid in (0, 1000, 2000, 3)] == ["/root", "/home/me", "/", "/"]
    assert accounts.NONE.home(0) == "/root"


def test_accounts_are_those_of_the_root_that_a_container_has() -> None:
    whole, bare = Image(ROOT, is_root=True), Image(ROOT)
    assert user.known(whole, Handler.NSPAWN, OF) is OF
    assert user.known(whole, Handler.NSPAWN, None) is None
    assert user.known(bare, Handler.NSPAWN, OF) is accounts.DEFAULT
    assert all(user.known(whole, handler, OF) is accounts.NONE for handler in (Handler.UNIT, Handler.NIXOS))


@given(st.text(), st.text())
def test_what_is_no_such_file_is_no_harm(passwd: str, group: str) -> None:
    made = accounts.parse(passwd, group)
    numbers = [*made.users, *(of.gid for of in made.users.values()), *(gid for of in made.groups.values() for gid in of)]
    assert all(0 <= number < 1 << 32 for number in numbers)


@pytest.mark.parametrize(
    "line", ["me:x:-1:0:::", "me:x:99999999999:0:::", "me:x:\u0663:0:::", ":x:1000:0:::", "me:x:1:0::", "+::::::"]
)
def test_a_line_that_is_none_makes_no_user(line: str) -> None:
    assert accounts.parse(line, "").users == {}


def told(**spec: Any) -> dict[str, Any]:
    of = aliased(pod(securityContext={"runAsUser": 1000}, **spec), Image(ROOT, is_root=True))
    image = ImageFacts(ROOT, ImageState.PRESENT, accounts=None if spec.get("status") else OF)
    made = container_status(ContainerView(of, next(members(of)), view(facts(running(), images=(image,)))))
    return dict(made["user"]["linux"])


def test_status_tells_them() -> None:
    assert told() == {"uid": 1000, "gid": 100, "supplementalGroups": [10, 100, 50000]}


def test_status_stays_where_the_image_was_not_looked_at_yet() -> None:
    before = {"name": "main", "containerID": "systemd-nspawn://id-0", "user": {"linux": {"uid": 7}}}
    assert told(status={"containerStatuses": [before]}) == {"uid": 7}


@pytest.mark.parametrize("kind", ["files", "links", "nothing", "links that lead out"])
def test_a_host_tells_what_is_in_a_closure(tmp_path: Path, kind: str) -> None:
    store = tmp_path / "nix/store"
    root = store / ROOT.rsplit("/", 1)[1]
    (root / "etc").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nix-store").write_text(f"#!/bin/sh\necho {root}\n")
    (tmp_path / "bin/nix-store").chmod(0o755)
    texts = {"passwd": "odd:x:5:5:a\x1eb:/:\n" + PASSWD, "group": GROUP}
    for name, text in texts.items():
        place = {"files": root / "etc", "links": store, "links that lead out": tmp_path}.get(kind)
        if place is not None:
            (place / name).write_text(text)
            if place != root / "etc":
                (root / "etc" / name).symlink_to(place / name)
    script = nix.query(ROOT).replace("/nix", f"{tmp_path}/nix").replace("PATH=", f"PATH={tmp_path}/bin:", 1)
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    made = nix.closure(ROOT, told.replace(str(tmp_path), ""))
    assert [item.path for item in made.items] == [ROOT]
    wanted = accounts.parse(texts["passwd"], texts["group"]) if kind in ("files", "links") else accounts.DEFAULT
    assert made.accounts == wanted
