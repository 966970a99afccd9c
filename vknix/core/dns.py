"""Names and DNS of a Pod: hostname, /etc/hosts, /etc/resolv.conf. Rules: kubelet's network/dns, kubelet_pods.go (nodeHostsFile)."""

from collections.abc import Iterator

from vknix.core.pod import Pod
from vknix.errors import Refused

_HOSTS = b"""# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""

_HOSTS_OF_HOST = "# Kubernetes-managed hosts file (host network).\n"

_NO_DNS = "no cluster DNS is known: dnsPolicy ClusterFirst falls back to Default; set cluster.dns"


_LONGEST_NAME = 64  # the kernel's


def hostname(pod: Pod, of_host: str = "") -> str:
    """The Pod's own name, without a domain; on the host's network that of the host, where the Pod has none."""
    name = pod.spec.hostname_override or pod.spec.hostname or (pod.spec.host_network and of_host) or pod.name
    return name[:63].rstrip("-.")


def _domain(pod: Pod, cluster: str) -> str:
    return f"{pod.spec.subdomain}.{pod.namespace}.svc.{cluster}" if pod.spec.subdomain and not pod.spec.hostname_override else ""


def kernel_hostname(pod: Pod, cluster: str, of_host: str = "") -> str:
    """What `hostname` prints in the Pod: the whole name with setHostnameAsFQDN. Refused where the kernel takes no more."""
    name, domain = hostname(pod, of_host), _domain(pod, cluster)
    if not (domain and pod.spec.set_hostname_as_fqdn):
        return name
    full = f"{name}.{domain}"
    if len(full) > _LONGEST_NAME:
        why = (
            f"failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long"
            f" ({_LONGEST_NAME} characters is the max, {len(full)} characters requested)"
        )
        remedy = "shorten hostname, subdomain or namespace"
        raise Refused("spec.setHostnameAsFQDN", why, remedy=remedy, reason="FailedCreatePodSandBox")
    return full


def hosts(pod: Pod, pod_ips: tuple[str, ...], domain: str, of_host: str = "") -> bytes:
    """`of_host` is the host's own file, which a Pod on its network has."""
    if pod.spec.host_network:
        return (_HOSTS_OF_HOST + of_host + "".join(_aliases(pod))).encode()
    name, own_domain = hostname(pod), _domain(pod, domain)
    names = f"{name}.{own_domain}\t{name}" if own_domain else name
    lines = [f"{ip}\t{names}\n" for ip in pod_ips]
    return _HOSTS + "".join((*lines, *_aliases(pod))).encode()


def _aliases(pod: Pod) -> Iterator[str]:
    if pod.spec.host_aliases:
        yield "\n# Entries added by HostAliases.\n"
    for alias in pod.spec.host_aliases or ():
        yield "\t".join((alias.ip, *(alias.hostnames or ()))) + "\n"


def resolv_conf(pod: Pod, cluster_dns: tuple[str, ...], domain: str, of_host: str) -> tuple[bytes, dict[str, str]]:
    """The file, and what could not be done as asked: Events, by reason."""
    policy = pod.spec.dns_policy or "ClusterFirst"
    wants_cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not pod.spec.host_network)
    servers, searches, options = _parsed(of_host)
    notes = {"MissingClusterDNS": _NO_DNS} if wants_cluster and not cluster_dns else {}
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
    servers, searches = list(dict.fromkeys(servers)), list(dict.fromkeys(searches))
    kept = servers[:3], _within_limits(searches)
    for what, asked, used in (("Nameserver", servers, kept[0]), ("Search Line", searches, kept[1])):
        if len(asked) > len(used):
            notes["DNSConfigForming"] = f"{what} limits were exceeded, some were omitted, the applied line is: {' '.join(used)}"
    lines = [f"search {' '.join(kept[1])}\n"] if kept[1] else []
    lines += [f"nameserver {server}\n" for server in kept[0]]
    if options:
        lines.append(f"options {' '.join(options)}\n")
    return "".join(lines).encode(), notes


def _within_limits(searches: list[str]) -> list[str]:
    """The first 32, and no more than 2048 characters with the spaces between them."""
    kept = searches[:32]
    while len(" ".join(kept)) > 2048:
        kept.pop()
    return kept


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
