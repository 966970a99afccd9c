"""The control plane of a lab: real programs on this machine's address in the lab's network, started, asked, ended."""

import ipaddress
import json

from tests.lab import pki
from tests.lab.layout import Layout
from tests.lab.process import Daemon
from tests.lab.shell import run, step, wait_for

READY_S = 90.0
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")

# The API server's own identity towards kubelets may do just this, so that the kubelet API's authorisation is a real judge.
KUBELET_ADMIN = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "lab:kube-apiserver-kubelet-client"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:kubelet-api-admin"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "kube-apiserver-kubelet-client"}],
}


class ControlPlane:
    """Of one lab; its programs are in the lab's bin folder."""

    def __init__(self, lab: Layout) -> None:
        self._lab = lab
        self._daemons = {name: Daemon(lab.folder / "run", name) for name in COMPONENTS}

    @property
    def server(self) -> str:
        return f"https://{self._lab.address}:6443"

    @property
    def authority(self) -> pki.Authority:
        return pki.Authority(self._lab.pki, "ca")

    def up(self) -> None:
        """Make certificates, start what does not run, wait until it answers."""
        if self.is_ready():
            return
        with step(f"starting Kubernetes {self._lab.kubernetes} at {self.server}"):
            self._certify()
            for name, flags in self._flags().items():
                self._daemons[name].start([self._lab.bin / name, *flags], cwd=self._lab.folder)
            wait_for(self._is_ready_or_ended, "the control plane answers", timeout_s=READY_S)
            self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(KUBELET_ADMIN))

    def down(self) -> None:
        """End all of it, the API server before its etcd."""
        for daemon in reversed(self._daemons.values()):
            daemon.end()

    def is_ready(self) -> bool:
        """Whether each program runs, and the cluster is one in which a Pod can be made."""
        if any(daemon.pid is None for daemon in self._daemons.values()):
            return False
        account = ["get", "serviceaccount", "default", "--namespace=default", "--output=name"]
        questions = (["get", "--raw", "/readyz"], account)
        return all(run(self._kubectl(*question), check=False).returncode == 0 for question in questions)

    def status(self) -> dict[str, str]:
        """Each program with its pid, or that it does not run."""
        return {name: f"pid {daemon.pid}" if daemon.pid else "down" for name, daemon in self._daemons.items()}

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """What kubectl prints, as the administrator."""
        return run(self._kubectl(*args), stdin=stdin).stdout

    def _kubectl(self, *args: str) -> list[str]:
        return [str(self._lab.bin / "kubectl"), f"--kubeconfig={self._lab.admin_kubeconfig}", "--request-timeout=10s", *args]

    def _is_ready_or_ended(self) -> bool:
        for daemon in self._daemons.values():
            daemon.must_run()
        return self.is_ready()

    def _certify(self) -> None:
        """All certificates and kubeconfigs; what is there already is kept."""
        lab, ca, front = self._lab, self.authority, pki.Authority(self._lab.pki, "front-proxy-ca")
        ca.ensure()
        front.ensure()
        pki.ensure_signing_key(lab.pki / "service-account.key")
        first_service = str(ipaddress.ip_network(lab.service_cidr)[1])
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        ca.issue("apiserver", common_name="kube-apiserver", sans=[lab.address, first_service, "127.0.0.1", "localhost", *names])
        ca.issue("apiserver-kubelet-client", common_name="kube-apiserver-kubelet-client")
        front.issue("front-proxy-client", common_name="front-proxy-client")
        for user in ("kube-controller-manager", "kube-scheduler"):
            identity = ca.issue(user, common_name=f"system:{user}")
            pki.kubeconfig(lab.pki / f"{user}.kubeconfig", server=self.server, authority=ca.identity.cert, identity=identity)
        admin = ca.issue("admin", common_name="lab-admin", groups=["system:masters"])
        pki.kubeconfig(lab.admin_kubeconfig, server=self.server, authority=ca.identity.cert, identity=admin)

    def _flags(self) -> dict[str, list[str]]:
        """Of each program, in the order in which they start."""
        return {
            "etcd": _etcd(self._lab),
            "kube-apiserver": _apiserver(self._lab),
            "kube-controller-manager": _controller_manager(self._lab),
            "kube-scheduler": [
                f"--kubeconfig={self._lab.pki}/kube-scheduler.kubeconfig",
                "--leader-elect=false",
                f"--bind-address={self._lab.loopback}",
            ],
        }


def _etcd(lab: Layout) -> list[str]:
    clients, peers = f"http://{lab.loopback}:2379", f"http://{lab.loopback}:2380"
    return [
        f"--data-dir={lab.folder}/etcd",
        "--unsafe-no-fsync",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--log-level=warn",
    ]


def _apiserver(lab: Layout) -> list[str]:
    return [
        f"--etcd-servers=http://{lab.loopback}:2379",
        f"--bind-address={lab.address}",
        f"--advertise-address={lab.address}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={lab.service_cidr}",
        f"--tls-cert-file={lab.pki}/apiserver.crt",
        f"--tls-private-key-file={lab.pki}/apiserver.key",
        f"--client-ca-file={lab.pki}/ca.crt",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--service-account-key-file={lab.pki}/service-account.key",
        f"--service-account-signing-key-file={lab.pki}/service-account.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--kubelet-certificate-authority={lab.pki}/ca.crt",
        f"--kubelet-client-certificate={lab.pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={lab.pki}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={lab.pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={lab.pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={lab.pki}/front-proxy-client.key",
        "--feature-gates=ContainerStopSignals=true",
        # This machine has routes to Pods, and no kube-proxy.
        "--enable-aggregator-routing=true",
    ]


def _controller_manager(lab: Layout) -> list[str]:
    return [
        f"--kubeconfig={lab.pki}/kube-controller-manager.kubeconfig",
        "--leader-elect=false",
        f"--bind-address={lab.loopback}",
        f"--root-ca-file={lab.pki}/ca.crt",
        f"--service-account-private-key-file={lab.pki}/service-account.key",
        "--use-service-account-credentials",
        f"--cluster-signing-cert-file={lab.pki}/ca.crt",
        f"--cluster-signing-key-file={lab.pki}/ca.key",
        # Begun five minutes ago: a node renews it at four fifths of its life, which is 8 s from now.
        "--cluster-signing-duration=85s",
        "--allocate-node-cidrs",
        f"--cluster-cidr={lab.pod_cidr}",
        f"--service-cluster-ip-range={lab.service_cidr}",
    ]
