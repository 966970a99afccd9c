"""START HERE. One node: builds the parts, hands each what it needs, runs them in one TaskGroup.

The cluster says what is wanted, the hosts show what is; both land in the ledger. loops/pods.py has one worker a Pod that reports
and acts; loops/heartbeat.py keeps the Node; kubelet/server.py answers the API server. Anything unexpected ends the process: the
machines run on, and the next process lists both sides and goes on.
"""

import asyncio
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from vknix import __version__
from vknix import config as configs
from vknix.configz import configz
from vknix.core import nodestatus
from vknix.core.image import Alias, Aliases, Image
from vknix.core.pod import decode
from vknix.errors import Forbidden, NotFound
from vknix.kube import api, auth, certificates, csr
from vknix.kube.client import Client
from vknix.kube.events import Recorder
from vknix.kube.lease import NodeLease
from vknix.kubelet.auth import Attributes, Guard, User
from vknix.kubelet.server import KubeletServer, Settings
from vknix.kubelet.target import Target
from vknix.kubelet.views import Views
from vknix.ledger import Ledger
from vknix.loops.evicting import Evicting
from vknix.loops.heartbeat import Heartbeat
from vknix.loops.objects import Objects
from vknix.loops.pods import Pods
from vknix.loops.telling import Telling
from vknix.loops.tools import PodSettings, Tools
from vknix.loops.usages import Usages
from vknix.nspawn.host import HostSettings
from vknix.nspawn.plan import LogLimits
from vknix.nspawn.provider import HostSpec, NspawnProvider
from vknix.nspawn.ssh import Address
from vknix.telemetry import Telemetry

RESTART_ALL = "RestartAllContainersOnContainerExits"
WEB_SOCKETS = "ExtendWebSocketsToKubelet"  # the declared feature by which API servers from 1.36 on pass WebSockets through


async def run(config: configs.Config) -> None:
    """All nodes of the configuration, for ever. Raises ConfigError, Deposed, or what ended the first of them."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for node in config.nodes:
                tasks.create_task(run_node(config, node), name=f"node {node.name}")
    except BaseExceptionGroup as group:
        raise first(group) from group


def first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def leading(client: Client, name: str) -> AsyncIterator[NodeLease]:
    """Leads the node for as long as the block lasts. A restart on the same machine goes on at once."""
    lease = NodeLease(client, name)
    machine = socket.gethostname()
    await lease.acquire(f"{machine}/{os.getpid()}/{secrets.token_hex(4)}", machine)
    try:
        yield lease
    finally:
        await lease.release()


async def run_node(config: configs.Config, node: configs.Node) -> None:
    credentials, telemetry = await auth.load(node.kubeconfig), Telemetry()
    async with Client(credentials, telemetry) as client, leading(client, node.name) as lease:
        ledger = Ledger()
        events = Recorder(client, node.name)
        objects = Objects(client)
        service_cidrs = config.cluster.service_cidrs or await _service_cidrs(client)
        settings = HostSettings(
            lease.epoch,
            config.seccomp_default,
            (*config.cluster.pod_cidrs, *service_cidrs),
            config.pod_pids_limit,
            LogLimits(config.container_log_max_size, config.container_log_max_files),
            telemetry,
        )
        provider = NspawnProvider(host_specs(node), settings)
        pod_settings = PodSettings(
            node.name,
            node.address,
            config.cluster.domain,
            config.cluster.dns,
            config.strict_limits,
            aliases(config),
            config.runtime_handlers,
            config.allowed_unsafe_sysctls,
        )
        tools = Tools(client, provider, objects, events, pod_settings, telemetry=telemetry)
        heartbeat = Heartbeat(
            ledger, client, provider, events, lease, node_settings(config, node), node.pod_cidrs, tools.hosts_changed
        )
        certificate = serving_certificate(config, node, client)
        pods = Pods(ledger, tools)
        evicting = Evicting(ledger, provider, pods.wake)
        async with asyncio.TaskGroup() as tasks:
            for each in (events, objects, heartbeat, pods, evicting, certificate):
                tasks.create_task(each.run(), name=f"{node.name}: {type(each).__name__}")
            telling = Telling(node.name, ledger, Usages(node.name, ledger, provider), telemetry, heartbeat.stalled)
            serving = serve(config, node, client, ledger, provider, certificate, views(config, node, ledger, telling, heartbeat))
            tasks.create_task(serving, name=f"{node.name}: kubelet API")


async def _service_cidrs(client: Client) -> tuple[str, ...]:
    """Where the credential may ask: a node's own identity may not, and such a configuration says them."""
    try:
        return await api.list_service_cidrs(client)
    except (Forbidden, NotFound):
        return ()


def aliases(config: configs.Config) -> Aliases:
    return Aliases(tuple(Alias(each.name, _image(each)) for each in config.images))


def _image(of: configs.Image) -> Image:
    user, group = of.user if of.user is not None else (None, None)
    return Image(of.path, of.entrypoint, of.args, tuple(of.env.items()), user, group, of.working_dir, of.root, of.modes)


def host_specs(node: configs.Node) -> tuple[HostSpec, ...]:
    return tuple(
        HostSpec(
            Address(host.name, host.address, host.port, host.user, host.key_file, host.host_keys), node.max_pods, host.pod_cidr
        )
        for host in node.hosts
    )


def node_settings(config: configs.Config, node: configs.Node) -> nodestatus.NodeSettings:
    return nodestatus.NodeSettings(
        name=node.name,
        address=node.address,
        port=node.port,
        labels=node.labels,
        taints=tuple(nodestatus.Taint(taint.key, taint.effect, taint.value) for taint in node.taints),
        features=(*((WEB_SOCKETS,) if config.kubelet.web_sockets else ()), RESTART_ALL),
        version=__version__,
        runtime_handlers=config.runtime_handlers,
    )


def serving_certificate(config: configs.Config, node: configs.Node, client: Client) -> certificates.Certificate:
    """From the files that the configuration names, else by a CSR that somebody has to approve."""
    context = certificates.server_context(config.kubelet.client_ca_file)
    if config.kubelet.cert_file is not None and config.kubelet.key_file is not None:
        return certificates.FromFiles(context, config.kubelet.cert_file, config.kubelet.key_file)
    kept = config.kubelet.cert_directory and config.kubelet.cert_directory / f"{node.name}.pem"
    return certificates.FromCsr(context, client, csr.Subject(node.name, (node.address,), (node.name,)), kept)


async def serve(
    config: configs.Config,
    node: configs.Node,
    client: Client,
    ledger: Ledger,
    provider: NspawnProvider,
    certificate: certificates.Certificate,
    views: Views,
) -> None:
    await certificate.ready()
    server = KubeletServer(
        Settings(config.kubelet.listen or node.address, node.port, certificate.context),
        guard=guard(client, node.name, anonymous=config.kubelet.anonymous_auth),
        lookup=lambda namespace, name: target(ledger, namespace, name),
        backend=provider,
        views=views,
    )
    await server.serve()


def target(ledger: Ledger, namespace: str, name: str) -> Target | None:
    record = ledger.named(namespace, name)
    return Target(decode(record.raw), ledger.seen.get(record.uid)) if record is not None else None


def views(config: configs.Config, node: configs.Node, ledger: Ledger, telling: Telling, heartbeat: Heartbeat) -> Views:
    return Views(
        pods=telling.pods,
        running_pods=telling.running_pods,
        configz=lambda: configz(config, node),
        summary=telling.summary,
        metrics=telling.metrics,
        stalled=heartbeat.stalled,
        hosts=lambda: list(ledger.hosts),
    )


class _TokenUser(msgspec.Struct):
    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: _TokenUser | None = None


class _TokenReview(msgspec.Struct):
    status: _TokenStatus


def guard(client: Client, node: str, *, anonymous: bool = False) -> Guard:
    """The cluster says who a token is, and who may do what with this node."""

    async def review_token(token: str) -> User | None:
        status = msgspec.json.decode(await api.review_token(client, token), type=_TokenReview).status
        if not status.authenticated or status.user is None:
            return None
        user = status.user
        extra = tuple((key, tuple(values)) for key, values in sorted((user.extra or {}).items()))
        return User(user.username, tuple(user.groups or ()), user.uid, extra)

    async def authorize(user: User, asked: Attributes) -> bool:
        resource = {"verb": asked.verb, "version": "v1", "resource": "nodes", "subresource": asked.subresource, "name": node}
        extra = {key: list(values) for key, values in user.extra}
        spec = {"user": user.name, "groups": list(user.groups), "uid": user.uid, "extra": extra, "resourceAttributes": resource}
        return bool(json.loads(await api.review_access(client, spec))["status"].get("allowed"))

    return Guard(review_token, authorize, anonymous=anonymous)
