"""A Pod never gets more than it asked for: identities, namespaces and kernel settings as they are seen from inside."""

from typing import Any

import pytest

from tests.integration.build import (
    SLEEP,
    Json,
    Space,
    container,
    has_ended,
    held,
    host_of,
    is_ready,
    pod,
    runs,
    terminated,
    wait_as_before,
    waiting,
)
from tests.integration.build import snapshots as taken
from tests.lab.lab import Lab
from tests.lab.shell import LabError

pytestmark = pytest.mark.lab

STATUS = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Seccomp_filters):' /proc/self/status"
DEFAULT, ALL = "00000000a80425fb", "000001ffffffffff"
NONE = "0" * 16


def told(text: str) -> dict[str, str]:
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in text.splitlines())}


def context(**fields: Any) -> Json:
    return {"securityContext": fields}


CONTEXTS: dict[str, tuple[Json, dict[str, str]]] = {
    "plain": (context(), {"Uid": "0 0 0 0", "Groups": "0", "CapEff": DEFAULT, "CapBnd": DEFAULT, "NoNewPrivs": "0"}),
    "user": (
        context(runAsUser=7, runAsGroup=8),
        {"Uid": "7 7 7 7", "Gid": "8 8 8 8", "Groups": "8", "CapEff": NONE, "CapPrm": NONE},
    ),
    "drop": (context(capabilities={"drop": ["ALL"], "add": ["CHOWN"]}), {"CapEff": "0" * 15 + "1", "CapBnd": "0" * 15 + "1"}),
    "nnp": (context(allowPrivilegeEscalation=False), {"NoNewPrivs": "1", "CapEff": DEFAULT}),
    "filter": (
        context(seccompProfile={"type": "RuntimeDefault"}, runAsUser=7),
        {"Seccomp": "2", "NoNewPrivs": "0", "CapEff": NONE},
    ),
}


@pytest.fixture(scope="module")
def contexts(shared: Space, lab: Lab) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """What the main process and an exec'd one say of themselves, for each security context."""
    image = lab.image_busybox
    containers = [container(image, f"{STATUS}; {SLEEP}", name=name, **fields) for name, (fields, _) in CONTEXTS.items()]
    shared.create(pod("contexts", *containers))
    shared.wait(is_ready, "contexts")
    return {
        name: (
            told(shared.logs("contexts", f"--container={name}")),
            told(shared.kubectl("exec", "contexts", f"--container={name}", "--", "sh", "-c", STATUS)),
        )
        for name in CONTEXTS
    }


@pytest.mark.parametrize("name", CONTEXTS)
def test_processes_are_what_the_pod_asks_for(contexts: dict[str, tuple[dict[str, str], dict[str, str]]], name: str) -> None:
    main, execd = contexts[name]
    assert main == execd
    assert {key: main[key] for key in CONTEXTS[name][1]} == CONTEXTS[name][1]
    assert (main["CapInh"], main["CapAmb"]) == (NONE, NONE)


def test_filter_is_one_more_than_the_host_has(contexts: dict[str, tuple[dict[str, str], dict[str, str]]]) -> None:
    assert int(contexts["filter"][1]["Seccomp_filters"]) == int(contexts["plain"][1]["Seccomp_filters"]) + 1


def test_kernel_is_masked_as_runtimes_do_it(space: Space, lab: Lab) -> None:
    script = (
        "cat /proc/keys /proc/interrupts | wc -c; ls /proc/acpi /sys/firmware | grep -v : | wc -w; echo 1 > /proc/sys/vm/swappiness"
    )
    of = space.run(pod("masked", container(lab.image_busybox, script)))
    assert space.logs("masked").split()[:2] == ["0", "0"]
    assert terminated(of)["exitCode"] != 0


LOOKS = """
for of in keys interrupts; do [ -f /proc/$of ] && echo $of; done
[ -n "$(head -c 1 /proc/interrupts)" ] && echo all of it
for of in kernel/shm_rmid_forced vm/swappiness; do echo 1 > /proc/sys/$of && echo $of; done 2> /dev/null
sleep 3600
"""


def test_proc_is_masked_unless_the_container_is_to_have_all_of_it(space: Space, lab: Lab) -> None:
    """Unmasked, the kernel still asks for rights: what is of the Pod's own namespaces may be set, and nothing of the host's."""
    whole = container(lab.image_busybox, LOOKS, name="whole", **context(procMount="Unmasked"))
    with pytest.raises(LabError, match="hostUsers"):
        space.create(pod("refused", whole))
    masked = container(lab.image_busybox, LOOKS, name="masked", **context(procMount="Default"))
    space.create(pod("proc", masked, whole, hostUsers=False))
    space.wait(is_ready, "proc")
    seen = {name: space.logs("proc", f"--container={name}").splitlines() for name in ("masked", "whole")}
    assert seen == {"masked": [], "whole": ["keys", "interrupts", "all of it", "kernel/shm_rmid_forced"]}


def test_privileged_has_all_and_nothing_is_hidden(space: Space, lab: Lab) -> None:
    script = (
        f"{STATUS}; cat /proc/interrupts > /dev/null && echo 60 > /proc/sys/vm/swappiness && mount -t tmpfs t /tmp && echo fine"
    )
    space.run(pod("privileged", container(lab.image_busybox, script, **context(privileged=True))))
    said = space.logs("privileged")
    assert "fine" in said
    assert bin(int(told(said)["CapEff"], 16)).count("1") > bin(int(DEFAULT, 16)).count("1")


def test_sysctls(space: Space, lab: Lab) -> None:
    wanted = [
        {"name": "kernel.shm_rmid_forced", "value": "1"},
        {"name": "net.ipv4.ip_local_port_range", "value": "20000 30000"},
    ]
    script = "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_local_port_range"
    space.run(pod("sysctls", container(lab.image_busybox, script), securityContext={"sysctls": wanted}))
    assert space.logs("sysctls").split() == ["1", "20000", "30000"]


def test_unsafe_sysctl_is_forbidden(space: Space, lab: Lab) -> None:
    unsafe = {"sysctls": [{"name": "kernel.msgmax", "value": "10000"}]}
    of = space.run(pod("unsafe", container(lab.image_busybox), securityContext=unsafe))
    assert of["status"]["reason"] == "SysctlForbidden"


def test_who_must_not_be_root_does_not_begin_as_root(space: Space, lab: Lab) -> None:
    image = lab.image_busybox
    containers = [
        container(image, name="root", **context(runAsNonRoot=True)),
        container(image, name="user", **context(runAsNonRoot=True, runAsUser=7)),
    ]
    space.create(pod("careful", *containers))
    of = space.wait(lambda of: bool(waiting(of, "root")) and runs(of, "user"), "careful")["careful"]
    assert waiting(of, "root") == "CreateContainerConfigError"
    assert "runAsNonRoot" in space.wait_event("careful", "Failed")


def test_containers_share_processes(space: Space, lab: Lab) -> None:
    """One sees the other, and the end of one is no end of the other."""
    image = lab.image_busybox
    before = taken(lab)
    ending = container(image, "sleep 400 & until [ -e /tmp/go ]; do sleep 0.1; done; exit 133", name="ending")
    space.create(pod("sharing", container(image), ending, shareProcessNamespace=True))
    space.wait(is_ready, "sharing")
    assert "sleep 400" in space.exec("sharing", "ps")
    space.kubectl("exec", "sharing", "--container=ending", "--", "touch", "/tmp/go")
    of = space.wait(lambda each: bool(terminated(each, "ending")), "sharing")["sharing"]
    assert terminated(of, "ending")["exitCode"] == 133
    assert "sleep 400" not in space.exec("sharing", "ps")
    assert "sleep 3600" in space.exec("sharing", "ps")
    space.clear()
    wait_as_before(lab, before)


def test_end_by_signal_is_told_where_processes_are_shared(space: Space, lab: Lab) -> None:
    """The signals that nspawn would take for a reboot and a power-off, and another one."""
    names = {"hup": ("SIGHUP", 129), "int": ("SIGINT", 130), "term": ("SIGTERM", 143)}
    containers = [container(lab.image_busybox, name=name, lifecycle={"stopSignal": signal}) for name, (signal, _) in names.items()]
    space.create(held(pod("signalled", *containers, shareProcessNamespace=True, os={"name": "linux"}, grace_s=20)))
    space.wait(is_ready, "signalled")
    space.kubectl("delete", "pod", "signalled", "--wait=false")
    of = space.wait(has_ended, "signalled")["signalled"]
    space.let_go("signalled")
    assert {name: terminated(of, name)["exitCode"] for name in names} == {name: code for name, (_, code) in names.items()}


def test_end_by_signal_is_told_where_the_journal_is_deaf(space: Space, lab: Lab) -> None:
    """A busy journal takes in what nspawn says when nspawn is gone, and no longer knows of which unit it was."""
    containers = [container(lab.image_busybox, name="main"), container(lab.image_busybox, "kill -SEGV $$$$", name="fault")]
    space.create(held(pod("unheard", *containers, shareProcessNamespace=True, grace_s=20)))
    of = space.wait(lambda of: runs(of) and bool(terminated(of, "fault")), "unheard")["unheard"]
    assert (terminated(of, "fault")["exitCode"], terminated(of, "fault")["signal"]) == (139, 11)
    host = next(each for each in lab.hosts if each.name == host_of(of))
    host.inside("systemctl kill --signal=STOP systemd-journald")
    try:
        space.kubectl("delete", "pod", "unheard", "--wait=false")
        of = space.wait(has_ended, "unheard")["unheard"]
    finally:
        host.inside("systemctl kill --signal=CONT systemd-journald")
    space.let_go("unheard")
    assert (terminated(of)["exitCode"], terminated(of)["signal"]) == (143, 15)


def test_hosts_processes_are_seen(space: Space, lab: Lab) -> None:
    space.create(pod("host-pid", container(lab.image_busybox), hostPID=True, hostIPC=True))
    space.wait(is_ready, "host-pid")
    assert "systemd" in space.exec("host-pid", "cat", "/proc/1/comm")


def test_hosts_network(space: Space, lab: Lab) -> None:
    """Two Pods with the same port are on two hosts, each as its host in the network; nobody has room for a third."""
    before = taken(lab)
    ports: Json = {"ports": [{"containerPort": 18080}], "readinessProbe": {"httpGet": {"port": 18080}, "periodSeconds": 1}}
    serving = container(lab.image_busybox, "uname -n > /tmp/index.html; exec httpd -f -p 18080 -h /tmp", **ports)
    alias = [{"ip": "192.0.2.9", "hostnames": ["alias"]}]
    of_node: Json = {"nodeName": space.kubectl("get", "nodes", "--selector=type=virtual-kubelet", "--output=name").split()[0][5:]}
    for name in ("own-0", "own-1"):  # past the scheduler, which gives each port once a node
        space.create(pod(name, serving, hostNetwork=True, hostAliases=alias, **of_node))
    found = space.wait(is_ready, "own-0", "own-1")
    assert len({host_of(of) for of in found.values()}) == 2
    for name, of in found.items():
        address = lab.layout.host_address(host_of(of))
        status = of["status"]
        assert (status["hostIP"], status["podIP"], status["podIPs"]) == (address, address, [{"ip": address}])
        assert f"inet {address}/" in space.exec(name, "ip", "addr")
        hosts = space.exec(name, "cat", "/etc/hosts")
        assert hosts.startswith("# Kubernetes-managed hosts file (host network).\n")
        assert hosts.endswith("192.0.2.9\talias\n")
        assert space.exec(name, "wget", "-qO-", f"http://{address}:18080/") == space.exec(name, "uname", "-n")
    third = space.run(pod("own-2", serving, hostNetwork=True, **of_node))
    assert third["status"]["reason"] == "NodePorts"
    space.clear()
    wait_as_before(lab, before)


def test_users_of_its_own(space: Space, lab: Lab) -> None:
    """Root is no root of the host, has its network, and volumes are as it expects; two Pods have different users."""
    before = taken(lab)
    script = f"cat /proc/self/uid_map; touch /data/x /y && stat -c %u /data/x /y; ip link set lo down && echo mine; {SLEEP}"
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}], **context(capabilities={"add": ["NET_ADMIN"]})}
    for name in ("users-1", "users-2"):
        of = pod(name, container(lab.image_busybox, script, **mounts), hostUsers=False, volumes=[{"name": "data", "emptyDir": {}}])
        space.create(of)
    space.wait(is_ready, "users-1", "users-2")
    said = [space.logs(name).splitlines() for name in ("users-1", "users-2")]
    assert [lines[1:] for lines in said] == [["0", "0", "mine"]] * 2
    for lines in said:
        first, base, count = map(int, lines[0].split())
        assert (first, count, base % 65536) == (0, 65536, 0)
        assert base > 0
    assert space.exec("users-1", "id", "-u") == "0\n"
    assert space.exec("users-1", "cat", "/proc/self/uid_map") == space.logs("users-1").splitlines()[0] + "\n"
    space.clear()
    wait_as_before(lab, before)
