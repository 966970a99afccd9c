"""The handlers of RuntimeClasses, on both shapes of host: a service of the host, and a whole system that its own init boots."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.build import (
    HOST,
    Json,
    Space,
    at_once,
    container,
    has_ended,
    held,
    host_of,
    is_ready,
    most_of_a_host,
    phase,
    pod,
    runs,
    seconds,
    status,
    terminated,
    uid32,
)
from tests.integration.streaming import Kubectl
from tests.lab.hosts import Host
from tests.lab.lab import Lab
from tests.lab.shell import wait_for

pytestmark = pytest.mark.lab

CONFIG: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": {"key": "value"}}
VOLUME = {"name": "config", "configMap": {"name": "config"}}
ALIVE = "while :; do sleep 0.05; done"


def runtime_class(name: str, handler: str, **fields: Any) -> Json:
    return {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": handler, **fields}


@pytest.fixture(scope="module", autouse=True)
def classes(lab: Lab) -> Iterator[None]:
    """A class of the same name for each handler, and one for a handler that nobody has."""
    overhead = {"podFixed": {"cpu": "10m", "memory": "1Mi"}}
    made = [runtime_class(name, name) for name in ("nspawn", "unit", "nixos", "nobody-has-it")]
    made.append(runtime_class("costly", "nspawn", overhead=overhead))
    lab.kubectl("apply", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))
    yield
    lab.kubectl("delete", "runtimeclass", *(each["metadata"]["name"] for each in made))


@dataclass(frozen=True, slots=True)
class On:
    """Pods of one handler, by the host that each is on."""

    space: Space
    lab: Lab
    pods: dict[str, Json]

    def name(self, host: Host) -> str:
        return str(self.pods[host.name]["metadata"]["name"])


def one_on_each(space: Space, lab: Lab, handler: str, main: Json, **spec: Any) -> On:
    """Each host has room for one of them."""
    resources = {"resources": most_of_a_host()}
    space.kubectl("apply", "--filename=-", stdin=json.dumps(CONFIG))
    space.create(
        *(
            held(pod(f"{handler}-{number}", {**main, **resources}, runtimeClassName=handler, volumes=[VOLUME], **spec))
            for number in range(len(lab.hosts))
        )
    )
    found = {host_of(of): of for of in space.wait(is_ready).values()}
    assert found.keys() == {host.name for host in lab.hosts}
    return On(space, lab, found)


def wait_log(space: Space, name: str, text: str) -> None:
    wait_for(lambda: text in space.logs(name), f"{name} says {text!r}", timeout_s=30)


def ended(of: Json) -> bool:
    return bool(terminated(of))


# A service of the host


UNIT = f"""trap 'echo ending; exit 7' TERM
cat /run/config/key; echo; id -u; id -g; echo "$WORD"; ls /var/run/secrets/kubernetes.io/serviceaccount
echo a message > /dev/termination-log
echo up
{ALIVE}"""


@pytest.fixture(scope="module")
def units(lab: Lab, shared: Space) -> On:
    main = container(
        lab.image_busybox,
        UNIT,
        env=[{"name": "WORD", "value": "of the Pod"}],
        volumeMounts=[{"name": "config", "mountPath": "/run/config"}],
        securityContext={"runAsUser": 1234, "runAsGroup": 4321, "seccompProfile": {"type": "RuntimeDefault"}},
        workingDir="/var",
    )
    return one_on_each(shared, lab, "unit", main, grace_s=10)


def test_a_unit_is_a_process_of_its_host(units: On, lab: Lab) -> None:
    for host in lab.hosts:
        of = units.pods[host.name]
        pids = host.run(
            f"cat /sys/fs/cgroup/vk.slice/vk-{uid32(of)}.slice/vk-{uid32(of)}-main.service/payload/cgroup.procs"
        ).split()
        assert host.run(f"readlink /proc/{pids[0]}/root /proc/1/ns/pid /proc/{pids[0]}/ns/pid").split() == [
            "/",
            *[host.run("readlink /proc/1/ns/pid").strip()] * 2,
        ]


def test_a_unit_has_the_pods_files_environment_and_user(units: On, lab: Lab) -> None:
    for host in lab.hosts:
        wait_log(units.space, units.name(host), "up")
        assert units.space.logs(units.name(host)).split("\n")[:8] == [
            "value",
            "1234",
            "4321",
            "of the Pod",
            "ca.crt",
            "namespace",
            "token",
            "up",
        ]


def test_a_unit_has_the_pods_network(units: On, lab: Lab) -> None:
    for host in lab.hosts:
        of = units.pods[host.name]
        assert of["status"]["podIP"] in units.space.exec(units.name(host), "ip", "address")


def test_exec_is_one_more_process_of_the_unit(units: On, lab: Lab) -> None:
    for host in lab.hosts:
        told = units.space.exec(
            units.name(host), "sh", "-c", "id -u; pwd; cat /run/config/key; grep -E 'CapEff|Seccomp:' /proc/self/status"
        )
        assert told.split() == ["1234", "/var", "value" + "CapEff:", "0" * 16, "Seccomp:", "2"]


def test_nothing_of_the_environment_is_in_the_unit(units: On, lab: Lab) -> None:
    for host in lab.hosts:
        shown = host.run(f"systemctl show vk-{uid32(units.pods[host.name])}-main.service")
        assert "of the Pod" not in shown
        assert "termination-log; " not in shown


def test_a_unit_ends_as_it_wants_when_it_is_asked_to(units: On, lab: Lab) -> None:
    names = [units.name(host) for host in lab.hosts]
    units.space.kubectl("delete", "pod", *names, "--wait=false")
    for name, of in units.space.wait(ended, *names).items():
        assert (terminated(of)["exitCode"], terminated(of)["reason"], terminated(of)["message"]) == (7, "Error", "a message\n")
        units.space.let_go(name)
    units.space.wait_gone(*names)


def test_a_unit_is_restarted_and_its_ends_are_told(space: Space, lab: Lab) -> None:
    main = container(lab.image_busybox, "echo attempt; sleep 0.3; kill -9 $$$$")
    space.create(pod("again", main, restart="Always", runtimeClassName="unit"))

    def twice(of: Json) -> bool:
        return status(of).get("restartCount", 0) >= 1 and "terminated" in status(of).get("lastState", {})

    of = space.wait(twice)["again"]
    last = status(of)["lastState"]["terminated"]
    assert (last["exitCode"], last.get("signal"), last["reason"]) == (137, 9, "Error")
    assert seconds(last["finishedAt"]) >= seconds(last["startedAt"])
    assert space.logs("again", "--previous") == "attempt\n"


def test_a_unit_reads_what_is_typed_into_it(space: Space, lab: Lab) -> None:
    script = "tty; stty size; read -r line; echo got $line; exit 5"
    space.create(pod("typed", container(lab.image_busybox, script, stdin=True, tty=True), runtimeClassName="unit"))
    space.wait(is_ready, "typed")
    with Kubectl(space).terminal("attach", "-it", "typed", rows=33, columns=77) as terminal:
        terminal.type("hello\r")
        terminal.expect("got hello")
        terminal.wait()
    of = space.wait(ended, "typed")["typed"]
    assert terminated(of)["exitCode"] == 5
    assert space.logs("typed").startswith("/dev/pts/")


def test_a_unit_reads_what_is_sent_to_it_once(space: Space, lab: Lab) -> None:
    main = container(lab.image_busybox, "cat; echo end", stdin=True, stdinOnce=True)
    space.create(pod("sent", main, runtimeClassName="unit"))
    space.wait(is_ready, "sent")
    Kubectl(space).run("attach", "-i", "sent", stdin=b"one\ntwo\n")
    space.wait(ended, "sent")
    assert space.logs("sent") == "one\ntwo\nend\n"


def test_a_unit_whose_program_is_not_there_says_so(space: Space, lab: Lab) -> None:
    of = space.run(pod("absent", {"name": "main", "image": lab.image_busybox, "command": ["no-such"]}, runtimeClassName="unit"))
    assert (terminated(of)["exitCode"], terminated(of)["reason"]) == (128, "StartError")
    assert "no-such" in terminated(of)["message"]


def test_what_a_unit_cant_have_is_refused_by_name(space: Space, lab: Lab) -> None:
    main = container(lab.image_busybox, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    of = space.run(pod("walls", main, runtimeClassName="unit", volumes=[{"name": "data", "emptyDir": {}}]))
    assert phase(of) == "Failed"
    assert "spec.containers[0].volumeMounts[0].mountPath" in of["status"]["message"]


# A whole system


@pytest.fixture(scope="module")
def systems(lab: Lab, shared: Space) -> On:
    main = {
        "name": "main",
        "image": lab.images["system"],
        "env": [{"name": "GREETING", "value": "of the Pod"}],
        "volumeMounts": [{"name": "config", "mountPath": "/var/lib/config"}],
    }
    return one_on_each(shared, lab, "nixos", main, grace_s=20)


def test_a_system_boots_and_its_journal_is_the_log(systems: On, lab: Lab) -> None:
    for host in lab.hosts:
        name = systems.name(host)
        wait_log(systems.space, name, "greeting: of the Pod")
        assert "Reached target" in systems.space.logs(name)


def test_exec_enters_the_system(systems: On, lab: Lab) -> None:
    for host in lab.hosts:
        name = systems.name(host)
        wait_log(systems.space, name, "Reached target multi-user")
        assert systems.space.exec(name, "cat", "/var/lib/config/key") == "value"
        assert "greeting: of the Pod" in systems.space.exec(name, "journalctl", "--unit=greeting", "--no-pager")
        assert systems.space.exec(name, "cat", "/proc/1/comm") == "systemd\n"


def test_a_system_sees_its_closure_and_keeps_its_own_state(systems: On, lab: Lab) -> None:
    for host in lab.hosts:
        name = systems.name(host)
        assert len(systems.space.exec(name, "ls", "/nix/store").split()) == 3
        assert systems.space.exec(name, "readlink", "/nix/var/nix/gcroots/current-system") == "/run/current-system\n"


def test_a_system_has_its_own_part_of_the_cgroups(systems: On, lab: Lab) -> None:
    for host in lab.hosts:
        told = systems.space.exec(systems.name(host), "sh", "-c", "grep ^0:: /proc/1/cgroup; ls /sys/fs/cgroup")
        assert "0::/init.scope" in told
        assert "vk.slice" not in told


def test_a_system_halts_when_its_pod_is_deleted(systems: On, lab: Lab) -> None:
    names = [systems.name(host) for host in lab.hosts]
    space, logs = systems.space, dict[str, str]()
    began = time.monotonic()
    at_once(
        *(lambda name=name: logs.update({name: space.logs(name, "--follow")}) for name in names),
        lambda: space.kubectl("delete", "pod", *names, "--wait=false"),
    )
    assert time.monotonic() - began < 15
    for name, of in space.wait(ended, *names).items():
        assert (terminated(of)["exitCode"], terminated(of)["reason"]) == (0, "Completed")
        assert "farewell: of the Pod" in logs[name]
        space.let_go(name)
    space.wait_gone(*names)


def test_a_system_that_powers_off_has_completed(space: Space, lab: Lab) -> None:
    space.create(pod("off", {"name": "main", "image": lab.images["system"]}, runtimeClassName="nixos"))
    space.wait(is_ready)
    wait_log(space, "off", "Reached target multi-user")
    space.exec("off", "systemctl", "poweroff", "--no-block")
    of = space.wait(has_ended)["off"]
    assert (phase(of), terminated(of)["exitCode"]) == ("Succeeded", 0)


def test_a_system_that_reboots_is_started_again(space: Space, lab: Lab) -> None:
    main = {"name": "main", "image": lab.images["system"]}
    space.create(pod("reboots", main, restart="Always", runtimeClassName="nixos"))
    space.wait(is_ready)
    wait_log(space, "reboots", "Reached target multi-user")
    space.exec("reboots", "systemctl", "reboot", "--no-block")
    of = space.wait(lambda of: status(of).get("restartCount") == 1 and runs(of))["reboots"]
    assert status(of)["lastState"]["terminated"]["exitCode"] == 133


def test_an_image_without_an_init_is_a_start_error(space: Space, lab: Lab) -> None:
    of = space.run(pod("empty", {"name": "main", "image": lab.image_busybox}, runtimeClassName="nixos"))
    assert (terminated(of)["exitCode"], terminated(of)["reason"]) == (128, "StartError")
    assert "/sbin/init" in terminated(of)["message"]


def test_a_command_for_a_system_is_refused(space: Space, lab: Lab) -> None:
    of = space.run(pod("commanded", container(lab.images["system"]), runtimeClassName="nixos"))
    assert "spec.containers[0].command" in of["status"]["message"]


# Classes


def test_a_pod_of_an_unknown_handler_waits_and_says_why(space: Space, lab: Lab) -> None:
    space.create(pod("unknown", container(lab.image_busybox), runtimeClassName="nobody-has-it"))
    message = space.wait_event("unknown", "FailedCreatePodSandBox")
    assert "'nobody-has-it'" in message
    assert "nixos, nspawn, unit" in message
    assert phase(space.pod("unknown")) == "Pending"


def test_a_class_of_the_default_handler_is_a_container_and_its_overhead_counts(space: Space, lab: Lab) -> None:
    main = container(lab.image_busybox, "echo $0", resources={"limits": {"memory": "64Mi"}})
    of = space.run(pod("costly", main, runtimeClassName="costly"))
    assert of["spec"]["overhead"] == {"cpu": "10m", "memory": "1Mi"}
    assert space.logs("costly") == "sh\n"
    host = lab.host(of["metadata"]["annotations"][HOST])
    supervisor = 8  # MiB, of what starts the container
    assert f"MemoryMax={(65 + supervisor) << 20}\n" in host.run(f"systemctl show -p MemoryMax vk-{uid32(of)}.slice")


def test_the_node_lists_its_handlers(lab: Lab, space: Space) -> None:
    node = json.loads(lab.kubectl("get", "node", "vknix", "--output=json").stdout)
    assert [each["name"] for each in node["status"]["runtimeHandlers"]] == ["", "nixos", "nspawn", "unit"]


def test_a_running_pod_outlives_its_class_and_vknix(space: Space, lab: Lab) -> None:
    """What a Pod's machines are is known from its host."""
    lab.kubectl("apply", "--filename=-", input=json.dumps(runtime_class("passing", "unit")))
    space.create(pod("stays", container(lab.image_busybox, "sleep 1; exit 3"), restart="OnFailure", runtimeClassName="passing"))
    space.wait(runs)
    lab.kubectl("delete", "runtimeclass", "passing")
    lab.vknix.stop()
    lab.vknix.start()
    space.wait(lambda of: status(of).get("restartCount", 0) >= 2, timeout_s=60)
    of = space.pod("stays")
    assert [message for reason, message in space.events("stays") if reason == "FailedCreatePodSandBox"] == []
    assert status(of)["lastState"]["terminated"]["exitCode"] == 3
