"""PodPlan -> what one round trip brings to a host: a tar of files, and the script in it that makes network and units. Pure.

A container is one transient unit: Type=notify (nspawn's own READY), no RemainAfterExit (with it exit 0 is neither recorded nor
restarted), facts by ExecStopPost. The script may be run again at any time: what is there is left alone.
"""

import hashlib
import json
import shlex
from collections.abc import Iterator
from typing import Any

from vknix.core.files import File as VolumeFile
from vknix.nspawn import network, paths
from vknix.nspawn import plan as plans
from vknix.nspawn.plan import MachinePlan, PodPlan, Settings
from vknix.nspawn.tree import Dir, Entry, File, Link

DEPOSED = 75  # exit code of a script whose epoch is over
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = b"root:x:0:\nnobody:x:65534:\n"


def guard(epoch: int) -> str:
    """Opens each script that changes a host: a vknix that was followed by another can do nothing."""
    return f'PATH={paths.SEARCH}; export PATH\nread epoch < {paths.EPOCH} && [ "$epoch" = {epoch} ] || exit {DEPOSED}\nset -e\n'


def files(plan: PodPlan, script: str, nonce: str) -> list[Entry]:
    """Everything but what the first start alone may write; the script comes last, so a torn tar never has it."""
    return [
        *_pod_files(plan),
        *(entry for machine in plan.machines for entry in _machine_files(plan, machine)),
        script_file(plan.uid32, script, nonce),
    ]


def script_file(uid32: str, script: str, nonce: str) -> File:
    return File(f"{paths.run(uid32)}/sync-{nonce}", script.encode(), 0o700)


def _pod_files(plan: PodPlan) -> Iterator[Entry]:
    run, var = paths.run(plan.uid32), paths.var(plan.uid32)
    yield Dir(paths.RUN, 0o700)
    yield Dir(run, 0o700)
    yield Dir(f"{run}/c", 0o700)
    yield Dir(f"{run}/vol", 0o755)
    yield Dir(f"{run}/shm", 0o1777)
    yield Dir(paths.VAR, 0o700)
    yield Dir(var, 0o700)
    yield Dir(f"{var}/c", 0o700)
    yield Dir(f"{var}/empty", 0o755)
    for name, of in plan.volumes.items():
        yield from _volume(f"{run}/vol/{name}", of)
    yield File(f"{run}/hosts", plan.hosts, 0o644)
    yield File(f"{run}/resolv.conf", plan.resolv_conf, 0o644)
    yield File(f"{var}/pod.json", _record(plan), 0o600)
    if any((plan.limits.cpu_milli, plan.limits.memory_bytes)):
        text = "[Slice]\n" + "".join(
            f"{name}={value}\n" for name, value in _limits(plan.limits.cpu_milli, plan.limits.memory_bytes)
        )
        yield File(f"{paths.UNITS}/{paths.pod_slice(plan.uid32)}", text.encode(), 0o644)


def _record(plan: PodPlan) -> bytes:
    """What vknix must know to take the Pod over again."""
    of = {"namespace": plan.namespace, "name": plan.name, "addresses": plan.addresses, "closures": dict(plan.closures)}
    return json.dumps(of).encode()


def _volume(root: str, of: tuple[VolumeFile, ...]) -> Iterator[Entry]:
    """What is to be in a volume, beside what is: the script puts it in place as a whole, unless it is there already."""
    fresh = f"{root}/..new-{_digest(of)}"
    yield Dir(root)
    yield Dir(fresh)
    made: set[str] = set()
    for file in of:
        parts = file.path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent not in made:
                made.add(parent)
                yield Dir(f"{fresh}/{parent}")
        yield File(f"{fresh}/{file.path}", file.data, file.mode)


def _digest(of: tuple[VolumeFile, ...]) -> str:
    digest = hashlib.sha256()
    for file in sorted(of, key=lambda file: file.path):
        digest.update(f"{file.path}\0{file.mode}\0{len(file.data)}\0".encode() + file.data)
    return digest.hexdigest()[:20]


def _machine_files(plan: PodPlan, machine: MachinePlan) -> Iterator[Entry]:
    run, var = paths.run_of(plan.uid32, machine.container), paths.var_of(plan.uid32, machine.container)
    yield Dir(run, 0o700)
    yield File(f"{run}/config.json", plans.oci(plan, machine))
    yield File(f"{run}/identity", plans.identity(machine))
    yield Dir(var, 0o700)
    yield Dir(f"{var}/log", 0o700)
    yield from _skeleton(f"{var}/skeleton", machine)


def _skeleton(root: str, machine: MachinePlan) -> Iterator[Entry]:
    """What each attempt's fresh root is copied from: mount points (a read-only root gets no more), /bin, /etc/passwd."""
    made = {""}

    def parents(path: str) -> Iterator[Entry]:
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            yield from directory("/" + "/".join(parts[:depth]))

    def directory(path: str, mode: int = 0o755) -> Iterator[Entry]:
        if path not in made:
            made.add(path)
            yield Dir(root + path, mode)

    yield Dir(root)
    for path in ("/dev", "/etc", "/nix", "/proc", "/run", "/sys", "/usr", "/var", "/var/tmp"):  # noqa: S108  # the container's
        yield from directory(path, 0o1777 if path == "/var/tmp" else 0o755)  # noqa: S108
    yield from directory("/root", 0o700)
    yield from directory("/tmp", 0o1777)  # noqa: S108
    if not f"{machine.directory}/".startswith(("/nix/", "/bin/", "/usr/bin/")):  # those are the closure's, as they are
        yield from parents(machine.directory + "/x")
    for mount in machine.mounts:
        yield from parents(mount.target)
        if mount.target.startswith("/dev/"):
            continue  # nspawn makes /dev anew
        if mount.file:
            yield File(root + mount.target, b"", 0o644)
        else:
            yield from directory(mount.target)
    for path in ("/bin", "/usr/bin"):
        if path not in made:  # as the place of a volume
            yield Link(root + path, f"{machine.closure}/bin")
    for path, data in (("/etc/passwd", _PASSWD), ("/etc/group", _GROUP)):
        if path not in made:
            yield File(root + path, data, 0o644)


def sync(plan: PodPlan, run: tuple[str, ...], lost: dict[str, int], settings: Settings) -> str:
    """The script. `lost`: attempts, by container, that ended without a fact (a power cut) and are given one first.

    The network is made while the units start: vktool waits for its marker before it runs anything. The script prints when it was.
    """
    started = [machine for machine in plan.machines if machine.container in run]
    units = " ".join(paths.unit(plan.uid32, machine.container) for machine in started)
    undo = f"{{ systemctl stop --no-block {units}; exit 1; }}" if started else "exit 1"
    lines = [guard(settings.epoch), 'rm -f "$0" &\n', _volumes_script(plan)]
    lines += [_lost_script(plan, container, attempt) for container, attempt in lost.items()]
    lines += [f"(\n{_network_script(plan)}) &\nnetwork=$!\n", _ipc_script(plan), _START if started else ""]
    lines += [_start_script(plan, machine, settings) for machine in started]
    return "".join(lines) + f'wait "$network" || {undo}\nwait\ncat {paths.run(plan.uid32)}/net\n'


def prepare(plan: PodPlan) -> str:
    """What the files need done before a container can start: volumes in place, network, shared IPC namespace."""
    return _volumes_script(plan) + _network_script(plan) + _ipc_script(plan)


def _ipc_script(plan: PodPlan) -> str:
    ipc = f"{paths.run(plan.uid32)}/ipc"
    return f"mountpoint -q {ipc} || {{ : > {ipc}; unshare --ipc={ipc} true; }}\n" if plan.shared_ipc else ""


# A unit that is there already is this attempt's, unless it only waits to be restarted.
_START = """start() {
  unit=$1; shift
  systemd-run --quiet --no-block --unit="$unit" "$@" 2>/dev/null && return
  state=$(systemctl show -P SubState "$unit")
  case $state in
    *auto-restart*) systemctl restart --no-block "$unit";;
    dead|failed|'') systemctl reset-failed "$unit" 2>/dev/null || :; systemd-run --quiet --no-block --unit="$unit" "$@";;
  esac
}
"""


def _volumes_script(plan: PodPlan) -> str:
    """The swap of each volume, and the removal of what it showed before. An emptyDir is made once: its mode is its users' own."""
    empty = (f"{paths.var(plan.uid32)}/empty/{name}" for name in plan.empty)
    lines = [f"[ -d {each} ] || mkdir -m 777 {each}\n" for each in empty]
    lines += [_volume_script(f"{paths.run(plan.uid32)}/vol/{name}", of) for name, of in plan.volumes.items()]
    return "".join(lines)


def _volume_script(root: str, of: tuple[VolumeFile, ...]) -> str:
    """As the kubelet's atomic writer: names -> ..data -> a directory named by what is in it, which is changed as a whole."""
    new, stamp = f"{root}/..new-{_digest(of)}", f"..v{_digest(of)}"
    names = [shlex.quote(each) for each in sorted({file.path.split("/")[0] for file in of})]
    links = "".join(f'[ -L {root}/{name} ] || set -- "$@" ..data/{name}\n' for name in names)
    keep = "|".join(names) or "''"
    return (
        f"if [ -d {root}/{stamp} ]; then rm -rf {root}/..new-*; else mv -T {new} {root}/{stamp}; fi\n"
        f"if ! [ {root}/..data -ef {root}/{stamp} ]; then\n"
        f"ln -sfn {stamp} {root}/..data_tmp\nmv -T {root}/..data_tmp {root}/..data\nfi\n"
        f'set --\n{links}[ $# = 0 ] || ln -s "$@" {root}/\n'
        f'for old in {root}/..v*; do [ "$old" = {root}/{stamp} ] || rm -rf "$old"; done\n'
        f"for link in {root}/* {root}/.[!.]*; do\n"
        f'case ${{link##*/}} in {keep}) ;; *) [ ! -L "$link" ] || rm -f "$link";; esac\ndone\n'
    )


def _network_script(plan: PodPlan) -> str:
    """The marker says that the network was made whole, and when; what a torn attempt left goes first."""
    marker = f"{paths.run(plan.uid32)}/net"
    done = f"date +%s.%N > {marker}.new\nmv {marker}.new {marker}\n"  # whole, or not there
    made = network.make(plan.uid32, plan.addresses[0]) if plan.addresses else ""
    again = f"if [ -e /run/netns/{network.netns(plan.uid32)} ]; then\n{network.remove(plan.uid32)}fi\n"
    return f"if [ ! -e {marker} ]; then\nset -e\n{again}{made}{done}fi\n"


def lost_fact(attempt: int) -> dict[str, Any]:
    """The fact of an attempt whose host went down before it could write one."""
    return {"attempt": attempt, "id": "", "started": None, "finished": None, "result": "lost"}


def _lost_script(plan: PodPlan, container: str, attempt: int) -> str:
    facts = f"{paths.var_of(plan.uid32, container)}/facts"
    line = json.dumps(lost_fact(attempt))
    torn = f'[ -z "$(tail -c 1 {facts} 2>/dev/null)" ] || echo >> {facts}\n'
    return f'{torn}[ "$(cat {facts} 2>/dev/null | wc -l)" -gt {attempt} ] || echo {shlex.quote(line)} >> {facts}\n'


def _start_script(plan: PodPlan, machine: MachinePlan, settings: Settings) -> str:
    options = " ".join(shlex.quote(option) for option in systemd_run(plan, machine, settings))
    argv = " ".join(shlex.quote(word) for word in exec_start(plan, machine, settings))
    return f"start {paths.unit(plan.uid32, machine.container)} {options} {argv}\n"


def properties(plan: PodPlan, machine: MachinePlan, settings: Settings) -> list[tuple[str, str]]:
    """Of the unit. Env and secrets are in files; nothing here is secret."""
    run, var = paths.run_of(plan.uid32, machine.container), paths.var_of(plan.uid32, machine.container)
    policy = "fallback" if machine.fallback_to_logs else "file"
    name = paths.machine(plan.uid32, machine.container)
    end = f"{settings.tool} fact {var}/log {var}/facts {var}/message {run}/run {name} {policy}"
    return [
        ("Description", f"container {machine.container} of Pod {plan.namespace}/{plan.name}"),
        ("Slice", paths.pod_slice(plan.uid32)),
        ("Type", "notify"),
        ("NotifyAccess", "all"),
        ("Delegate", "yes"),
        ("KillMode", "mixed"),
        ("OOMPolicy", "kill"),
        ("TimeoutStartSec", "infinity"),
        ("TimeoutStopSec", f"{plan.grace_s}s"),
        ("Restart", machine.restart),
        ("RestartSec", "10s"),
        ("RestartSteps", "5"),
        ("RestartMaxDelaySec", "300s"),
        ("StartLimitIntervalSec", "0"),
        ("CollectMode", "inactive-or-failed"),
        ("ExecSearchPath", paths.SEARCH.replace(":", " ")),
        ("ExecStopPost", f"-{end}"),
        *_limits(machine.limits.cpu_milli, machine.limits.memory_bytes),
        *([("CPUWeight", str(_weight(machine.requests.cpu_milli)))] if machine.requests.cpu_milli else []),
    ]


def _limits(cpu_milli: int | None, memory_bytes: int | None) -> list[tuple[str, str]]:
    of = []
    if cpu_milli:
        whole, tenth = divmod(max(cpu_milli, 10), 10)
        of.append(("CPUQuota", f"{whole}.{tenth}%" if tenth else f"{whole}%"))
    if memory_bytes:
        of += [("MemoryMax", str(memory_bytes)), ("MemorySwapMax", "0")]
    return of


def _weight(cpu_milli: int) -> int:
    """As runc turns cpu.shares into cpu.weight."""
    shares = max(2, cpu_milli * 1024 // 1000)
    return max(1, min(10000, 1 + ((shares - 2) * 9999) // 262142))


def systemd_run(plan: PodPlan, machine: MachinePlan, settings: Settings) -> list[str]:
    """Options of systemd-run, but for the unit's name."""
    env = [] if machine.seccomp else ["--setenv=SYSTEMD_SECCOMP=0"]
    if plan.shared_ipc:
        env.append("--setenv=SYSTEMD_NSPAWN_SHARE_NS_IPC=1")
    return [*env, "--expand-environment=no", *(f"--property={name}={value}" for name, value in properties(plan, machine, settings))]


def exec_start(plan: PodPlan, machine: MachinePlan, settings: Settings) -> list[str]:
    """argv of the unit: vktool, which supervises nspawn, which runs the container."""
    run, var = paths.run_of(plan.uid32, machine.container), paths.var_of(plan.uid32, machine.container)
    supervisor = [
        settings.tool,
        "run",
        f"{var}/log",
        f"{var}/facts",
        f"{var}/root",
        f"{var}/skeleton",
        f"{var}/message",
        f"{run}/run",
        f"{paths.run(plan.uid32)}/net",
        "--",
    ]
    ipc = ["nsenter", f"--ipc={paths.run(plan.uid32)}/ipc"] if plan.shared_ipc else []
    return [*supervisor, *ipc, *nspawn(plan, machine)]


def nspawn(plan: PodPlan, machine: MachinePlan) -> list[str]:
    binds = [
        f"--{'bind-ro' if mount.read_only else 'bind'}={_colons(mount.source)}:{_colons(mount.target)}" for mount in machine.mounts
    ]
    return [
        "systemd-nspawn",
        "--quiet",
        "--keep-unit",
        "--register=no",
        f"--machine={paths.machine(plan.uid32, machine.container)}",
        "--link-journal=no",
        "--console=pipe",
        "--resolv-conf=off",
        "--timezone=off",
        "--kill-signal=SIGTERM",
        *([f"--network-namespace-path=/run/netns/{network.netns(plan.uid32)}"] if plan.addresses else []),
        f"--oci-bundle={paths.run_of(plan.uid32, machine.container)}",
        f"--overlay-ro=/nix:{paths.farm(machine.closure)}:/nix",
        *(f"--bind-ro={_colons(file)}" for file in machine.closure_files),
        *binds,
    ]


def _colons(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:")


def stop(uid32: str, containers: tuple[str, ...], *, kill: bool, gently: bool, epoch: int) -> str:
    """Asks units to stop; `kill`: at once; `gently`: without systemd's own time limit, for a grace longer than the Pod's."""
    units = " ".join(paths.unit(uid32, container) for container in containers)
    if gently and not kill:
        return f"{guard(epoch)}systemctl kill --kill-whom=main -s TERM {units} 2>/dev/null || :\n"
    # The rest goes with the main process (KillMode=mixed); what writes down the end must not be hit.
    after = f"systemctl kill --kill-whom=main -s KILL {units} 2>/dev/null || :\n" if kill else ""
    return f"{guard(epoch)}systemctl stop --no-block {units} 2>/dev/null || :\n{after}"


def clean(uid32: str, epoch: int) -> str:
    """Nothing of the Pod runs any more: slice, network, files. The link goes with the namespace, a moment later."""
    slice_file = f"{paths.UNITS}/{paths.pod_slice(uid32)}"
    ipc = f"{paths.run(uid32)}/ipc"
    return (
        f"{guard(epoch)}systemctl stop --no-block {paths.pod_slice(uid32)} 2>/dev/null || :\n"
        f"ip netns del {network.netns(uid32)} 2>/dev/null || :\n[ ! -e {ipc} ] || umount {ipc} 2>/dev/null || :\n"
        f"rm -rf {slice_file} {paths.run(uid32)} {paths.var(uid32)}\n"
    )
