"""The kubelet API on its own address, as a stranger, a user, a token and the API server meet it."""

import http.client
import json
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration import callers
from tests.integration.build import Space, container, host_of, is_ready, pod
from tests.integration.callers import Answer, Caller, serial
from tests.kubelet.routes import routes
from tests.lab import pki
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

pytestmark = pytest.mark.lab

RELOADED_S = 20.0  # vknix looks at its files each 10 s


ROUTES = routes()
every_route = pytest.mark.parametrize(("method", "path"), ROUTES, ids=[f"{method} {path}" for method, path in ROUTES])


@pytest.fixture(scope="module")
def somebody(shared: Space) -> Caller:
    """Signed by the cluster's authority, and allowed nothing."""
    ca = shared.lab.plane.authority
    return Caller(shared.lab, ca.issue("somebody", common_name="somebody", groups=("people",)))


@pytest.fixture(scope="module")
def api_server(shared: Space) -> Caller:
    return callers.api_server(shared.lab)


@pytest.fixture(scope="module")
def talking(shared: Space) -> str:
    """A Pod with a log."""
    shared.create(pod("talking", container(shared.lab.image_busybox, "echo hello; exec sleep 3600")))
    shared.wait(is_ready, "talking")
    return "talking"


@every_route
def test_nobody_is_let_in(shared: Space, method: str, path: str) -> None:
    assert Caller(shared.lab).ask(method, path) == Answer(401, "Unauthorized")
    assert Caller(shared.lab, token="made.up.token").ask(method, path) == Answer(401, "Unauthorized")


@every_route
def test_certificate_alone_opens_nothing(somebody: Caller, method: str, path: str) -> None:
    answer = somebody.ask(method, path)
    assert answer.status == 403
    assert re.fullmatch(r"Forbidden \(user=somebody, verb=\w+, resource=nodes, subresource\(s\)=\[[\w ]+\]\)\n", answer.text)


def test_certificate_of_another_authority_opens_nothing(shared: Space, tmp_path: Path) -> None:
    """It calls itself what the cluster's own is called, and its authority so, too."""
    stranger = pki.Authority(tmp_path, "ca")
    stranger.ensure()
    forged = stranger.issue("forged", common_name="kube-apiserver-kubelet-client", groups=("system:masters",))
    for method, path in ROUTES:
        try:
            answer = Caller(shared.lab, forged).ask(method, path)
        except (ssl.SSLError, ConnectionError):
            continue  # TLS has refused it
        assert answer == Answer(401, "Unauthorized")


@dataclass(frozen=True, slots=True)
class Account:
    """A ServiceAccount with a ClusterRole on `nodes/<subresource>`."""

    space: Space
    name: str

    def allow(self, subresource: str, *verbs: str) -> None:
        role, kubectl = f"{self.space.name}-{self.name}", self.space.lab.kubectl
        rules = ["--resource=nodes/" + subresource, *(f"--verb={verb}" for verb in verbs)]
        kubectl("create", "clusterrole", role, *rules)
        kubectl("create", "clusterrolebinding", role, f"--clusterrole={role}", f"--serviceaccount={self.space.name}:{self.name}")

    def caller(self) -> Caller:
        return Caller(self.space.lab, token=self.space.kubectl("create", "token", self.name).strip())

    def remove(self) -> None:
        role = f"{self.space.name}-{self.name}"
        self.space.lab.kubectl("delete", "clusterrole,clusterrolebinding", role, "--ignore-not-found")


@pytest.fixture
def account(shared: Space, request: pytest.FixtureRequest) -> Iterator[Account]:
    account = Account(shared, re.sub(r"\W|_", "-", request.node.originalname.removeprefix("test_"))[:40].strip("-"))
    shared.kubectl("create", "serviceaccount", account.name)
    yield account
    account.remove()


def test_token_with_a_role_is_let_in(account: Account, talking: str) -> None:
    account.allow("proxy", "get", "create")
    caller = account.caller()
    assert caller.ask("GET", f"/containerLogs/{account.space.name}/{talking}/main") == Answer(200, "hello\n")
    assert caller.ask("GET", "/healthz") == Answer(200, "ok")
    answer = caller.ask("POST", f"/exec/{account.space.name}/{talking}/main?output=1&command=true")
    assert answer.status == 400
    assert "missing upgrade headers" in answer.text


def test_token_without_a_role_is_forbidden(account: Account) -> None:
    answer = account.caller().ask("GET", "/pods")
    assert answer.status == 403
    assert f"user=system:serviceaccount:{account.space.name}:{account.name}" in answer.text


def test_reader_of_the_node_runs_no_commands(account: Account, talking: str) -> None:
    account.allow("proxy", "get")
    caller = account.caller()
    assert caller.ask("GET", f"/containerLogs/{account.space.name}/{talking}/main").status == 200
    answer = caller.ask("GET", f"/exec/{account.space.name}/{talking}/main?output=1&command=true")
    assert answer.status == 403
    assert "verb=create" in answer.text


def test_finer_right_suffices_for_what_it_names(account: Account) -> None:
    account.allow("healthz", "get")
    caller = account.caller()
    assert caller.ask("GET", "/healthz?verbose").text.endswith("healthz check passed\n")
    assert caller.ask("GET", "/pods").status == 403


ANSWERS = [
    pytest.param("GET", "/healthz", 200, "ok", id="healthz"),
    pytest.param("GET", "/healthz/ping", 200, "ok", id="ping"),
    pytest.param("GET", "/healthz/log", 200, "ok", id="log"),
    pytest.param("GET", "/healthz/syncloop", 200, "ok", id="syncloop"),
    pytest.param("GET", "/containerLogs/{ns}/talking/main?tailLines=1", 200, "hello\n", id="logs"),
    pytest.param("GET", "/containerLogs/{ns}/nope/main", 404, 'pod "nope" does not exist', id="logs-of-no-pod"),
    pytest.param("GET", "/containerLogs/{ns}/talking/nope", 404, 'container "nope" not found in pod "talking"', id="no-container"),
    pytest.param("GET", "/containerLogs/{ns}/talking/main?tailLines=-1", 422, '{"message": "Invalid request."}', id="bad-tail"),
    pytest.param(
        "GET", "/containerLogs/{ns}/talking/main?limitBytes=x", 400, '{"message": "Unable to decode query."}', id="bad-limit"
    ),
    pytest.param("POST", "/exec/{ns}/nope/main?output=1&command=ls", 404, "pod does not exist", id="exec-in-no-pod"),
    pytest.param("POST", "/exec/{ns}/talking/nope?output=1&command=ls", 500, 'container not found ("nope")', id="exec-in-nothing"),
    pytest.param(
        "POST", "/exec/{ns}/talking/main?command=ls", 400, "you must specify at least 1 of stdin, stdout, stderr", id="no-stream"
    ),
]


@pytest.mark.parametrize(("method", "path", "status", "text"), ANSWERS)
def test_answers_are_a_kubelets(
    shared: Space, api_server: Caller, talking: str, method: str, path: str, status: int, text: str
) -> None:
    assert api_server.ask(method, path.format(ns=shared.name)) == Answer(status, text)


def test_run_answers_with_what_the_command_wrote(shared: Space, api_server: Caller, talking: str) -> None:
    path = f"/run/{shared.name}/{talking}/main?cmd="
    assert api_server.ask("POST", f"{path}echo+one+two") == Answer(200, "one two\n")
    failed = api_server.ask("POST", f"{path}ls+/nowhere")
    assert failed.status == 500
    assert failed.text.startswith("command 'ls /nowhere' exited with 1: ls: /nowhere: No such file")


def test_log_that_breaks_off_does_not_look_complete(shared: Space, api_server: Caller, talking: str) -> None:
    path = f"/containerLogs/{shared.name}/{talking}/main"
    host = shared.lab.host(host_of(shared.pod(talking)))
    with api_server.asking("GET", f"{path}?follow=true") as answer:
        assert answer.readline() == b"hello\n"
        host.cut()
        try:
            with pytest.raises((http.client.HTTPException, OSError)):
                answer.read()
        finally:
            host.heal()
    wait_for(lambda: api_server.ask("GET", path) == Answer(200, "hello\n"), "logs work again", timeout_s=60)


def test_pods_are_listed_through_the_api_server(shared: Space, talking: str) -> None:
    listed = json.loads(shared.lab.kubectl("get", "--raw", "/api/v1/nodes/vknix/proxy/pods").stdout)
    assert (listed["kind"], listed["apiVersion"]) == ("PodList", "v1")
    named = {(of["metadata"]["namespace"], of["metadata"]["name"]) for of in listed["items"]}
    assert (shared.name, talking) in named
    assert all(of["spec"]["nodeName"] == "vknix" for of in listed["items"])


def test_node_s_health_is_read_through_the_api_server(shared: Space) -> None:
    assert shared.lab.kubectl("get", "--raw", "/api/v1/nodes/vknix/proxy/healthz").stdout == "ok"


@pytest.fixture
def serving(shared: Space, tmp_path: Path) -> Iterator[pki.Identity]:
    """The files of the serving certificate; put back after the test."""
    folder = shared.lab.layout.pki
    names = [folder / f"kubelet.{kind}" for kind in ("key", "crt")]
    for name in names:
        shutil.copy2(name, tmp_path / name.name)
    yield pki.Identity(names[1], names[0])
    for name in names:
        shutil.move(tmp_path / name.name, name)


def test_replaced_certificate_is_served_without_a_restart(
    shared: Space, talking: str, serving: pki.Identity, tmp_path: Path
) -> None:
    lab, process = shared.lab, shared.lab.vknix.pid
    before = serial(lab)
    follow = [str(lab.layout.bin / "kubectl"), f"--kubeconfig={lab.layout.admin_kubeconfig}", f"--namespace={shared.name}"]
    with subprocess.Popen([*follow, "logs", talking, "--follow"], stdout=subprocess.PIPE) as follower:
        try:
            assert follower.stdout is not None
            assert follower.stdout.readline() == b"hello\n"
            _issue(lab, tmp_path, serving)
            wait_for(lambda: serial(lab) != before, "the new certificate is served", timeout_s=RELOADED_S)
            assert shared.logs(talking) == "hello\n"
            assert follower.poll() is None  # connections that are open live on
        finally:
            follower.kill()
    assert lab.vknix.pid == process


def _issue(lab: Lab, folder: Path, into: pki.Identity) -> None:
    """A new serving certificate of the same authority, put in place as an operator does: one file after the other."""
    for kind in ("crt", "key"):
        shutil.copy(lab.layout.pki / f"ca.{kind}", folder / f"ca.{kind}")
    fresh = pki.Authority(folder, "ca").issue(
        "fresh", common_name="system:node:vknix", groups=("system:nodes",), sans=(lab.address,)
    )
    fresh.key.rename(into.key)
    fresh.cert.rename(into.cert)
