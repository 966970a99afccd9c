"""The lab's certificate authorities, certificates, kubeconfigs and keys: files in the lab's folder."""

import base64
import datetime as dt
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.lab.layout import write

VALID = dt.timedelta(days=365)
SLACK = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, as files."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs. Its files are made once and kept."""

    folder: Path
    name: str

    @property
    def identity(self) -> Identity:
        return Identity(self.folder / f"{self.name}.crt", self.folder / f"{self.name}.key")

    def ensure(self) -> None:
        """Make the authority's own certificate unless it is there."""
        if self.identity.cert.exists():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(f"vknix-lab-{self.name}", ())
        builder = _builder(subject, key.public_key()).issuer_name(subject)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        _write_pair(self.identity, builder.sign(key, hashes.SHA256()), key)

    def issue(self, name: str, *, common_name: str, groups: Sequence[str] = (), sans: Sequence[str] = ()) -> Identity:
        """The identity of that file name, made unless it is there. With `sans` it serves, too."""
        identity = Identity(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        if identity.cert.exists():
            return identity
        issuer_key = serialization.load_pem_private_key(self.identity.key.read_bytes(), None)
        assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
        issuer = x509.load_pem_x509_certificate(self.identity.cert.read_bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if sans else [])]
        builder = _builder(_subject(common_name, groups), key.public_key()).issuer_name(issuer.subject)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName([_san(san) for san in sans]), critical=False)
        _write_pair(identity, builder.sign(issuer_key, hashes.SHA256()), key)
        return identity


def ensure_signing_key(path: Path) -> None:
    """The key of the service-account tokens, made unless it is there."""
    if not path.exists():
        write(path, _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)), mode=0o600)


def kubeconfig(path: Path, *, server: str, authority: Path, identity: Identity) -> None:
    """A kubeconfig that needs no other file. (JSON is YAML.)"""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority-data": _base64(authority)}}],
        "users": [
            {
                "name": "lab",
                "user": {
                    "client-certificate-data": _base64(identity.cert),
                    "client-key-data": _base64(identity.key),
                },
            }
        ],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        "current-context": "lab",
    }
    write(path, json.dumps(content, indent=1) + "\n", mode=0o600)


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + VALID)
    )


def _subject(common_name: str, groups: Sequence[str]) -> x509.Name:
    names = [*((NameOID.ORGANIZATION_NAME, group) for group in groups), (NameOID.COMMON_NAME, common_name)]
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in names])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _san(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _write_pair(identity: Identity, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    # The certificate comes last: where it is, the key is, too.
    identity.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(identity.key, _pem(key), mode=0o600)
    write(identity.cert, cert.public_bytes(serialization.Encoding.PEM))


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
