"""Ways to one container: straight to vknix, through the API server, and the bare thing, a channel of SSH to its host."""

import asyncio
import json
import os
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import asyncssh

from tests.lab.hosts import Host
from tests.lab.lab import Lab
from tests.lab.shell import wait_for
from tests.lab.vknixproc import KUBELET_PORT
from vknix.kube import auth
from vknix.nspawn.ssh import Address, Link

NAMESPACE = "bench"
FOLDER = "/var/lib/bench"  # of the host; /bench in a container
PAYLOAD = "/bench/payload"
WAIT_S = 120.0
BLOCK = 32 * 1024
PLAIN, SAME_CIPHER = "bare: asyncssh", "asyncssh, our cipher"

Sink = Callable[[bytes], object]
Channel = AbstractAsyncContextManager["asyncssh.SSHClientProcess[bytes]"]


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    container: str = "main"

    def path(self, verb: str, *, through: bool) -> str:
        if through:
            of = {"containerLogs": "log", "portForward": "portforward"}.get(verb, verb)
            return f"/api/v1/namespaces/{NAMESPACE}/pods/{self.name}/{of}"
        return f"/{verb}/{NAMESPACE}/{self.name}" + ("" if verb == "portForward" else f"/{self.container}")


@dataclass(frozen=True, slots=True)
class Way:
    """By HTTP. `through` the API server, else straight to vknix, as the API server calls it."""

    name: str
    url: str
    through: bool
    session: aiohttp.ClientSession

    def address(self, pod: Pod, verb: str, query: Sequence[tuple[str, str]]) -> str:
        return f"{self.url}{pod.path(verb, through=self.through)}?{urlencode(query)}"

    @asynccontextmanager
    async def websocket(
        self, pod: Pod, verb: str, query: Sequence[tuple[str, str]], protocol: str
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        url = self.address(pod, verb, query)
        async with self.session.ws_connect(url, protocols=(protocol,), max_msg_size=0, compress=0) as ws:
            yield ws

    async def exec(self, pod: Pod, *argv: str, stdin: Iterable[bytes] | None = None, sink: Sink | None = None) -> dict[str, Any]:
        """The status document. `sink` gets its stdout."""
        names = ("stdin", "stdout", "stderr") if self.through else ("input", "output", "error")
        asked = [(name, "true" if self.through else "1") for name in names[stdin is None :]]
        query = [*(("command", word) for word in argv), *asked]
        async with self.websocket(pod, "exec", query, "v5.channel.k8s.io") as ws, asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(_feed(ws, stdin)) if stdin is not None else None
            async for message in ws:
                if message.data[0] == 1 and sink is not None:
                    sink(memoryview(message.data)[1:])  # type: ignore[arg-type]  # hashlib and len take it as well
                elif message.data[0] == 3:
                    if feeding is not None:
                        feeding.cancel()
                    status: dict[str, Any] = json.loads(message.data[1:])
                    return status
        raise ConnectionError("the session has ended without a status")

    @asynccontextmanager
    async def log(self, pod: Pod, **query: str) -> AsyncIterator[aiohttp.StreamReader]:
        async with self.session.get(self.address(pod, "containerLogs", [*query.items()])) as answer:
            answer.raise_for_status()
            yield answer.content


async def _feed(ws: aiohttp.ClientWebSocketResponse, blocks: Iterable[bytes]) -> None:
    for block in blocks:
        await ws.send_bytes(b"\0" + block)
    await ws.send_bytes(b"\xff\0")


@dataclass(frozen=True, slots=True)
class Ways:
    lab: Lab
    host: Host
    straight: Way
    through: Way
    bare: Link
    plain: asyncssh.SSHClientConnection  # as it comes, with the cipher that it prefers

    @property
    def channels(self) -> Mapping[str, Callable[[str], Channel]]:
        """What a command runs on by SSH alone, by who."""
        return {PLAIN: lambda command: self.plain.create_process(command, encoding=None), SAME_CIPHER: self.bare.stream}

    @property
    def pids(self) -> dict[str, int]:
        server = self.lab.plane.status()["kube-apiserver"].removeprefix("pid ")
        return {"vknix": self.lab.vknix.pid or 0, "API server": int(server)}

    @contextmanager
    def cpu(self) -> Iterator[dict[str, float]]:
        """Seconds of CPU that each of them has used, once the block has ended."""
        before, used = {name: _cpu_s(pid) for name, pid in self.pids.items()}, dict[str, float]()
        yield used
        used.update({name: _cpu_s(pid) - before[name] for name, pid in self.pids.items()})

    def vknix_rss(self) -> int:
        return int(Path(f"/proc/{self.lab.vknix.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def vknix_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.lab.vknix.pid}/fd"))

    async def pod(self, name: str, *words: str) -> Pod:
        """A Pod that runs the payload, with the host's folder; once it runs."""
        of = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": "vknix",
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": False,
                "tolerations": [{"operator": "Exists"}],
                "volumes": [{"name": "bench", "hostPath": {"path": FOLDER}}],
                "containers": [
                    {
                        "name": "main",
                        "image": self.lab.image_busybox,
                        "command": [PAYLOAD, *words],
                        "volumeMounts": [{"name": "bench", "mountPath": "/bench"}],
                    }
                ],
            },
        }
        self._kubectl("delete", "pod", name, "--ignore-not-found", "--timeout=60s")
        await asyncio.to_thread(self._kubectl, "create", "--filename=-", input=json.dumps(of))
        await asyncio.to_thread(wait_for, lambda: self._has_begun(name), f"{name} runs", timeout_s=WAIT_S)
        return Pod(name)

    def pod_ip(self, pod: Pod) -> str:
        return self._kubectl("get", "pod", pod.name, "--output=jsonpath={.status.podIP}")

    async def ended(self, pod: Pod) -> None:
        def has_ended() -> bool:
            return self._kubectl("get", "pod", pod.name, "--output=jsonpath={.status.phase}") == "Succeeded"

        await asyncio.to_thread(wait_for, has_ended, f"{pod.name} ends", timeout_s=WAIT_S)

    def _has_begun(self, name: str) -> bool:
        return self._kubectl("get", "pod", name, "--output=jsonpath={.status.phase}") in ("Running", "Succeeded")

    def _kubectl(self, *words: str, input: str | None = None) -> str:  # noqa: A002 - as Lab.kubectl
        return self.lab.kubectl(f"--namespace={NAMESPACE}", *words, input=input).stdout


def _cpu_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def ways(lab: Lab) -> AsyncIterator[Ways]:
    """vknix runs on its default configuration, but keeps a log whole; the payload is on the first host."""
    host = lab.hosts[0]
    await asyncio.to_thread(lab.vknix.stop)
    await asyncio.to_thread(lab.vknix.start, {"containerLogMaxSize": "1Gi"})
    lab.kubectl("create", "namespace", NAMESPACE, check=False)
    await asyncio.to_thread(_bring_payload, lab, host)
    credentials = await auth.load(lab.layout.admin_kubeconfig)
    as_server = ssl.create_default_context(cafile=lab.layout.pki / "ca.crt")
    client = lab.layout.pki / "apiserver-kubelet-client.crt"
    as_server.load_cert_chain(client, client.with_suffix(".key"))
    to = Address(host.name, host.address, 22, "root", lab.layout.folder / "ssh_key", (host.public_key,))
    connecting = asyncssh.connect(
        to.address,
        username=to.user,
        client_keys=[str(to.key_file)],
        known_hosts=([asyncssh.import_public_key(host.public_key)], [], []),
        config=None,
        agent_path=None,
    )
    async with _session(as_server) as one, _session(credentials.ssl) as other, Link.open(to) as bare, connecting as plain:
        straight = Way("straight to vknix", f"https://{lab.address}:{KUBELET_PORT}", False, one)
        through = Way("through the API server", credentials.server, True, other)
        yield Ways(lab, host, straight, through, bare, plain)


def _session(context: ssl.SSLContext) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=15)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, force_close=True, limit=0), timeout=timeout)


def _bring_payload(lab: Lab, host: Host) -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "payload")
        source = Path(__file__).with_name("payload.c")
        subprocess.run(["cc", "-O2", "-static", "-s", "-o", program, source], check=True)
        ssh = ["ssh", "-F", str(lab.layout.ssh_config), host.name]
        place = f"mkdir -p {FOLDER}; rm -f {FOLDER}/payload; cat > {FOLDER}/payload; chmod 755 {FOLDER}/payload"
        subprocess.run([*ssh, place], input=program.read_bytes(), check=True)


@dataclass
class Figures:
    """Numbers of a kind, by who made them."""

    of: dict[str, list[float]] = field(default_factory=dict)

    def add(self, who: str, number: float) -> None:
        self.of.setdefault(who, []).append(number)

    def median(self, who: str) -> float:
        return statistics.median(self.of[who])

    def show(self, what: str, unit: str, *, against: str = "") -> None:
        """A line for each, and its ratio to one of them."""
        print(f"  {what}, {unit}:")
        for who, numbers in self.of.items():
            ratio = f"  {self.median(who) / self.median(against):5.2f} of {against}" if against and who != against else ""
            p99 = sorted(numbers)[max(0, -(-len(numbers) * 99 // 100) - 1)]
            spread = f"min {min(numbers):.1f}, p99 {p99:.1f}, n {len(numbers)}"
            print(f"    {who:24} p50 {self.median(who):8.2f}  ({spread}){ratio}", flush=True)


def said(used: Mapping[str, float], units: float) -> str:
    return ", ".join(f"{who} {seconds / units:.2f}" for who, seconds in used.items())


@contextmanager
def timed(figures: Figures, who: str, scale: Callable[[float], float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    figures.add(who, scale(time.perf_counter() - began))
