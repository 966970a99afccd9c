"""One try of a probe, an exec in the container, a GET or a connection to the Pod: whether it passed, in the kubelet's words."""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import quote, urljoin, urlsplit

from vknix import __version__
from vknix.core import probes
from vknix.core.container import Container, ExecAction, GrpcAction, HttpGetAction, Probe, TcpSocketAction
from vknix.core.facts import HostName, Uid
from vknix.core.pod import Member
from vknix.errors import HostFailed, Refused, Unreachable
from vknix.loops import grpc, http
from vknix.provider import ExecRequest, Provider, Size

_OUTPUT = 10 << 10
_REDIRECTS = 10
_REDIRECTING = (301, 302, 303, 307, 308)
_PLAIN = "/%:@!$&'()*+,;=~?"  # what stays as it is in a path or a query


@dataclass(frozen=True, slots=True)
class Outcome:
    success: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """A container that runs, and the address of its Pod."""

    uid: Uid
    host: HostName
    member: Member
    address: str

    @property
    def container(self) -> Container:
        return self.member.container


async def attempt(provider: Provider, of: Subject, probe: Probe) -> Outcome:
    """Unreachable where the host does not answer: then the probe says nothing.

    One that took too long counts where the host gave a sign of life meanwhile. Else its link may have stalled: once the host
    answers again, it is made once more.
    """
    for _ in range(2):
        link = _Link(provider, of)
        try:
            return await _within(link, of, probe)
        except TimeoutError:
            if link.answered:
                break
            await provider.answers(of.host)
        except (Refused, ValueError) as error:  # ValueError: an address that can't be read, the Pod's own or a redirect's
            return Outcome(success=False, message=str(error))
    what = "command timed out" if probe.exec is not None else "context deadline exceeded"
    return Outcome(success=False, message=f"{what} after {probe.timeout_seconds}s")


@dataclass(slots=True)
class _Link:
    """The way to a probe's host. `answered`: there was a sign of life in the second half of its time."""

    provider: Provider
    of: Subject
    answered: bool = False

    async def ask(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        try:
            await self.provider.answers(self.of.host)
            self.answered = True
        except (Unreachable, HostFailed):
            pass  # the probe itself tells


async def _within(link: _Link, of: Subject, probe: Probe) -> Outcome:
    within_s = max(1, probe.timeout_seconds)
    try:
        async with asyncio.timeout(within_s), asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(link.ask(within_s / 2))
            outcome = await _once(link.provider, of, probe)
            asking.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group
    return outcome


async def _once(provider: Provider, of: Subject, probe: Probe) -> Outcome:
    if probe.exec is not None:
        return await _exec(provider, of, probe.exec)
    if probe.http_get is not None:
        return await _http(provider, of, probe.http_get)
    if probe.tcp_socket is not None:
        return await _tcp(provider, of, probe.tcp_socket)
    if probe.grpc is not None:
        return await _grpc(provider, of, probe.grpc)
    return Outcome(success=True)


@dataclass(slots=True)
class Output:
    """Streams of a command that nobody types into: both outputs together, cut."""

    data: bytearray = field(default_factory=bytearray)

    async def read_stdin(self) -> bytes:
        return b""

    async def write_stdout(self, data: bytes) -> None:
        self.data += data[: _OUTPUT - len(self.data)]

    async def write_stderr(self, data: bytes) -> None:
        await self.write_stdout(data)

    async def next_size(self) -> Size | None:
        return None


async def _exec(provider: Provider, of: Subject, action: ExecAction) -> Outcome:
    code, output = await output_of(provider, of, action)
    return Outcome(code == 0, output)


async def output_of(provider: Provider, of: Subject, action: ExecAction) -> tuple[int, str]:
    """Exit code and output, the latter cut. Refused, NotFound and Unreachable as of any exec."""
    output = Output()
    request = ExecRequest(of.uid, of.container.name, tuple(action.command or ()), stdin=False, stdout=True, stderr=True, tty=False)
    code = await provider.exec(request, of.host, output)
    return code, output.data.decode(errors="replace").strip()


async def _tcp(provider: Provider, of: Subject, action: TcpSocketAction) -> Outcome:
    async with provider.dial(of.uid, of.host, action.host or of.address, _port(of, action.port)):
        return Outcome(success=True)


async def _grpc(provider: Provider, of: Subject, action: GrpcAction) -> Outcome:
    async with provider.dial(of.uid, of.host, of.address, action.port) as connection:
        said = await grpc.check(connection, f"{_bracketed(of.address)}:{action.port}", action.service or "")
    return Outcome(said == "SERVING", "" if said == "SERVING" else f'service unhealthy (responded with "{said}")')


async def _http(provider: Provider, of: Subject, action: HttpGetAction) -> Outcome:
    """Redirects on the same host are followed; one to another host is as good as an answer."""
    url = url_of(of, action)
    host, headers = urlsplit(url).hostname, headers_of(action, f"kube-probe/{__version__}")
    for _ in range(_REDIRECTS):
        answer = await fetch(provider, of, url, headers)
        if answer.status not in _REDIRECTING or not answer.location:
            success = 200 <= answer.status < 400
            return Outcome(success, "" if success else f"HTTP probe failed with statuscode: {answer.status}")
        url = urljoin(url, answer.location)
        if urlsplit(url).hostname != host:
            return Outcome(success=True, message="Probe terminated redirects")
        if urlsplit(url).scheme not in ("http", "https"):
            return Outcome(success=False, message=f'unsupported protocol scheme "{urlsplit(url).scheme}"')
    return Outcome(success=False, message=f"stopped after {_REDIRECTS} redirects")


def url_of(of: Subject, action: HttpGetAction) -> str:
    authority = f"{_bracketed(action.host or of.address)}:{_port(of, action.port)}"
    return f"{(action.scheme or 'HTTP').lower()}://{authority}/{(action.path or '').lstrip('/')}"


def headers_of(action: HttpGetAction, agent: str) -> list[tuple[str, str]]:
    """Those that the action names, and who asks, unless it says otherwise."""
    headers = [(header.name, header.value) for header in action.http_headers or ()]
    named = any(name.lower() == "user-agent" for name, _ in headers)
    return headers if named else [*headers, ("User-Agent", agent)]


async def fetch(provider: Provider, of: Subject, url: str, headers: list[tuple[str, str]]) -> http.Answer:
    """One GET from the Pod's host. Refused where there is no answer; ValueError where the address can't be read."""
    parts = urlsplit(url)
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), _PLAIN)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    async with provider.dial(of.uid, of.host, parts.hostname or "", port) as connection:
        return await http.get(connection, parts.netloc, target, headers, tls=parts.scheme == "https")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _port(of: Subject, asked: int | str) -> int:
    port = probes.port(of.container, asked)
    if port is None:
        raise Refused("", f"couldn't find port {asked!r} of container {of.container.name}")
    return port
