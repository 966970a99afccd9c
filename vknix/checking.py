"""`vknix check`: whether cluster and hosts are fit for a configuration, a line each; the remedy where not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from vknix import config as configs
from vknix.errors import ConfigError, Forbidden, NotFound, VknixError
from vknix.kube import api, auth
from vknix.kube.client import Client
from vknix.node import host_specs
from vknix.nspawn import host as hosts
from vknix.nspawn import registration
from vknix.nspawn.ssh import Address, Link

_CHECK_S = 60.0
_ANY = {"verb": "get", "resource": "nodes"}
_REMEDY = "apply manifests/rbac.yaml, or use a node's certificate"
_ROOT_ONLY = "must be root: machines, mounts and network namespaces are root's to make; write user: root and give it the key"


@dataclass(frozen=True, slots=True)
class Finding:
    """`ok` None: a warning; all works, with less than could be."""

    subject: str
    ok: bool | None
    text: str

    def __str__(self) -> str:
        mark = {True: "ok  ", False: "FAIL", None: "warn"}[self.ok]
        return f"{mark}  {self.subject}: {self.text}"


async def check(config: configs.Config, say: Callable[[str], None]) -> int:
    """Says each finding; 0 where nothing failed."""
    failed = False
    for node in config.nodes:
        async for finding in _findings(config, node):
            say(str(finding))
            failed = failed or finding.ok is False
    return 1 if failed else 0


async def _findings(config: configs.Config, node: configs.Node) -> AsyncIterator[Finding]:
    async for finding in _cluster(config, node):
        yield finding
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_host(spec.to)) for spec in host_specs(node)]
    for task in running:
        for finding in task.result():
            yield finding


async def _cluster(config: configs.Config, node: configs.Node) -> AsyncIterator[Finding]:
    subject = f"cluster, node {node.name}"
    try:
        async with asyncio.timeout(_CHECK_S), Client(await auth.load(node.kubeconfig)) as client:
            for finding in await _calls(client, subject, config, node):
                yield finding
    except (VknixError, TimeoutError) as error:
        yield Finding(subject, ok=False, text=f"{error}; check cluster.kubeconfig and that the API server can be reached from here")


async def _calls(client: Client, subject: str, config: configs.Config, node: configs.Node) -> list[Finding]:
    """What vknix calls first, each with the right that it needs."""
    pods = api.pods_of_node(node.name)
    wanted: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("list its Pods", lambda: client.request("GET", pods.path, query={**pods.query, "limit": "1"})),
        ("list Services", lambda: client.request("GET", api.all_services().path, query={"limit": "1"})),
        (
            "review access",
            lambda: api.review_access(client, {"user": "vknix-check", "resourceAttributes": {"verb": "get", "resource": "nodes"}}),
        ),
    ]
    found = []
    for what, call in wanted:
        try:
            await call()
        except Forbidden as error:
            found.append(
                Finding(subject, ok=False, text=f"may not {what}: {error}; apply manifests/rbac.yaml, or use a node's certificate")
            )
        else:
            found.append(Finding(subject, ok=True, text=f"may {what}"))
    if not config.cluster.dns and not await _has_dns(client):
        found.append(Finding(subject, ok=None, text="no Service kube-system/kube-dns: Pods get their host's DNS; set cluster.dns"))
    return found


async def _has_dns(client: Client) -> bool:
    try:
        await api.get_service(client, "kube-system", "kube-dns")
    except (NotFound, Forbidden):
        return False
    return True


async def _host(host: Address) -> list[Finding]:
    subject = f"host {host.name}"
    if host.user != "root":
        return [Finding(subject, ok=False, text=f"the SSH user {host.user} {_ROOT_ONLY}")]
    if not hosts.TOOL.exists():
        return [Finding(subject, ok=False, text=hosts.NO_TOOL)]
    try:
        async with asyncio.timeout(_CHECK_S), Link.open(host) as link:
            told = registration.parse((await link.run(registration.REGISTER)).decode(errors="replace"))
            forwards = (await link.run("systemctl is-system-running || :")).decode().strip()
    except (VknixError, TimeoutError, ConfigError) as error:
        return [Finding(subject, ok=False, text=str(error))]
    problems = [Finding(subject, ok=False, text=problem) for problem in registration.problems(told)]
    warnings = [Finding(subject, ok=None, text=warning) for warning in registration.warnings(told)]
    fit = f"{told['os']}, {told['systemd'].split(' (')[0]}, {told['nix']}, {told['cpus']} CPUs, systemd is {forwards}"
    return [*(problems or [Finding(subject, ok=True, text=fit)]), *warnings]
