"""Probes: what makes a container ready, started or killed, and that a host which is away makes nothing of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.build import (
    SLEEP,
    WHILE_NOT_TOLD,
    Json,
    Space,
    condition,
    container,
    has_ended,
    host_of,
    identity,
    is_ready,
    phase,
    pod,
    runs,
    seconds,
    status,
    tell,
    terminated,
    uid32,
    with_data,
)
from tests.lab.hosts import Host
from tests.lab.shell import wait_for

pytestmark = pytest.mark.lab

WWW = "mkdir -p /tmp/www; echo hello > /tmp/www/index.html"
NAMED = [{"name": "web", "containerPort": 8080}]
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
FRESH = "[ -e /data/again ]; again=$?; touch /data/again"  # whether this attempt is the first
COUNTED = {"exec": {"command": ["sh", "-c", "[ -e /data/up ] && echo probed >> /data/probes"]}}
STALL_S, CUT_S = 5.0, 25.0  # the first is too short for a link to be lost


def every_second(how: Json, **fields: Any) -> Json:
    return {**how, "periodSeconds": 1, "timeoutSeconds": 5, **fields}


def if_there(path: str) -> Json:
    return {"exec": {"command": ["test", "-e", path]}}


def http(path: str = "/", port: int | str = "web", **fields: Any) -> Json:
    return {"httpGet": {"path": path, "port": port, **fields}}


def serving(image: str, address: str = "8080", **fields: Any) -> Json:
    """A container with a web server."""
    return container(image, f"{WWW}; exec httpd -f -p {address} -h /tmp/www", ports=NAMED, **fields)


def guarded(image: str, token: str) -> Json:
    """A container whose web server lets pass whoever shows the token; its readiness probe shows one."""
    cgi = f"#!{image.removeprefix('nix:0')}/bin/sh\n[ $HTTP_X_TOKEN = open ] || echo Status: 403\necho\n"
    script = 'mkdir -p /tmp/www/cgi-bin; cd /tmp/www; printf "$CGI" > cgi-bin/of; chmod +x cgi-bin/of; exec httpd -f -p 8080'
    probe = http("/cgi-bin/of", httpHeaders=[{"name": "X-Token", "value": token}])
    return container(image, script, ports=NAMED, env=[{"name": "CGI", "value": cgi}], readinessProbe=every_second(probe))


def serving_grpc(agnhost: str, asked: str) -> Json:
    """A container with a gRPC health service, and a readiness probe that asks for one."""
    probe = every_second({"grpc": {"port": 5000, "service": asked}})
    command = ["agnhost", "grpc-health-checking", "--service=shop"]
    return {"name": "main", "image": agnhost, "command": command, "readinessProbe": probe}


READY = ("http", "http-header", "tcp", "pod-address", "grpc", "startup")
UNREADY = {
    "http-404": "Readiness probe failed: HTTP probe failed with statuscode: 404",
    "http-wrong-header": "Readiness probe failed: HTTP probe failed with statuscode: 403",
    "tcp-closed": "Readiness probe failed: dial tcp ",
    "exec-fails": "Readiness probe failed: not yet",
    "grpc-wrong-service": "Readiness probe failed: health rpc failed: status 5: unknown service",
}
KILLED = {"liveness": "livenessProbe", "startup-fails": "startupProbe"}


@pytest.fixture(scope="module")
def settled(shared: Space) -> dict[str, Json]:
    """Each Pod once it has shown what it is to show."""
    image = shared.lab.image_busybox
    up, once = every_second(if_there("/data/up")), f"{FRESH}; [ $again = 1 ] || touch /data/up"
    late = {**up, "failureThreshold": 2, "initialDelaySeconds": 2}
    says = {"exec": {"command": ["sh", "-c", "echo not yet; exit 1"]}}
    shared.create(
        pod("http", serving(image, readinessProbe=every_second(http()))),
        pod("http-header", guarded(image, "open")),
        pod("tcp", serving(image, readinessProbe=every_second({"tcpSocket": {"port": "web"}}))),
        pod("pod-address", serving(image, "$POD_IP:8080", env=[POD_IP], readinessProbe=every_second(http(port=8080)))),
        with_data(
            pod(
                "startup",
                container(
                    image,
                    f"sleep 4; touch /data/up; {SLEEP}",
                    startupProbe={**up, "failureThreshold": 60},
                    livenessProbe={**up, "failureThreshold": 1},
                ),
                restart="Always",
            )
        ),
        pod("http-404", serving(image, readinessProbe=every_second(http("/nothing")))),
        pod("http-wrong-header", guarded(image, "closed")),
        pod("tcp-closed", container(image, readinessProbe=every_second({"tcpSocket": {"port": 8080}}))),
        pod("grpc", serving_grpc(shared.lab.images["agnhost"], "shop")),
        pod("grpc-wrong-service", serving_grpc(shared.lab.images["agnhost"], "bank")),
        pod("exec-fails", container(image, readinessProbe=every_second(says))),
        *(
            with_data(pod(name, {**container(image, f"{once}; {SLEEP}"), kind: late}, restart="Always"))
            for name, kind in KILLED.items()
        ),
        pod("liveness-never", container(image, livenessProbe=every_second(if_there("/nothing"), failureThreshold=1))),
    )
    shared.wait(is_ready, *READY)
    shared.wait(has_ended, "liveness-never")
    for name, message in UNREADY.items():
        wait_unhealthy(shared, name, message)
    return shared.wait(lambda of: is_ready(of) and status(of)["restartCount"] > 0, *KILLED)


@pytest.mark.parametrize("name", ["http", "http-header", "tcp", "pod-address", "grpc"])
def test_container_is_ready_when_its_probe_has_passed(settled: dict[str, Json], name: str) -> None:
    told = status(settled[name])
    assert (told["ready"], told["started"], told["restartCount"]) == (True, True, 0)


@pytest.mark.parametrize("name", UNREADY)
def test_pod_whose_readiness_fails_runs_on_and_is_not_ready(settled: dict[str, Json], name: str) -> None:
    of = settled[name]
    assert (phase(of), status(of)["ready"], status(of)["restartCount"]) == ("Running", False, 0)
    assert (condition(of, "Ready")["status"], condition(of, "Ready")["reason"]) == ("False", "ContainersNotReady")


@pytest.mark.usefixtures("settled")
def test_health_service_that_serves_no_longer_makes_a_pod_unready(shared: Space) -> None:
    shared.exec("grpc", "wget", "-qO-", "http://localhost:8080/make-not-serving")
    wait_unhealthy(shared, "grpc", 'Readiness probe failed: service unhealthy (responded with "NOT_SERVING")')
    assert status(shared.wait(lambda of: not is_ready(of), "grpc")["grpc"])["restartCount"] == 0


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("name", UNREADY)
def test_failed_probe_is_an_event(shared: Space, name: str) -> None:
    wait_unhealthy(shared, name, UNREADY[name])


def wait_unhealthy(space: Space, name: str, start: str) -> None:
    """Until there is an Event whose message begins so; there may be others of when the container had just started."""

    def is_told() -> bool:
        return any(reason == "Unhealthy" and message.startswith(start) for reason, message in space.events(name))

    wait_for(is_told, f"an Event {start!r} about {name}", timeout_s=20)


def test_container_that_is_not_alive_is_killed_and_comes_back(settled: dict[str, Json]) -> None:
    told = status(settled["liveness"])
    assert (told["restartCount"], told["lastState"]["terminated"]["exitCode"]) == (1, 137)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(("name", "kind"), [("liveness", "liveness"), ("startup-fails", "startup")])
def test_kill_by_a_probe_is_told_as_a_kubelet_does(shared: Space, name: str, kind: str) -> None:
    assert shared.wait_event(name, "Killing") == f"Container main failed {kind} probe, will be restarted"
    assert shared.wait_event(name, "Unhealthy").startswith(f"{kind.capitalize()} probe failed: ")


def test_container_that_does_not_start_in_time_is_killed(settled: dict[str, Json]) -> None:
    assert status(settled["startup-fails"])["restartCount"] == 1


def test_kill_by_a_probe_ends_a_pod_of_never(settled: dict[str, Json]) -> None:
    of = settled["liveness-never"]
    assert (phase(of), terminated(of)["exitCode"], status(of)["restartCount"]) == ("Failed", 137, 0)


def test_startup_probe_keeps_the_others_waiting(settled: dict[str, Json]) -> None:
    of = settled["startup"]
    assert (status(of)["started"], status(of)["restartCount"]) == (True, 0)
    began = seconds(status(of)["state"]["running"]["startedAt"])
    assert seconds(condition(of, "Ready")["lastTransitionTime"]) >= began + 3


def test_readiness_comes_and_goes_without_a_restart(space: Space) -> None:
    probe = every_second(if_there("/data/up"), failureThreshold=1)
    space.create(with_data(pod("turns", container(space.lab.image_busybox, readinessProbe=probe))))
    first = space.wait(runs, "turns")["turns"]
    assert not is_ready(first)
    for command, ready in (("touch", True), ("rm", False), ("touch", True)):
        space.exec("turns", command, "/data/up")
        now = space.wait(readiness_is(ready), "turns")["turns"]
        assert (phase(now), identity(now)) == ("Running", identity(first))


def readiness_is(ready: bool) -> Callable[[Json], bool]:
    return lambda of: is_ready(of) is ready


def test_probes_go_on_when_vknix_is_killed_and_nothing_flaps(space: Space) -> None:
    image, lab = space.lab.image_busybox, space.lab
    probe = every_second(COUNTED, failureThreshold=2)
    main = container(image, f"touch /data/up; {SLEEP}", startupProbe=probe, livenessProbe=probe, readinessProbe=probe)
    reader = serving(image, name="web", readinessProbe=every_second(http(), initialDelaySeconds=3))
    space.create(with_data(pod("stays", main, reader, restart="Always")))
    before = space.wait(is_ready, "stays")["stays"]
    lab.vknix.kill()
    lab.vknix.start()
    wait_for_probes(lab.host(host_of(before)), before, 10)
    after = space.pod("stays")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    space.exec("stays", "rm", "/data/up")
    space.wait(lambda of: status(of)["restartCount"] == 1, "stays")


def test_container_that_a_probe_has_killed_starts_again_though_vknix_did_not_see_its_end(space: Space) -> None:
    """Killed while vknix was there, it ends well while vknix is away, which by its policy would be the end."""
    lab = space.lab
    deaf = f"[ ! -e /data/go ] || {{ rm /data/sick; {SLEEP}; }}; trap : TERM; {WHILE_NOT_TOLD}"
    probe = every_second({"exec": {"command": ["test", "!", "-e", "/data/sick"]}}, failureThreshold=1)
    space.create(with_data(pod("deaf", container(lab.image_busybox, deaf, livenessProbe=probe), restart="OnFailure", grace_s=300)))
    before = space.wait(is_ready, "deaf")["deaf"]
    host, var = lab.host(host_of(before)), f"/var/lib/vknix/{uid32(before)}/c/main"
    space.exec("deaf", "touch", "/data/sick")
    wait_for(lambda: host.inside(f"cat {var}/again 2>/dev/null || :").split() == ["0"], "it is asked to end", timeout_s=20)
    lab.vknix.kill()
    tell(host, before)
    wait_for(lambda: host.inside(f"cat {var}/facts 2>/dev/null | wc -l").strip() == "1", "it has ended", timeout_s=20)
    lab.vknix.start()
    after = space.wait(lambda of: status(of)["restartCount"] == 1 and is_ready(of), "deaf")["deaf"]
    assert status(after)["lastState"]["terminated"]["exitCode"] == 0


def wait_for_probes(host: Host, of: Json, more: int) -> None:
    """Until the Pod has written down that many probes more."""
    count = f"wc -l < /var/lib/vknix/{uid32(of)}/empty/data/probes"
    before = int(host.inside(count))
    wait_for(lambda: int(host.inside(count)) >= before + more, f"{more} probes more", timeout_s=30)


@dataclass(frozen=True, slots=True)
class Cut:
    """Pods with probes of each kind, before, during and after their host could not be reached; the Events about them."""

    before: dict[str, Json]
    during: dict[str, Json]
    after: dict[str, Json]
    events: dict[str, list[tuple[str, str]]]


HOW = {"by-exec": COUNTED, "by-http": http(), "by-tcp": {"tcpSocket": {"port": "web"}}}


def cut_for(for_s: float, space: Space) -> dict[str, Json]:
    """Cuts all hosts for that long. The Pods shortly before the end."""
    until = time.monotonic() + for_s
    for host in space.lab.hosts:
        host.cut()
    try:
        wait_for(lambda: time.monotonic() > until, "the cut is over", timeout_s=for_s + 5, every_s=0.5)
        return space.pods()
    finally:
        for host in space.lab.hosts:
            host.heal()


@pytest.fixture(scope="module")
def cut(shared: Space) -> Cut:
    """Both hosts are cut, twice, for longer than any of the probes is patient."""
    image = shared.lab.image_busybox
    main = f"touch /data/up; {WWW}; exec httpd -f -p 8080 -h /tmp/www"
    for name, how in HOW.items():
        probe = every_second(how, timeoutSeconds=1, failureThreshold=1, initialDelaySeconds=2)
        of = container(image, main, ports=NAMED, livenessProbe=probe, readinessProbe=probe)
        shared.create(with_data(pod(name, of, restart="Always")))
    before = shared.wait(is_ready, *HOW)
    for name in HOW:
        shared.wait_event(name, "Started")
    cut_for(STALL_S, shared)
    of = shared.pod("by-exec")
    wait_for_probes(shared.lab.host(host_of(of)), of, 4)
    during = cut_for(CUT_S, shared)
    after = shared.wait(is_ready, *HOW, timeout_s=60)
    return Cut(before, during, after, {name: shared.events(name) for name in HOW})


@pytest.mark.parametrize("name", HOW)
def test_lost_host_is_no_failure_of_a_probe(cut: Cut, name: str) -> None:
    assert not [message for reason, message in cut.events[name] if reason in ("Unhealthy", "Killing")]


@pytest.mark.parametrize("name", HOW)
def test_pod_of_a_lost_host_is_not_ready_whatever_its_probes_said(cut: Cut, name: str) -> None:
    assert condition(cut.during[name], "Ready")["reason"] == "HostUnreachable"


@pytest.mark.parametrize("name", HOW)
def test_no_probe_restarts_a_container_since_its_host_was_away(cut: Cut, name: str) -> None:
    assert identity(cut.after[name]) == identity(cut.before[name])
