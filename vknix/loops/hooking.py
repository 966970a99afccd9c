"""One run of a lifecycle hook, an exec in the container, a GET or a sleep: what went wrong, for a person; empty: nothing."""

import asyncio
from dataclasses import dataclass

from vknix import __version__
from vknix.core.container import ExecAction, Hook, HttpGetAction
from vknix.core.happenings import Happening
from vknix.core.pod import Pod
from vknix.errors import Refused
from vknix.loops import probing
from vknix.loops.http import NoTls
from vknix.loops.probing import Subject
from vknix.loops.tools import Tools


@dataclass(frozen=True, slots=True)
class Hooking:
    """A hook of a container that runs."""

    pod: Pod
    of: Subject
    hook: Hook


async def run(tools: Tools, of: Hooking) -> str:
    """It has as long as it takes: whoever calls it bounds it. Unreachable, HostFailed, NotFound: it could not be tried."""
    try:
        if of.hook.exec is not None:
            return await _exec(tools, of, of.hook.exec)
        if of.hook.http_get is not None:
            await _get(tools, of, of.hook.http_get)
        elif of.hook.sleep is not None:
            await asyncio.sleep(of.hook.sleep.seconds)
    except (Refused, ValueError) as error:  # ValueError: an address that can't be read
        return _failed(of, str(error))
    return ""


async def _exec(tools: Tools, of: Hooking, action: ExecAction) -> str:
    code, output = await probing.output_of(tools.provider, of.of, action)
    return _failed(of, f'command exited with {code}, message: "{output}"') if code else ""


def _failed(of: Hooking, error: str) -> str:
    what = "Http" if of.hook.http_get is not None else "Exec"
    pod = f"{of.pod.name}_{of.pod.namespace}({of.pod.uid})"
    return f'{what} lifecycle hook for Container "{of.of.container.name}" in Pod "{pod}" failed - error: {error}'


async def _get(tools: Tools, of: Hooking, action: HttpGetAction) -> None:
    """Any answer will do, as to a kubelet; so will plain HTTP where TLS was asked for, with an Event."""
    url, headers = probing.url_of(of.of, action), probing.headers_of(action, f"kube-lifecycle/{__version__}")
    try:
        await probing.fetch(tools.provider, of.of, url, headers)
    except NoTls:
        await probing.fetch(tools.provider, of.of, url.replace("https:", "http:", 1), headers)
        host = action.host or of.of.address
        message = f"request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded"
        tools.tell(of.pod, Happening("LifecycleHTTPFallback", message, of.of.container.name, warning=True))
