"""`kubectl attach`, `kubectl run -it` and `kubectl debug`, by both protocols and two releases of kubectl."""

import json

import pytest

from tests.integration.build import Json, Space, container, has_ended, is_ready, pod
from tests.integration.streaming import Kubectl, errors
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

WAYS = [
    pytest.param(("kubectl", True), id="websocket"),
    pytest.param(("kubectl", False), id="spdy"),
    pytest.param(("kubectl-1.32", True), id="websocket-1.32"),
    pytest.param(("kubectl-1.32", False), id="spdy-1.32"),
]


@pytest.fixture(params=WAYS)
def kubectl(shared: Space, request: pytest.FixtureRequest) -> Kubectl:
    program, websockets = request.param
    return Kubectl(shared, program, websockets)


def _way(kubectl: Kubectl) -> str:
    return f"{'websocket' if kubectl.websockets else 'spdy'}-{kubectl.program.replace('.', '-')}"


@pytest.fixture(scope="module")
def debugged(shared: Space, lab: Lab) -> str:
    """A Pod to look into."""
    shared.create(pod("debugged", container(lab.image_busybox)))
    shared.wait(is_ready, "debugged")
    return "debugged"


def test_a_program_on_a_terminal_is_attached_to_and_its_exit_code_comes_back(kubectl: Kubectl, lab: Lab) -> None:
    name = f"it-{_way(kubectl)}"
    overrides = json.dumps({"spec": {"tolerations": [{"operator": "Exists"}], "nodeName": "vknix"}})
    words = ("run", name, "-it", "--rm", "--restart=Never", f"--image={lab.image_busybox}", f"--overrides={overrides}")
    with kubectl.terminal(*words, "--command", "--", "sh", rows=33, columns=77) as terminal:
        terminal.type("\r")
        terminal.expect("# ")
        terminal.type("tty; stty size\r")
        terminal.expect("/dev/")
        terminal.type("exit 7\r")
        assert terminal.wait() == 7


def test_input_goes_to_the_main_process_once(kubectl: Kubectl, shared: Space, lab: Lab) -> None:
    name = f"once-{_way(kubectl)}"
    main = container(lab.image_busybox, "read -r line; echo got $line; cat; echo end", stdin=True, stdinOnce=True)
    shared.create(pod(name, main))
    shared.wait(is_ready, name)
    attached = kubectl.run("attach", "-i", name, stdin=b"one\ntwo\n")
    assert b"got one\ntwo\n" in attached.stdout, errors(attached)
    shared.wait(has_ended, name)
    assert kubectl.run("logs", name).stdout == b"got one\ntwo\nend\n"


def test_a_debug_container_is_among_the_targets_processes(kubectl: Kubectl, debugged: str, lab: Lab) -> None:
    words = ("debug", debugged, "-it", f"--image={lab.image_busybox}", "--target=main", "--profile=general")
    with kubectl.terminal(*words, "--", "sh") as terminal:
        terminal.type("\r")
        terminal.expect("# ")
        terminal.type("tr '\\0' ' ' < /proc/1/cmdline; echo\r")
        terminal.expect("sleep")
        terminal.type("exit\r")
        terminal.wait()


def test_a_debug_container_that_cant_be_had_leaves_its_pod_alone(debugged: str, shared: Space) -> None:
    Kubectl(shared).run("debug", debugged, "--image=ubuntu", "--container=nope", "--", "sh")
    waiting = shared.wait(_is_refused, debugged)[debugged]
    assert is_ready(waiting)


def _is_refused(of: Json) -> bool:
    told = of["status"].get("ephemeralContainerStatuses") or []
    return any(each["name"] == "nope" and each["state"].get("waiting", {}).get("reason") == "InvalidImageName" for each in told)
