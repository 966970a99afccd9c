"""All that streams, by each client, with the node's feature declared and not: that it works. How is in the module of each."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.build import Space, container, host_of, is_ready, most_of_a_host, pod
from tests.integration.clients import Client, KubectlClient, Place, PythonClient
from tests.integration.streaming import Kubectl, wait_nothing_left
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

ECHO = 7777
SERVE = f"busybox nc -ll -p {ECHO} -e cat & exec sleep 3600"
ANSWER = "while read -r line; do echo got $line; done"
COUNT = "n=0; while echo $n; do n=$((n + 1)); usleep 50000; done"

CLIENTS: dict[str, Callable[[Space], Client]] = {
    "websocket": lambda space: KubectlClient(Kubectl(space)),
    "spdy": lambda space: KubectlClient(Kubectl(space, websockets=False)),
    "websocket-1.32": lambda space: KubectlClient(Kubectl(space, "kubectl-1.32")),
    "spdy-1.32": lambda space: KubectlClient(Kubectl(space, "kubectl-1.32", websockets=False)),
    "python": PythonClient,
}


@pytest.fixture(scope="module", params=[False, True], ids=["translated", "passed-through"])
def declares(lab: Lab, shared: Space, request: pytest.FixtureRequest) -> bool:
    lab.vknix.stop()
    lab.vknix.start({"kubelet": {"webSockets": request.param}})
    return bool(request.param)


@pytest.fixture(scope="module")
def pods(shared: Space, lab: Lab) -> list[str]:
    """One on each host."""
    busybox = lab.image_busybox
    containers = (
        container(busybox, SERVE, resources=most_of_a_host()),
        container(busybox, ANSWER, name="answers", stdin=True),
        container(busybox, COUNT, name="counts"),
        {"name": "bare", "image": lab.images["bare"], "command": ["sleep", "3600"]},
    )
    names = [f"on-{host.name}" for host in lab.hosts]
    shared.create(*(pod(name, *containers) for name in names))
    assert {host_of(of) for of in shared.wait(is_ready).values()} == {host.name for host in lab.hosts}
    return names


@pytest.fixture(params=CLIENTS)
def client(shared: Space, declares: bool, pods: list[str], lab: Lab, request: pytest.FixtureRequest) -> Iterator[Client]:
    yield CLIENTS[request.param](shared)
    wait_nothing_left(*lab.hosts)


@pytest.fixture
def on(client: Client, declares: bool, pods: list[str], request: pytest.FixtureRequest) -> str:
    """A Pod: each client meets each of them."""
    number = list(CLIENTS).index(request.node.callspec.params["client"]) + declares + len(request.function.__name__)
    return pods[number % len(pods)]


def test_exec_has_outputs_and_code(client: Client, on: str) -> None:
    done = client.exec(Place(on), "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.code, done.out, done.err.splitlines()[0]) == (7, b"out\n", b"err")


def test_exec_has_a_terminal(client: Client, on: str) -> None:
    shown = client.type(Place(on), "tty; exit\r", "sh")
    assert "/dev/pts/" in shown


def test_exec_reads_what_is_sent(client: Client, on: str) -> None:
    data = random.Random(on).randbytes(300_000)
    done = client.exec(Place(on), "head", "-c", str(len(data)), stdin=data)
    assert (done.code, done.out == data) == (0, True)


def test_attach_reaches_the_main_process(client: Client, on: str) -> None:
    assert client.attach(Place(on, "answers"), b"who is there?\n") == b"got who is there?\n"


def test_port_forward_reaches_localhost(client: Client, on: str) -> None:
    data = random.Random(on).randbytes(30_000)
    assert client.forward(on, ECHO, data) == data


def test_log_is_followed(client: Client, on: str) -> None:
    lines = [int(line) for line in client.follow(Place(on, "counts"), 4)]
    assert lines == list(range(lines[0], lines[0] + 4))


@pytest.mark.parametrize("container", ["main", "bare"], ids=["its-own-tar", "no-tar"])
def test_folder_is_copied_in_and_out(client: Client, on: str, container: str, tmp_path: Path) -> None:
    there = Place(on, container)
    target = f"/tmp/{tmp_path.name}"  # the container's
    _fill(tmp_path / "sent")
    client.copy_in(there, tmp_path / "sent", target)
    client.copy_out(there, target, tmp_path / "back")
    assert _content(tmp_path / "back") == _content(tmp_path / "sent")


def _fill(folder: Path) -> None:
    deep = folder / "one" / ("long" * 30) / ("er" * 60)
    deep.mkdir(parents=True)
    (folder / "empty").touch()
    (deep / "bytes").write_bytes(random.Random(0).randbytes(100_000))


def _content(folder: Path) -> dict[str, bytes]:
    return {os.fspath(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
