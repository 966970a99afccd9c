"""The request for a serving certificate that the cluster is to sign, and what it says of one. Pure."""

import base64
import ipaddress
from dataclasses import dataclass

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vknix.kube import api

SIGNER = "kubernetes.io/kubelet-serving"


@dataclass(frozen=True, slots=True)
class Subject:
    """Of a node's serving certificate. The API server calls the node by one of `addresses`, so that must be in it."""

    node: str
    addresses: tuple[str, ...]
    names: tuple[str, ...] = ()


class _Metadata(msgspec.Struct):
    name: str


class _Condition(msgspec.Struct):
    type: str
    reason: str | None = None
    message: str | None = None


class _CsrStatus(msgspec.Struct, frozen=True):
    certificate: str | None = None
    conditions: tuple[_Condition, ...] = ()


class Csr(msgspec.Struct):
    metadata: _Metadata
    status: _CsrStatus = _CsrStatus()


def request(subject: Subject, key: ec.EllipticCurvePrivateKey) -> api.Json:
    """What the signer demands of a node: exactly this subject, a name or address, these two usages."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{subject.node}"),
        ]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    signed = builder.add_extension(_alternatives(subject), critical=False).sign(key, hashes.SHA256())
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": f"vknix-{subject.node[:200]}-"},
        "spec": {
            "request": base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode(),
            "signerName": SIGNER,
            "usages": ["digital signature", "server auth"],
        },
    }


def _alternatives(subject: Subject) -> x509.SubjectAlternativeName:
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in subject.addresses]
    return x509.SubjectAlternativeName([*(x509.DNSName(name) for name in subject.names), *addresses])


def is_of(certificate: x509.Certificate, subject: Subject) -> bool:
    """It is for these names and addresses, and no others."""
    return _names(certificate) == _wanted(subject)


def _wanted(subject: Subject) -> frozenset[str]:
    return frozenset(subject.names) | {str(ipaddress.ip_address(address)) for address in subject.addresses}


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = names.get_values_for_type(x509.IPAddress)
    return frozenset(names.get_values_for_type(x509.DNSName)) | {str(address) for address in addresses}
