"""`kubectl exec` by both protocols, with the node's feature declared and not, on both shapes of host; and by the Python client."""

import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.build import Json, Space, container, host_of, is_ready, most_of_a_host, phase, pod, terminated
from tests.integration.streaming import (
    Kubectl,
    errors,
    is_running,
    python_client,
    python_exec,
    sleeper,
    wait_ended,
    wait_nothing_left,
    wait_running,
)
from tests.lab.hosts import Host
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

pytestmark = pytest.mark.lab

BULK_BYTES = 100_000_000
GONE_S = 1.0  # from the death of a client to that of its command
SPARE = 3  # a connection to a host that is kept for the next exec, and such of the API server
CUT_S = 30.0  # from a cut link to the client's error: keepalives, and a busy machine


@dataclass(frozen=True, slots=True)
class Node:
    """vknix on its default configuration but for the declared feature."""

    lab: Lab
    declares: bool

    def start(self) -> None:
        self.lab.vknix.start({"kubelet": {"webSockets": self.declares}})


@pytest.fixture(scope="module", params=[False, True], ids=["translated", "passed-through"])
def node(lab: Lab, shared: Space, request: pytest.FixtureRequest) -> Node:
    node = Node(lab, request.param)
    lab.vknix.stop()
    node.start()
    return node


@pytest.fixture(scope="module")
def pods(shared: Space, lab: Lab) -> dict[str, str]:
    """A Pod on each host, by the host's name."""
    names = [host.name for host in lab.hosts]
    main = container(lab.image_busybox, workingDir="/srv/app", resources=most_of_a_host())
    shared.create(*(pod(f"on-{name}", main) for name in names))
    found = {host_of(of): name for name, of in shared.wait(is_ready).items()}
    assert found.keys() == set(names)
    return found


@dataclass(frozen=True, slots=True)
class Way:
    """To a container: a kubectl, and a Pod."""

    kubectl: Kubectl
    pod: str
    host: Host

    def exec(self, *argv: str, stdin: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
        flags = ["--stdin"] if stdin is not None else []
        return self.kubectl.run("exec", *flags, self.pod, "--", *argv, stdin=stdin or b"")


WAYS = [
    pytest.param((True, "host1"), id="websocket"),
    pytest.param((False, "host2"), id="spdy"),
]


@pytest.fixture(params=WAYS)
def way(node: Node, shared: Space, pods: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Way]:
    """After each test its host is as before."""
    websockets, host = request.param
    way = Way(Kubectl(shared, websockets=websockets), pods[host], node.lab.host(host))
    yield way
    wait_nothing_left(way.host)


def test_declared_feature_brings_websockets_to_the_node_untranslated(node: Node, shared: Space, pods: dict[str, str]) -> None:
    declared = node.lab.kubectl("get", "node", "vknix", "--output=jsonpath={.status.declaredFeatures}").stdout
    assert ("ExtendWebSocketsToKubelet" in declared) is node.declares
    before = _translated(node.lab)
    assert Kubectl(shared).run("exec", pods["host1"], "--", "true").returncode == 0
    assert (_translated(node.lab) == before) is node.declares


def _translated(lab: Lab) -> float:
    """How many WebSockets the API server has turned into SPDY so far."""
    metrics = lab.kubectl("get", "--raw", "/metrics").stdout.splitlines()
    return sum(float(line.split()[1]) for line in metrics if line.startswith("apiserver_stream_translator_requests_total{"))


def test_command_is_found_without_a_path_and_starts_in_the_working_directory(way: Way) -> None:
    assert b"bin" in way.exec("ls", "/").stdout.split()
    assert way.exec("pwd").stdout == b"/srv/app\n"


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137)])
def test_exit_code_arrives(way: Way, script: str, code: int) -> None:
    assert way.exec("sh", "-c", script).returncode == code


def test_outputs_arrive_apart(way: Way) -> None:
    done = way.exec("sh", "-c", "echo out; echo err >&2; exit 3")
    assert done.stdout == b"out\n"
    assert errors(done).splitlines()[0] == "err"
    assert done.returncode == 3


@pytest.mark.parametrize("stdin", [b"", b"\0\xff no newline at the end"], ids=["nothing", "bytes"])
def test_end_of_stdin_arrives(way: Way, stdin: bytes) -> None:
    done = way.exec("cat", stdin=stdin)
    assert (done.stdout, done.returncode) == (stdin, 0)


def test_command_without_stdin_reads_none(way: Way) -> None:
    assert way.exec("cat").returncode == 0


NOT_RUN = [
    pytest.param("no-such-program", "executable file not found in $PATH", id="not-found"),
    pytest.param("/no/such/program", "no such file", id="no-such-path"),
    pytest.param("/etc/passwd", "ermission denied", id="not-executable"),
]


@pytest.mark.parametrize(("program", "text"), NOT_RUN)
def test_command_that_can_not_run_is_an_error(way: Way, program: str, text: str) -> None:
    done = way.exec(program)
    assert done.returncode not in (0, None)
    assert text.lower() in errors(done).lower()
    assert program in errors(done)


def test_terminal_has_the_size_and_follows_it(way: Way) -> None:
    words = ("exec", "--stdin", "--tty", way.pod, "--", "sh")
    with way.kubectl.terminal(*words, rows=41, columns=123) as terminal:
        terminal.expect("# ")
        terminal.type("tty; stty size\n")
        terminal.expect("/dev/pts/")
        terminal.expect("41 123")
        terminal.resize(rows=17, columns=99)
        terminal.type("until [ \"$(stty size)\" = '17 99' ]; do usleep 20000; done; echo fol''lowed\n")
        terminal.expect("followed")
        terminal.type("exit 7\n")
        assert terminal.wait() == 7


def test_interrupt_key_reaches_the_command(way: Way) -> None:
    command = sleeper()
    with way.kubectl.terminal(
        "exec", "--stdin", "--tty", way.pod, "--", "sh", "-c", f"trap 'exit 9' INT; {' '.join(command)}"
    ) as it:
        wait_running(command)
        it.type("\x03")
        assert it.wait() == 9
    assert not is_running(command)


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes in which no part looks like another."""
    file = tmp_path_factory.mktemp("bulk") / "bytes"
    file.write_bytes(random.Random(0).randbytes(BULK_BYTES))
    return file


def test_100_megabytes_go_in_and_out_byte_for_byte(way: Way, bulk: Path) -> None:
    came = hashlib.sha256()
    with bulk.open("rb") as file, way.kubectl.running("exec", "--stdin", way.pod, "--", "cat", stdin=file) as process:
        assert process.stdout is not None
        while block := process.stdout.read(1 << 20):
            came.update(block)
        assert process.wait() == 0
    assert came.digest() == hashlib.sha256(bulk.read_bytes()).digest()


def test_command_of_a_killed_client_ends(way: Way) -> None:
    command, child = sleeper(), sleeper()
    script = f"trap '' HUP TERM; {' '.join(child)} & setsid {' '.join(command)} & wait"  # neither listening nor staying
    with way.kubectl.running("exec", way.pod, "--", "sh", "-c", script) as client:
        wait_running(command, child)
        client.kill()
        wait_ended(command, child, within_s=GONE_S)


def test_command_of_a_killed_client_with_a_terminal_ends(way: Way) -> None:
    command = sleeper()
    script = f"trap '' HUP; {' '.join(command)}"
    with way.kubectl.terminal("exec", "--stdin", "--tty", way.pod, "--", "sh", "-c", script) as terminal:
        wait_running(command)
        terminal.process.kill()
        wait_ended(command, within_s=GONE_S)


def test_commands_of_a_killed_vknix_end(node: Node, shared: Space, pods: dict[str, str], lab: Lab) -> None:
    commands = [sleeper() for _ in range(4)]
    with ExitStack() as stack:
        for websockets, name, (plain, typed) in zip((True, False), pods.values(), (commands[:2], commands[2:]), strict=True):
            kubectl = Kubectl(shared, websockets=websockets)
            stack.enter_context(kubectl.running("exec", name, "--", *plain))
            stack.enter_context(kubectl.terminal("exec", "--stdin", "--tty", name, "--", *typed))
        wait_running(*commands)
        lab.vknix.kill()
        try:
            wait_ended(*commands, within_s=GONE_S)
        finally:
            node.start()
    wait_nothing_left(*lab.hosts)


def test_cut_link_is_an_error_and_no_success(node: Node, shared: Space, pods: dict[str, str], lab: Lab) -> None:
    commands = [sleeper() for _ in range(3)]
    host, name = lab.host("host1"), pods["host1"]
    with ExitStack() as stack:
        kubectls = (Kubectl(shared), Kubectl(shared, websockets=False))
        sessions = [
            stack.enter_context(kubectl.running("exec", name, "--", *command))
            for kubectl, command in zip(kubectls, commands[:2], strict=True)
        ]
        terminal = stack.enter_context(Kubectl(shared).terminal("exec", "--stdin", "--tty", name, "--", *commands[2]))
        wait_running(*commands)
        host.cut()
        try:
            for session in sessions:
                _, said = session.communicate(timeout=CUT_S)
                assert session.returncode not in (0, None)
                assert b"host1" in said
            assert terminal.process.wait(CUT_S) != 0
        finally:
            host.heal()
    kubectl = Kubectl(shared)
    wait_for(lambda: kubectl.run("exec", name, "--", "true").returncode == 0, "exec works again", timeout_s=60)
    wait_ended(*commands, within_s=60)


@pytest.fixture
def half_ended(shared: Space, lab: Lab) -> Iterator[str]:
    """A Pod of which one container, `ended`, does not run."""
    image = lab.image_busybox
    shared.create(pod("half-ended", container(image), container(image, "true", name="ended")))
    shared.wait(lambda of: bool(terminated(of, "ended")) and phase(of) == "Running", "half-ended")
    yield "half-ended"
    shared.kubectl("delete", "pod", "half-ended", "--wait=false")


def test_working_directory_may_be_a_link_into_the_closure(shared: Space, lab: Lab) -> None:
    shared.create(pod("in-bin", container(lab.image_busybox, workingDir="/usr/bin")))
    shared.wait(is_ready, "in-bin")
    assert "sh" in shared.exec("in-bin", "ls").split()


def test_container_that_does_not_run_is_not_entered(node: Node, shared: Space, half_ended: str) -> None:
    for websockets in (True, False):
        done = Kubectl(shared, websockets=websockets).run("exec", half_ended, "--container=ended", "--", "true")
        assert done.returncode == 1
        assert 'container not found ("ended")' in errors(done)


def test_50_at_once_all_answer(node: Node, shared: Space, pods: dict[str, str], lab: Lab) -> None:
    def answer(number: int) -> tuple[bytes, int]:
        kubectl = Kubectl(shared, websockets=number % 2 == 0)
        done = kubectl.run("exec", "--stdin", pods["host1"], "--", "cat", stdin=f"{number}".encode(), timeout_s=60)
        return done.stdout or done.stderr, done.returncode

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(answer, range(50))) == [(f"{number}".encode(), 0) for number in range(50)]
    wait_nothing_left(*lab.hosts)


async def test_200_in_a_row_leave_nothing(node: Node, shared: Space, pods: dict[str, str], lab: Lab) -> None:
    before = _descriptors(lab)
    async with python_client(lab) as api:
        for number in range(200):
            done = await python_exec(api, shared, pods["host2"], "echo", f"{number}")
            assert (done.code, done.out) == (0, f"{number}\n".encode())
    wait_nothing_left(*lab.hosts)
    wait_for(lambda: _descriptors(lab) <= before + SPARE, "vknix has closed what it had opened", timeout_s=10)


def _descriptors(lab: Lab) -> int:
    return len(os.listdir(f"/proc/{lab.vknix.pid}/fd"))


async def test_python_client_has_codes_streams_and_a_terminal(node: Node, shared: Space, pods: dict[str, str], lab: Lab) -> None:
    data = random.Random(1).randbytes(1_000_000)
    async with python_client(lab) as api:
        script = f"head -c {len(data)}; echo err >&2; exit 7"
        done = await python_exec(api, shared, pods["host1"], "sh", "-c", script, stdin=data)
        assert (done.code, done.out == data, done.err) == (7, True, b"err\n")
        assert (await python_exec(api, shared, pods["host2"], "tty", tty=True)).out.startswith(b"/dev/pts/")
        assert (await python_exec(api, shared, pods["host2"], "no-such-program")).code == -1


IDENTITIES: dict[str, Json] = {
    "plain": {},
    "user": {"runAsUser": 1234, "runAsGroup": 2345, "allowPrivilegeEscalation": False},
    "user-without": {"runAsUser": 1234, "capabilities": {"drop": ["ALL"]}},
    "more-and-less": {"capabilities": {"add": ["NET_ADMIN", "SYS_TIME"], "drop": ["CHOWN"]}},
    "filtered": {
        "capabilities": {"drop": ["ALL"]},
        "allowPrivilegeEscalation": False,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}
SAME = "Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Umask SigIgn SigBlk".split()
TELL = ("cat", "/proc/self/status", "/proc/self/limits", "/proc/self/oom_score_adj")


@pytest.fixture(scope="module")
def identities(shared: Space, lab: Lab) -> str:
    """A Pod whose containers are each somebody else, and have written into their logs who."""
    script = f"{' '.join(TELL)}; exec sleep 3600"
    containers = (container(lab.image_busybox, script, name=name, securityContext=of) for name, of in IDENTITIES.items())
    of = pod("identities", *containers)
    of["spec"]["securityContext"] = {"supplementalGroups": [3456, 4567]}
    shared.create(of)
    shared.wait(is_ready, "identities")
    return "identities"


@pytest.mark.parametrize("name", IDENTITIES)
def test_command_is_what_the_container_is(shared: Space, identities: str, name: str) -> None:
    told = shared.kubectl("exec", identities, f"--container={name}", "--", *TELL)
    assert _identity(told) == _identity(shared.logs(identities, f"--container={name}"))


def _identity(text: str) -> list[str]:
    """The lines of /proc/self/status that say what a process is and may, its limits, and its OOM score."""
    status, limits, rest = text.partition("Limit ")
    return [*(line for line in status.splitlines() if line.partition(":")[0] in SAME), limits, *rest.splitlines()]
