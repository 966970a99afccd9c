"""A kubeconfig or a Pod's ServiceAccount in; server, TLS context and fresh request headers out."""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from vknix.errors import ConfigError, Mistake

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration

log = logging.getLogger(__name__)

RENEW_S = 60.0
REFUSED_S = 10.0  # an API server that refuses everything must not make an exec plugin run at each request
LOAD_S = 60.0  # an exec plugin may ask a cloud's API


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files; `stamp` changes when one of them is replaced."""

    cert: str
    key: str | None
    stamp: tuple[tuple[int, int], ...]


class Credentials:
    """Who vknix is to one cluster. Made by `load`; shared by all requests of one Client."""

    def __init__(
        self, configuration: "Configuration", refresh: Callable[[], Awaitable[None]] | None, *, strict_x509: bool = False
    ) -> None:
        self._configuration = configuration
        self._refresh = refresh
        self._renewed = time.monotonic()
        self._failures = _library_failures()
        self.server = str(configuration.host).rstrip("/")
        self.server_name: str | None = configuration.tls_server_name
        self.proxy: str | None = configuration.proxy
        self.ssl = _context(configuration, strict_x509=strict_x509)
        self._loaded: TlsFiles | None = None
        self._load_client_certificate()

    async def headers(self) -> dict[str, str]:
        """The headers that say who asks. Renews tokens and client certificates when they may be stale.

        A renewal that fails keeps the old credentials: the API server is the judge of those.
        """
        if time.monotonic() - self._renewed >= RENEW_S:
            self._renewed = time.monotonic()  # before the await: requests that wait meanwhile do not renew as well
            try:
                async with asyncio.timeout(LOAD_S):
                    await self._renew()
            except self._failures as error:
                log.warning("credentials not renewed, the old ones stay in use: %s", str(error) or type(error).__name__)
        token = await self._configuration.get_api_key_with_prefix("BearerToken")
        return {"Authorization": token} if token else {}

    def expire(self) -> None:
        """The API server refused them (401): the next `headers` renews first."""
        if time.monotonic() - self._renewed >= REFUSED_S:
            self._renewed = -RENEW_S

    async def _renew(self) -> None:
        if self._refresh is not None:
            await self._refresh()
        self._load_client_certificate()

    def _load_client_certificate(self) -> None:
        """Takes a replaced client certificate into the live context: new connections show it."""
        cert, key = self._configuration.cert_file, self._configuration.key_file
        if not cert:
            return
        files = TlsFiles(cert, key, tuple(_stamp(path) for path in (cert, key) if path))
        if files != self._loaded:
            self.ssl.load_cert_chain(cert, keyfile=key)
            self._loaded = files


async def load(kubeconfig: Path | None, *, strict_x509: bool = False) -> Credentials:
    """Reads a kubeconfig (exec plugins, OIDC and inline data included), or without one the Pod's own ServiceAccount.

    `strict_x509` demands what Python 3.13 demands by default: cluster CAs without a key-usage extension, which other
    Kubernetes clients accept, are then refused. Raises ConfigError.
    """
    from kubernetes_asyncio.client import Configuration  # here: this import costs 0.2 s and 36 MiB

    failures = _library_failures()
    configuration = Configuration()
    try:
        if kubeconfig is None:
            refresh = _load_in_cluster(configuration)
        else:
            async with asyncio.timeout(LOAD_S):
                refresh = await _load_kubeconfig(kubeconfig, configuration)
        return Credentials(configuration, refresh, strict_x509=strict_x509)
    except failures as error:
        what = "the Pod's ServiceAccount" if kubeconfig is None else str(kubeconfig)
        remedy = "; outside a Pod, name a kubeconfig" if kubeconfig is None else ""
        message = f"no cluster credentials from {what}: {str(error) or type(error).__name__}{remedy}"
        raise ConfigError((Mistake("cluster.kubeconfig", message),)) from error


def _load_in_cluster(configuration: "Configuration") -> Callable[[], Awaitable[None]] | None:
    """The library reads the token file again each minute, in `get_api_key_with_prefix`."""
    from kubernetes_asyncio import config

    config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call] # it has no annotations
    return None


async def _load_kubeconfig(path: Path, configuration: "Configuration") -> Callable[[], Awaitable[None]]:
    from kubernetes_asyncio import config

    if not os.access(path, os.R_OK):  # the library takes a file that is not there for an empty one
        raise FileNotFoundError("there is no such file, or it can't be read")
    loader = await config.load_kube_config(str(path), client_configuration=configuration, persist_config=False)

    async def refresh() -> None:
        await loader.load_and_set(configuration)

    return refresh


def _library_failures() -> tuple[type[Exception], ...]:
    """What the library raises for a bad kubeconfig, file or plugin (it asserts where it should check), and a TimeoutError."""
    from kubernetes_asyncio.config import ConfigException

    return (ConfigException, OSError, ValueError, KeyError, TypeError, AssertionError, yaml.YAMLError)


def _context(configuration: "Configuration", *, strict_x509: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    strict = ssl.VERIFY_X509_STRICT
    context.verify_flags = context.verify_flags | strict if strict_x509 else context.verify_flags & ~strict
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _stamp(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_ino
