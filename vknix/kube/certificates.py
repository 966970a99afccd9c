"""The serving certificate of the kubelet API, from files or signed by the cluster, as a live TLS context.

A context takes a new certificate for new connections while the server runs: rotation needs no restart.
"""

import asyncio
import base64
import logging
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vknix.errors import ConfigError, Mistake, NotFound, Unreachable, VknixError
from vknix.kube import api, csr
from vknix.kube.client import Client
from vknix.kube.csr import Csr, Subject

log = logging.getLogger(__name__)

LOOK_S = 10.0  # at files; a ConfigMap's or Secret's files change by a swapped symlink, so mtime and inode both count
RENEW_AT = 0.8  # of a certificate's lifetime


class Certificate(Protocol):
    context: ssl.SSLContext

    async def ready(self) -> None:
        """Returns once `context` has a certificate. A server that starts before fails each handshake."""

    async def run(self) -> None:
        """Keeps it fresh, for ever."""


def server_context(client_ca: Path) -> ssl.SSLContext:
    """For a server whose clients may show a certificate of `client_ca`, or none and a bearer token. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=client_ca)
    except OSError as error:
        raise ConfigError((Mistake("kubelet.clientCAFile", f"{client_ca}: {error}"),)) from error
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # on by default from Python 3.13; cluster CAs often lack a key usage
    return context


class FromFiles:
    """A certificate that somebody else renews in place."""

    def __init__(self, context: ssl.SSLContext, cert: Path, key: Path, *, look_s: float = LOOK_S) -> None:
        self.context = context
        self._cert = cert
        self._key = key
        self._look_s = look_s
        self._loaded: tuple[tuple[int, int], ...] = ()

    async def ready(self) -> None:
        """Raises ConfigError where the files do not hold a certificate and its key."""
        try:
            self._load()
        except OSError as error:
            raise ConfigError((Mistake("kubelet.certFile", f"{self._cert}, {self._key}: {error}"),)) from error

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            try:
                self._load()
            except OSError as error:  # perhaps half written
                log.warning("serving certificate not reloaded, the old one stays in use: %s: %s", self._cert, error)

    def _load(self) -> None:
        found = (_stamp(self._cert), _stamp(self._key))
        if found != self._loaded:
            # A failure halfway (a new certificate beside the old key) would leave the live context with neither: try first, and
            # take what was tried, as the files may change in between.
            pem = self._key.read_bytes() + b"\n" + self._cert.read_bytes()
            _load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pem)
            _load_chain(self.context, pem)
            self._loaded = found


@dataclass(frozen=True, slots=True)
class Patience:
    poll_s: float = 5.0
    after_refusal_s: float = 300.0


class FromCsr:
    """A certificate that the cluster signs once somebody approves the request; no cluster approves these by itself.

    `state` keeps key and certificate (0600) over a restart, which otherwise asks for a new approval.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        client: Client,
        subject: Subject,
        state: Path | None,
        *,
        patience: Patience = Patience(),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.context = context
        self._client = client
        self._subject = subject
        self._state = state
        self._patience = patience
        self._wall = wall
        self._renew_at = float("-inf")
        self._ready = asyncio.Event()

    async def ready(self) -> None:
        await self._ready.wait()

    async def run(self) -> None:
        """Asks again when a request was denied or went stale; the old certificate stays in use meanwhile."""
        self._restore()
        while True:
            if (left_s := self._renew_at - self._wall()) > 0:
                await asyncio.sleep(min(left_s, 3600.0))  # no longer, since the wall clock may be set
                continue
            try:
                await self._obtain()
            except VknixError as error:
                log.warning("no serving certificate yet, asking again in %g s: %s", self._patience.after_refusal_s, error)
                await asyncio.sleep(self._patience.after_refusal_s)

    async def _obtain(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        made = msgspec.json.decode(await api.create_csr(self._client, csr.request(self._subject, key)), type=Csr)
        name = made.metadata.name
        log.warning("waiting for the serving certificate of node %s: kubectl certificate approve %s", self._subject.node, name)
        chain = await self._signed(name)
        pem = _key_pem(key) + chain
        try:
            self._use(pem)
        except (OSError, ValueError) as error:
            raise VknixError(f"what the cluster signed for {name} is unusable: {error}") from error
        if self._state is not None:
            _write_private(self._state, pem)
        log.info("serving certificate of node %s is signed", self._subject.node)

    async def _signed(self, name: str) -> bytes:
        """Raises where the request is denied, has failed, or was forgotten (the cluster drops pending ones after a day)."""
        while True:
            await asyncio.sleep(self._patience.poll_s)
            try:
                status = msgspec.json.decode(await api.get_csr(self._client, name), type=Csr).status
            except NotFound:
                raise NotFound(f"the request {name} is gone, nobody approved it") from None
            except Unreachable as error:
                log.debug("request %s: %s", name, error)
                continue
            for condition in status.conditions:
                if condition.type in {"Denied", "Failed"}:
                    raise VknixError(f"the request {name} is {condition.type}: {condition.message or condition.reason}")
            if status.certificate:
                return base64.b64decode(status.certificate)

    def _restore(self) -> None:
        if self._state is None or not self._state.exists():
            return
        try:
            pem = self._state.read_bytes()
            if csr.is_of(x509.load_pem_x509_certificate(_certificates(pem)), self._subject):
                self._use(pem)
        except (OSError, ValueError) as error:
            log.warning("kept serving certificate is unusable, asking for a new one: %s: %s", self._state, error)

    def _use(self, pem: bytes) -> None:
        """`pem` is the key, then the chain, leaf first."""
        leaf = x509.load_pem_x509_certificate(_certificates(pem))
        begin, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        if end <= self._wall():
            raise ValueError(f"it expired at {datetime.isoformat(leaf.not_valid_after_utc)}")
        _load_chain(self.context, pem)
        self._renew_at = begin + (end - begin) * RENEW_AT
        self._ready.set()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    none = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none)


def _certificates(pem: bytes) -> bytes:
    begin = pem.find(b"-----BEGIN CERTIFICATE-----")
    if begin < 0:
        raise ValueError("it holds no certificate")
    return pem[begin:]


def _load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """OpenSSL takes a path only. This one is memory, so the key never reaches a disk."""
    descriptor = os.memfd_create("vknix-serving", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _write_private(path: Path, pem: bytes) -> None:
    """A certificate that can't be kept is still good: the next start asks again."""
    new = path.with_name(path.name + ".new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(pem)
        new.rename(path)
    except OSError as error:
        log.warning("serving certificate not kept for the next start: %s: %s", path, error)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino
