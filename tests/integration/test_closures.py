"""Closures: a path that is nowhere, one that another host has, and the garbage collector."""

import secrets
from dataclasses import dataclass

import pytest

from tests.integration.build import (
    Json,
    Space,
    condition,
    container,
    has_ended,
    host_of,
    is_ready,
    most_of_a_host,
    phase,
    pod,
    status,
    terminated,
    waiting,
)
from tests.lab.hosts import Host
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

pytestmark = pytest.mark.lab


def path_of(image: str) -> str:
    return image.removeprefix("nix:0")


def build(host: Host, busybox: str, word: str) -> str:
    """A new closure on one host: a path of its own that refers to busybox."""
    expression = f"""
builtins.derivation {{
  name = "only-{word}";
  system = builtins.currentSystem;
  busybox = builtins.storePath "{busybox}";
  builder = "{busybox}/bin/sh";
  PATH = "{busybox}/bin";
  args = [ "-euc" "mkdir $out; ln -s $busybox/bin $out/bin; echo {word} > $out/word" ];
}}"""
    return host.run('nix-build --no-out-link --expr "$(cat)"', stdin=expression).strip()


def has(host: Host, path: str) -> bool:
    return host.run(f"nix-store --check-validity {path} && echo yes", check=False).strip() == "yes"


@dataclass(frozen=True, slots=True)
class Missing:
    """A Pod whose closure is nowhere, first and then; another Pod; and the first once the closure is there."""

    path: str
    first: Json
    waits: Json
    other: Json
    healed: Json
    events: list[tuple[str, str]]


@pytest.fixture(scope="module")
def missing(shared: Space) -> Missing:
    lab, busybox = shared.lab, path_of(shared.lab.image_busybox)
    word = secrets.token_hex(6)
    path = build(lab.host("host1"), busybox, word)
    lab.host("host1").run(f"nix-store --delete {path}")
    shared.create(pod("missing", container(f"nix:0{path}", f"cat {path}/word")))
    first = shared.wait(lambda of: waiting(of) in ("ErrImagePull", "ImagePullBackOff"), "missing")["missing"]
    other = shared.run(pod("other", container(lab.image_busybox, "exit 0")))
    waits = shared.wait(lambda of: waiting(of) == "ImagePullBackOff", "missing")["missing"]
    shared.wait_event("missing", "Failed")
    events = shared.events("missing")
    assert build(lab.host("host1"), busybox, word) == path
    healed = shared.wait(has_ended, "missing", timeout_s=60)["missing"]
    return Missing(path, first, waits, other, healed, events)


def test_path_that_is_nowhere_is_told_with_the_remedy(missing: Missing) -> None:
    message = status(missing.waits)["state"]["waiting"]["message"]
    assert missing.path in message
    assert "nix copy" in message
    assert phase(missing.waits) == "Pending"
    assert condition(missing.waits, "Ready")["status"] == "False"


def test_path_that_is_nowhere_is_an_event_with_the_remedy(missing: Missing) -> None:
    [message] = {message for reason, message in missing.events if reason == "Failed" and missing.path in message}
    assert "nix copy" in message


def test_other_pods_are_not_disturbed_by_a_missing_path(missing: Missing) -> None:
    assert phase(missing.other) == "Succeeded"


def test_path_is_taken_once_it_is_there(missing: Missing, shared: Space) -> None:
    assert phase(missing.healed) == "Succeeded"
    assert shared.logs("missing").strip() in missing.path


@pytest.fixture(scope="module")
def copied(shared: Space) -> tuple[str, dict[str, Json]]:
    """A closure that one host has, and a Pod of it on each."""
    lab = shared.lab
    path = build(lab.host("host1"), path_of(lab.image_busybox), secrets.token_hex(6))
    assert [has(host, path) for host in lab.hosts] == [True, False]
    script = f"cat {path}/word; exec sleep 3600"
    shared.create(*(pod(f"copy-{number}", container(f"nix:0{path}", script, resources=most_of_a_host())) for number in range(2)))
    return path, shared.wait(is_ready, "copy-0", "copy-1", timeout_s=60)


def test_closure_of_one_host_is_copied_to_another(copied: tuple[str, dict[str, Json]], shared: Space) -> None:
    path, pods = copied
    assert {host_of(pods[name]) for name in ("copy-0", "copy-1")} == {"host1", "host2"}
    assert [has(host, path) for host in shared.lab.hosts] == [True, True]
    assert {shared.logs(name).strip() in path for name in ("copy-0", "copy-1")} == {True}


def test_copy_is_told_as_a_pull(copied: tuple[str, dict[str, Json]], shared: Space) -> None:
    name = next(name for name in ("copy-0", "copy-1") if host_of(copied[1][name]) == "host2")
    wait_for(lambda: any("Successfully pulled" in message for _, message in shared.events(name)), "the pull is told", timeout_s=10)


def test_garbage_collector_leaves_what_pods_use(copied: tuple[str, dict[str, Json]], shared: Space) -> None:
    path, _ = copied
    unused = build(shared.lab.host("host2"), path_of(shared.lab.image_busybox), secrets.token_hex(6))
    for host in shared.lab.hosts:
        host.run("nix-collect-garbage")
    assert not has(shared.lab.host("host2"), unused)
    assert [has(host, path) for host in shared.lab.hosts] == [True, True]
    assert shared.exec("copy-0", "cat", f"{path}/word") == shared.exec("copy-1", "cat", f"{path}/word")


def test_plain_store_path_is_an_image(lab: Lab, space: Space) -> None:
    of = space.run(pod("plain", container(path_of(lab.image_busybox), "exit 0")))
    assert terminated(of)["exitCode"] == 0
    assert status(of)["imageID"] == lab.image_busybox


def test_closure_that_only_one_host_was_built_with_runs(lab: Lab, space: Space) -> None:
    image = lab.images["only-on-one"]
    space.run(pod("only", container(image, f"cat {path_of(image)}/origin")))
    assert space.logs("only") == "built on one host\n"
