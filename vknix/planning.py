"""`vknix plan`: a Pod file -> what a host would get, as text. Touches nothing, asks nobody; secrets are not shown."""

import base64
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import yaml

from vknix.core import env_files, fields, handlers, inputs
from vknix.core import pod as pods
from vknix.core.fetched import Fetched, Surroundings, Token
from vknix.core.handlers import Handler
from vknix.core.pod import Pod
from vknix.errors import Refused
from vknix.nspawn import files, paths, spaces, tree, unit
from vknix.nspawn import plan as plans
from vknix.nspawn.plan import PodPlan

_UID = "00000000-0000-4000-8000-000000000000"  # of a Pod that no API server has seen
_TOOL = f"{paths.ROOTS}/vktool/bin/vktool"
_ADDRESS = "192.0.2.2"


class _Anything(dict[str, bytes]):
    """Stands for an object in the cluster: it has whatever key is asked for."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> bytes:
        return b"(from the cluster)"


@dataclass(frozen=True, slots=True)
class Options:
    """What a host would know better: vktool's path there, the Pod's address."""

    tool: str = _TOOL
    address: str = _ADDRESS


def read(text: str) -> Pod:
    """A Pod as YAML or JSON, as it is before an API server fills it in. Refused where it is none, or asks for what can't be had."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Refused("", f"this is no YAML: {error}", remedy="give one Pod") from error
    if not isinstance(document, dict) or document.get("kind") != "Pod" or not isinstance(document.get("spec"), dict):
        raise Refused("kind", "this is no Pod", remedy="give one document with kind: Pod and a spec")
    fields.check(document["spec"], _handler(document["spec"].get("runtimeClassName")))
    metadata = {"namespace": "default", "uid": _UID, **(document.get("metadata") or {})}
    metadata.setdefault("name", metadata.pop("generateName", "pod-"))
    try:
        return pods.decode(json.dumps({**document, "metadata": metadata}, default=str).encode())
    except msgspec.ValidationError as error:
        raise Refused("", f"this is no Pod: {error}", remedy="see kubectl explain pod.spec") from error


def _handler(runtime_class: str | None) -> Handler:
    """No cluster is asked: a class is taken to have the name of its handler."""
    return handlers.chosen(runtime_class, runtime_class, {}) if runtime_class else handlers.DEFAULT


def make(pod: Pod, options: Options) -> PodPlan:
    wanted = inputs.needs(pod)
    fetched = Fetched(
        {key: _Anything() for key in wanted.objects},
        {key: Token("(a token)", 0.0, 3600.0) for key in wanted.tokens},
        files=dict.fromkeys(env_files.keys(pod, [container.name for _, container in pods.containers(pod)]), _every_key(pod)),
    )
    addresses = () if pod.spec.host_network else (options.address,)
    around = Surroundings("vknix", (_ADDRESS,), addresses or (_ADDRESS,), 0, 0, 0, (), "cluster.local", "")
    made = inputs.resolve(pod, fetched, around, _handler(pod.spec.runtime_class_name))
    for refusal in made.held.values():
        raise refusal
    return plans.pod_plan(pod, made, addresses, _settings(options), {}, spaces.free_users(set()))


def _every_key(pod: Pod) -> bytes:
    """An env file with whatever key is asked for."""
    refs = (ref for _, container in pods.containers(pod) for ref in env_files.of_container(container))
    return "".join(f"{ref.key}='(from a file)'\n" for ref in refs).encode()


def _settings(options: Options) -> plans.Settings:
    return plans.Settings(options.tool, 0)


def describe(text: str, options: Options = Options()) -> str:
    """Units with their properties and commands, files with their modes, mounts, and the network."""
    plan = make(read(text), options)
    return "".join(f"{line}\n" for line in _description(plan, options))


def _description(plan: PodPlan, options: Options) -> Iterator[str]:
    settings = _settings(options)
    yield f"# Pod {plan.namespace}/{plan.name}: {len(plan.machines)} machines in {paths.pod_slice(plan.uid32)}"
    for machine in plan.machines:
        yield f"\n## unit {paths.unit(plan.uid32, machine.container)}"
        yield from (f"{name}={value}" for name, value in unit.properties(plan, machine, settings))
        yield f"ExecStart={shlex.join(unit.exec_start(plan, machine, settings))}"
        yield f"Environment: {' '.join(sorted(name for name, _ in machine.env))} (values in the file identity, 0600)"
        yield f"Runs as {machine.uid}:{machine.gid}: {shlex.join(machine.argv)}"
        yield f"Capabilities: {' '.join(machine.capabilities) or 'none'}"
        yield "Mounts:"
        if plan.handler is not Handler.UNIT:
            yield f"  {machine.closure} and what it needs, and nothing else, at /nix (read-only)"
        yield from (f"  {mount.target} <- {mount.source}{' (read-only)' if mount.read_only else ''}" for mount in machine.mounts)
    yield "\n## files"
    yield from _listing(files.files(plan, "", "0"))
    yield "\n## script"
    yield unit.sync(plan, {machine.container: 0 for machine in plan.machines}, {}, settings).rstrip()


def _listing(entries: list[tree.Entry]) -> Iterator[str]:
    for entry in entries:
        match entry:
            case tree.Dir(path, mode):
                yield f"{mode:04o} {path}/"
            case tree.File(path, data, mode):
                yield f"{mode:04o} {path} ({len(data)} bytes)"
            case tree.Link(path, target):
                yield f"link {path} -> {target}"
            case tree.Whiteout(path):
                yield f"hide {path}"


def commands(text: str, options: Options = Options()) -> str:
    """One systemd-run for each container: the bare start of the same unit, where its files are."""
    plan = make(read(text), options)
    settings = _settings(options)
    lines = (
        shlex.join(
            [
                "systemd-run",
                "--quiet",
                f"--unit={paths.unit(plan.uid32, machine.container)}",
                *unit.systemd_run(plan, machine, settings),
                *unit.exec_start(plan, machine, settings),
            ]
        )
        for machine in plan.machines
    )
    return "".join(f"{line}\n" for line in lines)


def preparation(text: str, options: Options = Options()) -> str:
    """A script that makes all but the units on a host that has the closures: for a start by hand (see `commands`)."""
    plan = make(read(text), options)
    archive = base64.b64encode(tree.pack(files.files(plan, "", "0"))).decode()
    made = unit.prepare(plan, _settings(options))
    return f"set -e\nbase64 -d <<'X' | tar --xattrs --xattrs-include='trusted.*' -xpf - -C /\n{archive}\nX\n{made}"
