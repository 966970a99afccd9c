"""Who calls a node at its own address, past the API server: with a certificate, a token, both or neither."""

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from tests.lab import pki
from tests.lab.lab import Lab
from tests.lab.vknixproc import KUBELET_PORT


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Caller:
    lab: Lab
    certificate: pki.Identity | None = None
    token: str = ""

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.lab.layout.pki / "ca.crt")
        if self.certificate is not None:
            context.load_cert_chain(self.certificate.cert, self.certificate.key)
        return context

    @contextmanager
    def asking(self, method: str, path: str) -> Iterator[http.client.HTTPResponse]:
        """An answer whose body is still to be read."""
        connection = http.client.HTTPSConnection(self.lab.address, KUBELET_PORT, context=self.context(), timeout=30)
        try:
            connection.request(method, path, headers={"Authorization": f"Bearer {self.token}"} if self.token else {})
            yield connection.getresponse()
        finally:
            connection.close()

    def ask(self, method: str, path: str) -> Answer:
        with self.asking(method, path) as answer:
            return Answer(answer.status, answer.read().decode(errors="replace"))

    def get(self, path: str) -> str:
        answer = self.ask("GET", path)
        assert answer.status == 200, answer
        return answer.text


def api_server(lab: Lab) -> Caller:
    """With the API server's own certificate."""
    names = (lab.layout.pki / f"apiserver-kubelet-client.{kind}" for kind in ("crt", "key"))
    return Caller(lab, pki.Identity(*names))


def serial(lab: Lab) -> str:
    """Of the certificate that the node shows now; it is verified."""
    context = ssl.create_default_context(cafile=lab.layout.pki / "ca.crt")
    connection = http.client.HTTPSConnection(lab.address, KUBELET_PORT, context=context, timeout=20)
    connection.connect()
    try:
        return str(cast("ssl.SSLSocket", connection.sock).getpeercert()["serialNumber"])  # type: ignore[index] # it was verified
    finally:
        connection.close()
