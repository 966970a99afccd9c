"""`kubectl logs`, byte for byte and flag by flag."""

import re
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime

import pytest

from tests.integration.build import (
    Space,
    container,
    has_ended,
    host_of,
    is_ready,
    pod,
    status,
    uid32,
    waiting,
    with_data,
)
from tests.integration.streaming import Kubectl, errors, left, wait_nothing_left
from tests.lab.hosts import Host
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

pytestmark = pytest.mark.lab

LONG = b"x" * 1_048_576
BYTES = b"a\0b\xff\xfe\xc3(\r\x1b[0m\n\0\n\xf0\x9f"
SOON_S = 0.3
STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (.*)", re.DOTALL)

# What each container writes, and what its log is then.
SCRIPTS = {
    "lines": "printf 'one\\n\\ntwo\\nthree\\n'",
    "open": "printf 'one\\ntwo'",
    "long": f"echo before; head -c {len(LONG)} /dev/zero | tr '\\0' x; echo; echo after",
    "bytes": "printf '" + "".join(f"\\{byte:03o}" for byte in BYTES) + "'",
    "silent": "true",
    "blank": "echo; echo; echo",
}
TEXTS = {
    "lines": b"one\n\ntwo\nthree\n",
    "open": b"one\ntwo",
    "long": b"before\n" + LONG + b"\nafter\n",
    "bytes": BYTES,
    "silent": b"",
    "blank": b"\n\n\n",
}


@pytest.fixture(scope="module")
def kubectl(shared: Space) -> Kubectl:
    return Kubectl(shared)


@pytest.fixture(scope="module")
def ended(shared: Space, lab: Lab) -> str:
    """A Pod that has ended, with a container for each script."""
    image = lab.image_busybox
    shared.create(pod("ended", *(container(image, script, name=name) for name, script in SCRIPTS.items())))
    shared.wait(has_ended, "ended")
    return "ended"


TICK_S = 0.1


@pytest.fixture(scope="module")
def ticking(shared: Space, lab: Lab) -> str:
    """A Pod that writes a line, `tick N`, each TICK_S."""
    script = f"i=0; while :; do i=$((i+1)); echo tick $i; sleep {TICK_S}; done"
    shared.create(pod("ticking", container(lab.image_busybox, script)))
    shared.wait(is_ready, "ticking")
    return "ticking"


@pytest.mark.parametrize("name", SCRIPTS)
def test_log_is_what_was_written(kubectl: Kubectl, ended: str, name: str) -> None:
    assert kubectl.run("logs", ended, f"--container={name}").stdout == TEXTS[name]


CUTS = [
    pytest.param("lines", ("--tail=0",), b"", id="tail-0"),
    pytest.param("lines", ("--tail=1",), b"three\n", id="tail-1"),
    pytest.param("lines", ("--tail=3",), b"\ntwo\nthree\n", id="tail-over-an-empty-line"),
    pytest.param("lines", ("--tail=99",), TEXTS["lines"], id="tail-of-more-than-there-is"),
    pytest.param("lines", ("--tail=-1",), TEXTS["lines"], id="tail-of-all"),
    pytest.param("open", ("--tail=1",), b"two", id="tail-of-a-line-without-an-end"),
    pytest.param("long", ("--tail=1",), b"after\n", id="tail-behind-a-long-line"),
    pytest.param("long", ("--tail=2",), LONG + b"\nafter\n", id="tail-with-a-long-line"),
    pytest.param("long", ("--tail=3",), TEXTS["long"], id="tail-across-a-long-line"),
    pytest.param("blank", ("--tail=2",), b"\n\n", id="tail-of-empty-lines"),
    pytest.param("lines", ("--limit-bytes=1",), b"o", id="limit-1"),
    pytest.param("lines", ("--limit-bytes=7",), b"one\n\ntw", id="limit-within-a-line"),
    pytest.param("lines", ("--limit-bytes=999",), TEXTS["lines"], id="limit-of-more-than-there-is"),
    pytest.param("long", ("--limit-bytes=100000",), b"before\n" + LONG[:99993], id="limit-within-a-long-line"),
    pytest.param("lines", ("--tail=2", "--limit-bytes=5"), b"two\nt", id="tail-then-limit"),
    pytest.param("lines", ("--since=1h",), TEXTS["lines"], id="since"),
    pytest.param("lines", ("--since-time=2099-01-01T00:00:00Z",), b"", id="since-time-to-come"),
    pytest.param("lines", ("--since-time=2001-01-01T00:00:00+02:00",), TEXTS["lines"], id="since-time-long-ago"),
    pytest.param("lines", ("--follow",), TEXTS["lines"], id="follow-of-what-has-ended"),
    pytest.param("open", ("--follow", "--tail=1"), b"two", id="follow-from-the-tail"),
]


@pytest.mark.parametrize(("name", "flags", "text"), CUTS)
def test_log_is_cut(kubectl: Kubectl, ended: str, name: str, flags: tuple[str, ...], text: bytes) -> None:
    done = kubectl.run("logs", ended, f"--container={name}", *flags)
    assert (done.returncode, done.stdout) == (0, text)


@pytest.mark.parametrize("name", ["lines", "open", "long", "blank"])
def test_stamps_come_once_a_line(kubectl: Kubectl, ended: str, name: str) -> None:
    lines = kubectl.run("logs", ended, f"--container={name}", "--timestamps").stdout.splitlines(keepends=True)
    stamped = [STAMP.fullmatch(line) for line in lines]
    assert all(stamped)
    assert b"".join(match[2] for match in stamped if match) == TEXTS[name]
    stamps = [match[1] for match in stamped if match]
    assert stamps == sorted(stamps)


def test_both_streams_are_in_the_log(kubectl: Kubectl, shared: Space, lab: Lab) -> None:
    shared.run(pod("both", container(lab.image_busybox, "echo out; echo err >&2")))
    assert sorted(kubectl.run("logs", "both").stdout.splitlines()) == [b"err", b"out"]


def test_all_containers_are_told_one_after_the_other(kubectl: Kubectl, ended: str) -> None:
    said = kubectl.run("logs", ended, "--all-containers", "--tail=1").stdout
    assert all(text.splitlines(keepends=True)[-1] in said for name, text in TEXTS.items() if text)
    prefixed = kubectl.run("logs", ended, "--all-containers", "--prefix", "--tail=1").stdout
    assert b"[pod/ended/lines] three\n" in prefixed


def test_since_leaves_older_lines_out(kubectl: Kubectl, ticking: str) -> None:
    whole = kubectl.run("logs", ticking).stdout.splitlines()
    wait_for(lambda: len(kubectl.run("logs", ticking).stdout.splitlines()) > len(whole) + 30, "it goes on", timeout_s=20)
    recent = kubectl.run("logs", ticking, "--since=1s").stdout.splitlines()
    assert 3 <= len(recent) <= 1 / TICK_S + 1
    assert not set(recent) & set(whole)


def test_since_time_is_kept_to(kubectl: Kubectl, ticking: str) -> None:
    wait_for(lambda: len(kubectl.run("logs", ticking).stdout.splitlines()) > 30, "it has gone on", timeout_s=20)
    line = STAMP.fullmatch(kubectl.run("logs", ticking, "--timestamps", "--tail=1").stdout)
    assert line
    since = line[1][:19]  # the API keeps whole seconds
    stamped = [STAMP.fullmatch(each) for each in kubectl.run("logs", ticking, "--timestamps").stdout.splitlines(keepends=True)]
    first = next(match for match in stamped if match and match[1] >= since)
    said = kubectl.run("logs", ticking, f"--since-time={since.decode()}Z").stdout
    assert said.startswith(first[2])


def test_follower_sees_lines_soon(kubectl: Kubectl, ticking: str) -> None:
    late: list[float] = []
    with kubectl.running("logs", ticking, "--follow", "--timestamps", "--tail=0") as follower:
        assert follower.stdout is not None
        while len(late) < 20:
            match = STAMP.fullmatch(follower.stdout.readline())
            assert match
            late.append(time.time() - datetime.fromisoformat(f"{match[1][:26].decode()}+00:00").timestamp())
    assert statistics.median(late) < SOON_S


def test_limit_ends_a_follower(kubectl: Kubectl, ticking: str) -> None:
    done = kubectl.run("logs", ticking, "--follow", "--limit-bytes=20")
    assert (done.returncode, done.stdout) == (0, b"tick 1\ntick 2\ntick 3")


STORY = "".join(f"line {number}\n" for number in range(30)).encode()


def followers_on(host: Host) -> int:
    return sum(" follow " in line for line in left(host))


def test_50_followers_see_all_and_the_host_reads_once(kubectl: Kubectl, shared: Space, lab: Lab) -> None:
    script = "echo begin; until [ -e /data/go ]; do sleep 0.1; done; for i in $(seq 0 29); do echo line $i; sleep 0.1; done"
    shared.create(with_data(pod("story", container(lab.image_busybox, script))))
    shared.wait(is_ready, "story")
    host = lab.host(host_of(shared.pod("story")))
    with ExitStack() as stack:
        followers = [stack.enter_context(kubectl.running("logs", "story", "--follow")) for _ in range(50)]
        assert [each.stdout.readline() for each in followers if each.stdout] == [b"begin\n"] * 50
        wait_for(lambda: len(left(host)) == 1 == followers_on(host), "one reader on the host", timeout_s=10)
        kubectl.run("exec", "story", "--", "touch", "/data/go")
        done = [(each.communicate(timeout=60)[0], each.returncode) for each in followers]
    assert done == [(STORY, 0)] * 50
    wait_nothing_left(*lab.hosts)


def test_killed_followers_leave_nothing(kubectl: Kubectl, shared: Space, ticking: str, lab: Lab) -> None:
    host = lab.host(host_of(shared.pod(ticking)))
    with ExitStack() as stack:
        followers = [stack.enter_context(kubectl.running("logs", ticking, "--follow", "--tail=0")) for _ in range(3)]
        wait_for(lambda: followers_on(host) == 1, "a reader on the host", timeout_s=10)
        for follower in followers:
            follower.kill()
        wait_nothing_left(host)


def test_a_log_is_rotated_and_what_is_kept_of_it_is_told(kubectl: Kubectl, shared: Space, lab: Lab) -> None:
    """Lines of 47 bytes; a file has 10 MiB, and five are kept."""
    last = 1_500_000
    shared.run(pod("chatty", container(lab.image_busybox, f"seq 1 {last}")))
    said = [int(line) for line in kubectl.run("logs", "chatty").stdout.split()]
    assert said == list(range(said[0], last + 1))
    assert 4 * 10 * 2**20 < sum(len(str(number)) + 41 for number in said) < 5.2 * 10 * 2**20
    assert kubectl.run("logs", "chatty", "--tail=800000").stdout.split()[0] == b"700001"
    log = f"/var/lib/vknix/{uid32(shared.pod('chatty'))}/c/main/log"
    assert len(lab.host(host_of(shared.pod("chatty"))).inside(f"ls {log}").split()) == 5


@pytest.fixture
def twice(shared: Space, lab: Lab) -> Iterator[str]:
    """A Pod in its second life."""
    script = "echo life >>/data/lives; echo life $(wc -l </data/lives); [ $(wc -l </data/lives) -ge 2 ] || exit 3; exec sleep 3600"
    shared.create(with_data(pod("twice", container(lab.image_busybox, script), restart="Always")))
    shared.wait(lambda of: is_ready(of) and status(of)["restartCount"] == 1, "twice")
    yield "twice"
    shared.kubectl("delete", "pod", "twice", "--wait=false")


def test_previous_is_the_instance_before(kubectl: Kubectl, twice: str) -> None:
    assert kubectl.run("logs", twice).stdout == b"life 2\n"
    assert kubectl.run("logs", twice, "--previous").stdout == b"life 1\n"
    assert kubectl.run("logs", twice, "--previous", "--tail=1", "--limit-bytes=4").stdout == b"life"


def test_waiting_for_its_restart_it_shows_the_last_instance(kubectl: Kubectl, shared: Space, lab: Lab) -> None:
    shared.create(
        with_data(pod("crashing", container(lab.image_busybox, "echo >>/data/n; wc -l </data/n; exit 3"), restart="Always"))
    )
    shared.wait(lambda of: waiting(of) == "CrashLoopBackOff" and status(of)["restartCount"] == 1, "crashing")
    assert kubectl.run("logs", "crashing").stdout == b"2\n"
    assert kubectl.run("logs", "crashing", "--previous").stdout == b"2\n"  # a kubelet, too: lastState is the one that ended last
    shared.kubectl("delete", "pod", "crashing", "--wait=false")


REFUSALS = [
    pytest.param(("ticking", "--previous"), 'previous terminated container "main" in pod "ticking" not found', id="no-previous"),
    pytest.param(("ended", "--container=lines", "--previous"), 'previous terminated container "lines" in', id="ended-once"),
    pytest.param(("ticking", "--container=nope"), "container nope is not valid for pod ticking", id="unknown-container"),
    pytest.param(("nope",), 'pods "nope" not found', id="unknown-pod"),
]


@pytest.mark.parametrize(("words", "text"), REFUSALS)
def test_what_is_not_there_is_said(kubectl: Kubectl, ended: str, ticking: str, words: tuple[str, ...], text: str) -> None:
    done = kubectl.run("logs", *words)
    assert (done.returncode, done.stdout) == (1, b"")
    assert text in errors(done)


def test_container_that_waits_says_for_what(kubectl: Kubectl, shared: Space) -> None:
    shared.create(pod("absent", container("nix:0/nix/store/00000000000000000000000000000000-absent")))
    shared.wait(lambda of: waiting(of) in ("ErrImagePull", "ImagePullBackOff"), "absent")
    done = kubectl.run("logs", "absent")
    assert done.returncode == 1
    assert re.search(
        r'BadRequest.*container "main" in pod "absent" is waiting to start: '
        r"(trying and failing to pull image|image can't be pulled)",
        errors(done),
    )
    shared.kubectl("delete", "pod", "absent", "--wait=false")


def test_follower_of_a_deleted_pod_gets_the_last_words_and_ends(kubectl: Kubectl, shared: Space, lab: Lab) -> None:
    script = "trap 'printf last; exit 3' TERM; echo first; while :; do sleep 0.1; done"
    shared.create(pod("leaving", container(lab.image_busybox, script)))
    shared.wait(is_ready, "leaving")
    with kubectl.running("logs", "leaving", "--follow") as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"first\n"
        shared.kubectl("delete", "pod", "leaving", "--wait=false")
        assert follower.stdout.read() == b"last"
        assert follower.wait(30) == 0
    wait_nothing_left(*lab.hosts)
