"""PodPlan -> what one round trip brings to a host: a tar of files, and the script in it that makes network and units. Pure.

A container is one transient unit: Type=notify (nspawn's own READY), no RemainAfterExit (with it exit 0 is neither recorded nor
restarted), facts by ExecStopPost. The script may be run again at any time: what is there is left alone.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from vknix.core.facts import Keys
from vknix.core.handlers import Handler
from vknix.nspawn import limits, mounts, network, paths, publish, service, spaces, swap, system
from vknix.nspawn.plan import MachinePlan, PodPlan, Settings

DEPOSED = 75  # exit code of a script whose epoch is over


def guard(epoch: int) -> str:
    """Opens each script that changes a host: a vknix that was followed by another can do nothing."""
    return f'PATH={paths.SEARCH}; export PATH\nread epoch < {paths.EPOCH} && [ "$epoch" = {epoch} ] || exit {DEPOSED}\nset -e\n'


def sync(plan: PodPlan, run: Mapping[str, int], lost: Mapping[str, int], settings: Settings, resized: tuple[str, ...] = ()) -> str:
    """The script. `run`: the attempt to begin, by container; it prints `ahead CONTAINER` where that has ended already. `lost`:
    attempts that ended without a fact (a power cut) and are given one first. `resized`: those that get other limits as they run; it
    prints `limit CONTAINER WHY` for each that could not.

    The network is made while the units start: vktool waits for its marker before it runs anything. The script prints when it was.
    """
    started = [machine for machine in plan.machines if machine.container in run]
    units = " ".join(paths.unit(plan.uid32, machine.container) for machine in started)
    undo = f"{{ systemctl stop --no-block {units}; exit 1; }}" if started else "exit 1"
    lines = [guard(settings.epoch), 'rm -f "$0" &\n', swap.shared(plan), swap.volumes(plan, settings.tool)]
    lines += [_farm_script(plan, machine) for machine in plan.machines if machine.view is not None]
    lines += [_lost_script(plan, container, attempt) for container, attempt in lost.items()]
    lines += [f"(\n{_network_script(plan, settings)}) &\nnetwork=$!\n", spaces.make(plan.uid32, plan.spaces, settings.tool)]
    lines += [_resize_script(plan, resized, settings), _START if started else ""]
    lines += [_start_script(plan, machine, run[machine.container], settings) for machine in started]
    return "".join(lines) + f'wait "$network" || {undo}\nwait\ncat {paths.run(plan.uid32)}/net\n'


def _farm_script(plan: PodPlan, machine: MachinePlan) -> str:
    """A view that machines may be using stays as it is."""
    farm = machine.farm(plan.uid32)
    return f"if [ -e {farm} ]; then rm -rf {farm}.new; else mv -T {farm}.new {farm}; fi\n"


def _resize_script(plan: PodPlan, resized: tuple[str, ...], settings: Settings) -> str:
    """The slice follows only where all could: it must not shrink below what its containers have."""
    if not resized:
        return ""
    lines = ["had=yes\n"]
    for machine in plan.machines:
        if machine.container in resized:
            run, name = paths.run_of(plan.uid32, machine.container), paths.unit(plan.uid32, machine.container)
            weight = f"CPUWeight={limits.weight(machine.requests.cpu_milli)}"
            lines.append(
                f'why=$({settings.tool} limit {run}/run) || had=\n[ -z "$why" ] || echo "limit {machine.container} $why"\n'
                f'[ -n "$why" ] || systemctl set-property --runtime {name} {weight} 2>/dev/null || :\n'
            )
    of = " ".join(f"{name}={value}" for name, value in plan.slice)
    lines.append(f'[ -z "$had" ] || systemctl set-property --runtime {paths.pod_slice(plan.uid32)} {of} 2>/dev/null || :\n')
    return "".join(lines)


def prepare(plan: PodPlan, settings: Settings) -> str:
    """What the files need done before a container can start: volumes in place, network and what else is shared."""
    tool = settings.tool
    return (
        swap.shared(plan) + swap.volumes(plan, tool) + _network_script(plan, settings) + spaces.make(plan.uid32, plan.spaces, tool)
    )


# A unit that is there already is this attempt's, unless it only waits to be restarted: as it is, or as another image wants it.
_START = """start() {
  container=$1; attempt=$2; facts=$3; unit=$4; description=$5; shift 5
  [ "$(cat "$facts" 2>/dev/null | wc -l)" -le "$attempt" ] || { echo "ahead $container"; return; }
  systemd-run --quiet --no-block --unit="$unit" "$@" 2>/dev/null && return
  state=$(systemctl show -P SubState "$unit")
  case $state in
    *auto-restart*)
      if [ "$(systemctl show -P Description "$unit")" = "$description" ]; then
        systemctl restart --no-block "$unit"
      else
        systemctl stop "$unit"
        systemd-run --quiet --no-block --unit="$unit" "$@"
      fi;;
    dead|failed|'') systemctl reset-failed "$unit" 2>/dev/null || :; systemd-run --quiet --no-block --unit="$unit" "$@";;
  esac
}
"""


def _network_script(plan: PodPlan, settings: Settings) -> str:
    """The marker says that the network was made whole, and when; what a torn attempt left goes first."""
    marker = f"{paths.run(plan.uid32)}/net"
    done = f"date +%s.%N > {marker}.new\nmv {marker}.new {marker}\n"  # whole, or not there
    users = spaces.make_users(plan.uid32, plan.spaces, settings.tool)
    made = users + network.make(plan.uid32, plan.addresses[0], there=bool(users)) if plan.addresses else ""
    made += spaces.set_network(plan.uid32, plan.spaces)
    undo = network.remove(plan.uid32)
    if plan.ports:
        made += publish.make(plan.uid32, network.veth(plan.uid32), plan.addresses[0], plan.ports, settings.nft)
        undo += publish.unmake(plan.uid32, settings.nft)
    again = f"if [ -e /run/netns/{network.netns(plan.uid32)} ]; then\n{undo}fi\n"
    return f"if [ ! -e {marker} ]; then\nset -e\n{again}{made}{done}fi\n"


def lost_fact(attempt: int) -> dict[str, Any]:
    """The fact of an attempt whose host went down before it could write one."""
    return {"attempt": attempt, "id": "", "started": None, "finished": None, "result": "lost"}


def _lost_script(plan: PodPlan, container: str, attempt: int) -> str:
    facts = f"{paths.var_of(plan.uid32, container)}/facts"
    line = json.dumps(lost_fact(attempt))
    torn = f'[ -z "$(tail -c 1 {facts} 2>/dev/null)" ] || echo >> {facts}\n'
    return f'{torn}[ "$(cat {facts} 2>/dev/null | wc -l)" -gt {attempt} ] || echo {shlex.quote(line)} >> {facts}\n'


def _start_script(plan: PodPlan, machine: MachinePlan, attempt: int, settings: Settings) -> str:
    said = shlex.quote(description(plan, machine))
    options = " ".join(shlex.quote(option) for option in systemd_run(plan, machine, settings))
    argv = " ".join(shlex.quote(word) for word in exec_start(plan, machine, settings))
    of = f"{machine.container} {attempt} {paths.var_of(plan.uid32, machine.container)}/facts"
    return f"{_prepare_start(plan, machine)}start {of} {paths.unit(plan.uid32, machine.container)} {said} {options} {argv}\n"


def description(plan: PodPlan, machine: MachinePlan) -> str:
    """Its end is how unit_state knows what a unit runs."""
    return f"container {machine.container} of Pod {plan.namespace}/{plan.name}, image {machine.image_name}"


def _prepare_start(plan: PodPlan, machine: MachinePlan) -> str:
    match plan.handler:
        case Handler.NSPAWN:
            return ""
        case Handler.UNIT:
            return service.prepare(plan, machine)
        case Handler.NIXOS:
            return system.prepare(plan, machine)


def properties(plan: PodPlan, machine: MachinePlan, settings: Settings) -> list[tuple[str, str]]:
    """Of the unit. Env and secrets are in files; nothing here is secret."""
    run, var = paths.run_of(plan.uid32, machine.container), paths.var_of(plan.uid32, machine.container)
    policy = "fallback" if machine.fallback_to_logs else "file"
    name = paths.machine(plan.uid32, machine.container)
    end = f"{settings.tool} fact {var}/log {var}/facts {var}/message {run}/run {name} {policy}"
    return [
        ("Description", description(plan, machine)),
        ("Slice", paths.pod_slice(plan.uid32)),
        ("Type", "notify"),
        ("NotifyAccess", "all"),
        ("Delegate", "yes"),
        ("KillMode", "mixed"),
        ("OOMPolicy", "continue"),  # the kernel kills all of the container; systemd would kill what writes down its end as well
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
        *limits.unit(machine.requests),
        *(service.properties(plan, machine) if plan.handler is Handler.UNIT else []),
    ]


def systemd_run(plan: PodPlan, machine: MachinePlan, settings: Settings) -> list[str]:
    """Options of systemd-run, but for the unit's name."""
    env = {
        # The filter is vktool's, so that what is exec'd has it too; but for a system's, which starts without vktool.
        "SYSTEMD_SECCOMP=0": plan.handler is not Handler.NIXOS or not machine.seccomp,
        "SYSTEMD_NSPAWN_SHARE_NS_IPC=1": plan.spaces.ipc or plan.spaces.host_ipc,
        "SYSTEMD_NSPAWN_SHARE_NS_PID=1": plan.shares_processes(machine),
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE=1": machine.privileged,
    }
    given = [f"--setenv={each}" for each, holds in env.items() if holds]
    props = [f"--property={name}={value}" for name, value in properties(plan, machine, settings)]
    return [*given, "--expand-environment=no", *props]


def exec_start(plan: PodPlan, machine: MachinePlan, settings: Settings) -> list[str]:
    """argv of the unit: vktool, which supervises nspawn, which runs the container; or the program itself, where it is in none."""
    run, var = paths.run_of(plan.uid32, machine.container), paths.var_of(plan.uid32, machine.container)
    root = (f"{var}/root", f"{var}/skeleton") if plan.handler is not Handler.UNIT else service.NO_ROOT
    supervisor = [
        settings.tool,
        "run",
        *(["--init"] if plan.handler is Handler.NSPAWN else []),
        f"--log={settings.logs.size},{settings.logs.files}",
        *_stdio(machine),
        *_among(plan, machine),
        f"{var}/log",
        f"{var}/facts",
        *root,
        f"{var}/message",
        f"{run}/run",
        f"{paths.run(plan.uid32)}/net",
    ]
    if plan.handler is Handler.UNIT:
        return [*supervisor, *service.program(plan, machine)]
    ipc = ["nsenter", f"--ipc={spaces.ipc(plan.uid32)}"] if plan.spaces.ipc else []
    made = [settings.tool, "mount", f"{run}/mounts", f"{var}/root", mounts.points(plan.uid32, machine.container), "--"]
    return [*supervisor, "--", *(made if machine.made_mounts else []), *ipc, *nspawn(plan, machine)]


def _among(plan: PodPlan, machine: MachinePlan) -> list[str]:
    target = plan.target(machine)
    return [f"--pids={paths.run_of(plan.uid32, target)}/run"] if target else []


def _stdio(machine: MachinePlan) -> list[str]:
    reads = ["--stdin-once"] if machine.stdin_once else ["--stdin"] if machine.stdin else []
    return [*reads, *(["--tty"] if machine.tty else [])]


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
        "--resolv-conf=off",
        "--timezone=off",
        *(system.options(plan, machine) if plan.handler is Handler.NIXOS else _own_options(plan, machine)),
        *([f"--network-namespace-path=/run/netns/{network.netns(plan.uid32)}"] if plan.addresses else []),
        f"--oci-bundle={paths.run_of(plan.uid32, machine.container)}",
        *(f"--bind-ro={_colons(file)}" for file in machine.closure_files),
        *binds,
    ]


def _own_options(plan: PodPlan, machine: MachinePlan) -> list[str]:
    """Of all capabilities vktool leaves what is asked for."""
    console = "passive" if machine.tty else "pipe"
    return [
        f"--console={console}",
        f"--kill-signal={machine.stop_signal}",
        "--capability=all",
        f"--overlay-ro=/nix:{machine.farm(plan.uid32)}:/nix",
    ]


def _colons(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:")


def stop(uid32: str, containers: tuple[str, ...], again: Keys, *, kill: bool, gently: bool, epoch: int) -> str:
    """Asks units to stop; `kill`: at once; `gently`: without systemd's own time limit, for a grace longer than the Pod's.

    Attempts that are stopped so that the next one starts are written down first: another vknix may be there when they end.
    """
    marks = "".join(f"echo {attempt} 2>/dev/null >> {paths.var_of(uid32, name)}/again || :\n" for name, attempt in again)
    units = " ".join(paths.unit(uid32, container) for container in containers)
    if gently and not kill:
        return f"{guard(epoch)}{marks}systemctl kill --kill-whom=main -s TERM {units} 2>/dev/null || :\n"
    # The rest goes with the main process (KillMode=mixed); what writes down the end must not be hit.
    after = f"systemctl kill --kill-whom=main -s KILL {units} 2>/dev/null || :\n" if kill else ""
    return f"{guard(epoch)}{marks}systemctl stop --no-block {units} 2>/dev/null || :\n{after}"


def clean(uid32: str, containers: tuple[str, ...], epoch: int, nft: str) -> str:
    """Nothing of the Pod runs any more: slice, network, files. The link goes with the namespace, a moment later."""
    slice_file = f"{paths.UNITS}/{paths.pod_slice(uid32)}"
    resized = f"/run/systemd/system.control/{paths.pod_slice(uid32)}.d"
    return (
        f"{guard(epoch)}systemctl stop --no-block {paths.pod_slice(uid32)} 2>/dev/null || :\n"
        f"{publish.unmake(uid32, nft)}"
        f"ip netns del {network.netns(uid32)} 2>/dev/null || :\n{spaces.unmake(uid32)}"
        f"{''.join(_leftovers(uid32, container) for container in containers)}"
        # Not looked at: of one whose server is gone nothing is to be had.
        f"while read -r _ at _; do case $at in {paths.run(uid32)}/mem/*|{paths.run(uid32)}/nfs/*)\n"
        'umount -l "$at" 2>/dev/null || : ;; esac; done < /proc/self/mounts\n'
        f"rm -rf --one-file-system {slice_file} {resized} {paths.run(uid32)} {paths.var(uid32)}\n"
    )


def _leftovers(uid32: str, container: str) -> str:
    """What nspawn leaves behind that was killed, where vktool's own end was cut short too."""
    machine, root = paths.machine(uid32, container), f"{paths.var_of(uid32, container)}/root"
    shared = f"{paths.NSPAWN}/unix-export/{machine}"
    return (
        f"umount -l {shared} 2>/dev/null || :\nrmdir {shared} {paths.NSPAWN}/propagate/{machine} 2>/dev/null || :\n"
        f'lock=$(stat -c inode-%d:%i {root} 2>/dev/null) && rm -f "{paths.NSPAWN}/locks/$lock" || :\n'
    )
