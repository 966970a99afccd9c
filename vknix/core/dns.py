"""Names and DNS of a Pod: hostname, /etc/hosts, /etc/resolv.conf. Rules: kubelet's network/dns, kubelet_pods.go (nodeHostsFile)."""

from vknix.core.pod import Pod

_HOSTS = b"""# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def hostname(pod: Pod) -> str:
    return pod.spec.hostname or pod.name[:63].rstrip("-.")


def hosts(pod: Pod, pod_ips: tuple[str, ...], domain: str) -> bytes:
    name = hostname(pod)
    names = f"{name}.{pod.spec.subdomain}.{pod.namespace}.svc.{domain}\t{name}" if pod.spec.subdomain else name
    lines = [f"{ip}\t{names}\n" for ip in pod_ips]
    if pod.spec.host_aliases:
        lines.append("\n# Entries added by HostAliases.\n")
        lines += ["\t".join((alias.ip, *(alias.hostnames or ()))) + "\n" for alias in pod.spec.host_aliases]
    return _HOSTS + "".join(lines).encode()


def resolv_conf(pod: Pod, cluster_dns: tuple[str, ...], domain: str, of_host: str) -> tuple[bytes, bool]:
    """The file, and whether ClusterFirst had to fall back to Default for want of a cluster DNS."""
    policy = pod.spec.dns_policy or "ClusterFirst"
    wants_cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not pod.spec.host_network)
    servers, searches, options = _parsed(of_host)
    missing = wants_cluster and not cluster_dns
    if policy == "None":
        servers, searches, options = [], [], []
    elif wants_cluster and cluster_dns:
        servers, options = list(cluster_dns), ["ndots:5"]
        searches = [f"{pod.namespace}.svc.{domain}", f"svc.{domain}", domain, *searches]
    config = pod.spec.dns_config
    if config is not None:
        servers += config.nameservers or []
        searches += config.searches or []
        own = [f"{option.name}:{option.value}" if option.value else f"{option.name}" for option in config.options or ()]
        named = {option.partition(":")[0] for option in own}
        options = [option for option in options if option.partition(":")[0] not in named] + own
    lines = [f"nameserver {server}\n" for server in list(dict.fromkeys(servers))[:3]]
    if searches:
        lines.insert(0, f"search {' '.join(list(dict.fromkeys(searches))[:32])}\n")
    if options:
        lines.append(f"options {' '.join(options)}\n")
    return "".join(lines).encode(), missing


def _parsed(text: str) -> tuple[list[str], list[str], list[str]]:
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        key, *words = line.split("#")[0].split() or [""]
        if key == "nameserver":
            servers += words[:1]
        elif key == "search":
            searches = [word.rstrip(".") for word in words if word != "."]
        elif key == "options":
            options += words
    return servers, searches, options
