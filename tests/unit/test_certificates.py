"""vknix.kube.certificates: what a client of the live context sees."""

import asyncio
import base64
import contextlib
import logging
import os
import socket
import ssl
import stat
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.fakes.cluster import Cluster, Fault, connected, until
from vknix.errors import ConfigError
from vknix.kube.certificates import Certificate, FromCsr, FromFiles, Patience, server_context
from vknix.kube.client import Client
from vknix.kube.csr import Subject

CSRS = "certificates.k8s.io/certificatesigningrequests"
SUBJECT = Subject("n1", ("127.0.0.1", "fd00::1"), ("n1.example",))


class Authority:
    """A cluster's CA: no key usage on its certificate, as many have none."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = self._builder(self.name, self.key.public_key(), timedelta(days=1)).add_extension(
            constraints, critical=True
        )
        self.pem = self._sign(self.certificate)

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta) -> x509.CertificateBuilder:
        begin = datetime.fromtimestamp(time.time(), UTC)
        builder = x509.CertificateBuilder(issuer_name=self.name, subject_name=name, public_key=key)
        return builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(begin + life)

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def sign(self, request: bytes, life: timedelta = timedelta(hours=1)) -> bytes:
        csr = x509.load_pem_x509_csr(request)
        key = csr.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        builder = self._builder(csr.subject, key, life)
        for extension in csr.extensions:
            builder = builder.add_extension(extension.value, critical=extension.critical)
        return self._sign(builder)

    def issue(self, folder: Path) -> tuple[Path, Path]:
        """Writes a new certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        cert_file, key_file = folder / "tls.crt", folder / "tls.key"
        cert_file.write_bytes(self.sign(request.public_bytes(serialization.Encoding.PEM)))
        none = serialization.NoEncryption()
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none))
        return cert_file, key_file


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def context(authority: Authority, tmp_path: Path) -> ssl.SSLContext:
    (tmp_path / "client-ca.crt").write_bytes(authority.pem)
    return server_context(tmp_path / "client-ca.crt")


async def shown(context: ssl.SSLContext, authority: Authority) -> x509.Certificate:
    """The certificate that a client, which trusts the authority, is shown; raises where it is not good."""
    ours, theirs = socket.socketpair()
    client = ssl.create_default_context(cadata=authority.pem.decode())
    client.check_hostname = False
    client.verify_flags &= ~ssl.VERIFY_X509_STRICT

    def answer() -> None:
        with contextlib.suppress(OSError), context.wrap_socket(theirs, server_side=True) as server:
            server.read()

    def ask() -> bytes:
        with client.wrap_socket(ours) as talk:
            der = talk.getpeercert(binary_form=True)
        assert der is not None
        return der

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(answer))
        der = await asyncio.to_thread(ask)
    return x509.load_der_x509_certificate(der)


async def until_another(first: x509.Certificate, context: ssl.SSLContext, authority: Authority) -> None:
    """The handshakes here are in threads, and one may meet a context that is being changed; a server's are where it is changed."""
    found = first
    async with asyncio.timeout(10):
        while found == first:
            await asyncio.sleep(0.01)
            try:
                found = await shown(context, authority)
            except* ssl.SSLError:
                pass


@contextlib.asynccontextmanager
async def running(certificate: Certificate) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(certificate.run())
        yield
        task.cancel()


def approve(fake: Cluster, authority: Authority, life: timedelta = timedelta(hours=1)) -> None:
    """Signs the newest request."""
    csr = [obj for (kind, _, _), obj in fake.objects.items() if kind == CSRS][-1]
    signed = authority.sign(base64.b64decode(csr["spec"]["request"]), life)
    fake.put(CSRS, {**csr, "status": {"certificate": base64.b64encode(signed).decode()}})


def requests(fake: Cluster) -> int:
    return len(fake.asked("POST", "certificatesigningrequests"))


def from_csr(context: ssl.SSLContext, client: Client, state: Path | None = None) -> FromCsr:
    return FromCsr(context, client, SUBJECT, state, patience=Patience(poll_s=0.02, after_refusal_s=0.05))


async def test_replaced_files_are_served_without_a_restart(
    tmp_path: Path,
    context: ssl.SSLContext,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "elsewhere").mkdir()
    elsewhere, _ = authority.issue(tmp_path / "elsewhere")
    certificate = FromFiles(context, *authority.issue(tmp_path), look_s=0.02)
    await certificate.ready()
    first = await shown(context, authority)
    async with running(certificate):
        for half in ("-----BEGIN CERT", elsewhere.read_text()):  # half written, and a new certificate beside the old key
            caplog.clear()
            (tmp_path / "tls.crt").write_text(half)
            await until(lambda: "not reloaded" in caplog.text)
            assert await shown(context, authority) == first
        authority.issue(tmp_path)
        await until_another(first, context, authority)


@pytest.mark.parametrize("text", [None, "nonsense"], ids=["missing", "nonsense"])
async def test_bad_files_are_the_operators_to_mend(tmp_path: Path, context: ssl.SSLContext, text: str | None) -> None:
    if text is not None:
        (tmp_path / "c").write_text(text)
    with pytest.raises(ConfigError, match=r"kubelet\.certFile"):
        await FromFiles(context, tmp_path / "c", tmp_path / "c").ready()
    with pytest.raises(ConfigError, match=r"kubelet\.clientCAFile"):
        server_context(tmp_path / "c")


def test_clients_may_show_a_certificate_and_need_not(context: ssl.SSLContext) -> None:
    assert context.verify_mode == ssl.CERT_OPTIONAL
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_the_request_is_what_the_signer_demands_of_a_node(
    tmp_path: Path, context: ssl.SSLContext, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with connected(tmp_path) as (fake, client), running(certificate := from_csr(context, client)):
        await until(lambda: fake.asked("GET", "certificatesigningrequests"))
        (name,) = [name for kind, _, name in fake.objects if kind == CSRS]
        assert f"kubectl certificate approve {name}" in caplog.text
        spec = fake.get(CSRS, "", name)["spec"]
        assert spec["signerName"] == "kubernetes.io/kubelet-serving"
        assert spec["usages"] == ["digital signature", "server auth"]
        csr = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        assert csr.subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"
        approve(fake, authority)
        async with asyncio.timeout(10):
            await certificate.ready()
        names = (await shown(context, authority)).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["n1.example"]
        assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "fd00::1"]


async def test_nothing_is_ready_before_the_approval(tmp_path: Path, context: ssl.SSLContext) -> None:
    async with connected(tmp_path) as (fake, client), running(certificate := from_csr(context, client)):
        await until(lambda: fake.asked("GET", "certificatesigningrequests"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await certificate.ready()


async def test_a_certificate_is_renewed_while_the_old_one_serves(
    tmp_path: Path, context: ssl.SSLContext, authority: Authority
) -> None:
    async with connected(tmp_path) as (fake, client), running(certificate := from_csr(context, client)):
        await until(lambda: requests(fake) == 1)
        approve(fake, authority, timedelta(seconds=2))  # renewed after 1.6 s
        await certificate.ready()
        first = await shown(context, authority)
        await until(lambda: requests(fake) == 2)
        assert await shown(context, authority) == first
        approve(fake, authority)
        await until_another(first, context, authority)


async def test_a_kept_certificate_needs_no_new_approval(tmp_path: Path, context: ssl.SSLContext, authority: Authority) -> None:
    state = tmp_path / "serving.pem"
    async with connected(tmp_path) as (fake, client):
        async with running(certificate := from_csr(context, client, state)):
            await until(lambda: requests(fake) == 1)
            approve(fake, authority)
            await certificate.ready()
            await until(state.exists)
        assert stat.S_IMODE(os.stat(state).st_mode) == 0o600
        again = server_context(tmp_path / "client-ca.crt")
        async with running(certificate := from_csr(again, client, state)):
            await certificate.ready()
            await shown(again, authority)
        assert requests(fake) == 1


@pytest.mark.parametrize("kept", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
async def test_what_is_kept_and_unusable_is_asked_for_again(tmp_path: Path, context: ssl.SSLContext, kept: str) -> None:
    (tmp_path / "serving.pem").write_text(kept)
    async with connected(tmp_path) as (fake, client), running(from_csr(context, client, tmp_path / "serving.pem")):
        await until(lambda: requests(fake) == 1)


@pytest.mark.parametrize("end", ["denied", "forgotten"])
async def test_a_request_that_ends_badly_is_made_again(
    tmp_path: Path, context: ssl.SSLContext, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(tmp_path) as (fake, client), running(from_csr(context, client)):
        await until(lambda: requests(fake) == 1)
        (name,) = [name for kind, _, name in fake.objects if kind == CSRS]
        if end == "denied":
            condition = {"type": "Denied", "message": "not today"}
            fake.put(CSRS, {**fake.get(CSRS, "", name), "status": {"conditions": [condition]}})
        else:
            fake.remove(CSRS, "", name)
        await until(lambda: requests(fake) == 2)
        assert ("not today" if end == "denied" else "nobody approved it") in caplog.text


async def test_an_outage_does_not_forget_the_request(tmp_path: Path, context: ssl.SSLContext, authority: Authority) -> None:
    async with connected(tmp_path) as (fake, client), running(certificate := from_csr(context, client)):
        await until(lambda: requests(fake) == 1)
        fake.faults.append(Fault(lambda request: request.method == "GET", times=5, status=503))
        await until(lambda: not fake.faults[0].times)
        approve(fake, authority)
        async with asyncio.timeout(10):
            await certificate.ready()
        assert requests(fake) == 1
