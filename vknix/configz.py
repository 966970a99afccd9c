"""The configuration in the words of a kubelet's, as /configz tells it: of keys it has the paths alone."""

import json

from vknix import config as configs
from vknix.kubelet.auth import ALLOWED_S, DENIED_S, TOKEN_S


def configz(config: configs.Config, node: configs.Node) -> bytes:
    own = config.kubelet
    kubelet = {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "enableServer": True,
        "address": own.listen or node.address,
        "port": node.port,
        "tlsCertFile": str(own.cert_file or ""),
        "tlsPrivateKeyFile": str(own.key_file or ""),
        "serverTLSBootstrap": own.cert_file is None,
        "rotateCertificates": True,
        "authentication": {
            "x509": {"clientCAFile": str(own.client_ca_file)},
            "webhook": {"enabled": True, "cacheTTL": _duration(TOKEN_S)},
            "anonymous": {"enabled": own.anonymous_auth},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": _duration(ALLOWED_S), "cacheUnauthorizedTTL": _duration(DENIED_S)},
        },
        "clusterDomain": config.cluster.domain,
        "clusterDNS": list(config.cluster.dns),
        "maxPods": node.max_pods * len(node.hosts),
        "podPidsLimit": config.pod_pids_limit or -1,
        "containerLogMaxSize": str(config.container_log_max_size),
        "containerLogMaxFiles": config.container_log_max_files,
        "seccompDefault": config.seccomp_default,
        "allowedUnsafeSysctls": list(config.allowed_unsafe_sysctls),
        "registerWithTaints": [{"key": taint.key, "value": taint.value, "effect": taint.effect} for taint in node.taints],
        "featureGates": {"ExtendWebSocketsToKubelet": own.web_sockets, "KubeletFineGrainedAuthz": True},
        "enableDebuggingHandlers": True,
        "enableProfilingHandler": False,
        "enableDebugFlagsHandler": False,
        "enableSystemLogHandler": True,
        "enableSystemLogQuery": True,
    }
    return json.dumps({"kubeletconfig": kubelet}).encode()


def _duration(seconds: float) -> str:
    """As Go writes it."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
