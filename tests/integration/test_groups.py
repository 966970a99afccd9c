"""The groups of a user: its image's own files have some, its Pod adds to them, and a strict Pod takes no others."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.build import SLEEP, Json, Space, container, is_ready, pod, status
from tests.integration.conftest import made_namespace
from tests.lab import images
from tests.lab.closures import roots
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

IMAGE = f"{images.REGISTRY}/e2e-test-images/busybox:1.37"  # user 1000 has group 1000, and is listed in 50000
SHOW = "id -u; id -g; id -G; echo $HOME"


@pytest.fixture(scope="module")
def aliased(lab: Lab) -> Iterator[Space]:
    """A namespace on a vknix that knows images with roots of their own."""
    lab.vknix.stop()
    lab.vknix.start({"images": images.aliases(roots(lab.layout))})
    with made_namespace(lab) as name:
        yield Space(lab, name)
    lab.vknix.stop()


def as_user(name: str, image: str, **context: Any) -> Json:
    return pod(name, container(image, f"{SHOW}; {SLEEP}"), securityContext={"supplementalGroups": [60000], **context})


# The Pod, and what it has: user, group, groups, home.
PODS: dict[str, tuple[str, dict[str, Any], tuple[int, int, set[int], str]]] = {
    "merged": (IMAGE, {"runAsUser": 1000, "fsGroup": 70}, (1000, 1000, {1000, 50000, 60000, 70}, "/home")),
    "strict": (IMAGE, {"runAsUser": 1000, "supplementalGroupsPolicy": "Strict"}, (1000, 1000, {1000, 60000}, "/home")),
    "stranger": (IMAGE, {"runAsUser": 4000}, (4000, 0, {0, 60000}, "/")),
    "closure": ("", {"runAsUser": 65534, "runAsGroup": 7}, (65534, 7, {7, 60000}, "/")),
}


@pytest.fixture(scope="module")
def there(aliased: Space) -> dict[str, Json]:
    image = aliased.lab.image_busybox
    aliased.create(*(as_user(name, of or image, **context) for name, (of, context, _) in PODS.items()))
    return aliased.wait(is_ready)


@pytest.mark.parametrize("name", PODS)
def test_groups_are_those_of_the_image_and_the_pod(there: dict[str, Json], aliased: Space, name: str) -> None:
    uid, gid, groups, home = PODS[name][2]
    for said in (aliased.logs(name), aliased.exec(name, "sh", "-c", SHOW)):
        lines = said.splitlines()
        assert (int(lines[0]), int(lines[1]), {int(of) for of in lines[2].split()}, lines[3]) == (uid, gid, groups, home)
    assert status(there[name])["user"] == {"linux": {"uid": uid, "gid": gid, "supplementalGroups": sorted(groups)}}
