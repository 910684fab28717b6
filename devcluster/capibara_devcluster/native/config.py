"""Configuration files of containerd, CNI, kubelet, kube-proxy and CoreDNS."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from capibara_devcluster.control_plane import CLUSTER_DOMAIN
from capibara_devcluster.namespaces import NODE_DIR

POD_CIDR: Final = "10.244.0.0/16"
DNS_SERVICE_IP: Final = "10.96.0.10"
PAUSE_IMAGE: Final = "localhost/capibara-pause:1"
CONTAINERD_SOCKET: Final = "/run/containerd/containerd.sock"
KUBELET_HEALTH_PORT: Final = 10248
PROXY_HEALTH_PORT: Final = 10256
DNS_READY_PORT: Final = 8181
_MAX_PODS: Final = 250


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """All that the files depend on.

    Args:
        node: the node's name.
        folder: where the files are.
        pki: where certificates and kubeconfigs are.
        tools: where the CNI plugins are.
        runc: the container runtime's program.
        cgroup: the cluster's own cgroup, such as `/capibara-x`.
        snapshotter: `overlayfs`, or `native` where overlays cannot be stacked.
        may_raise_oom_priority: whether we hold CAP_SYS_RESOURCE.
    """

    node: str
    folder: Path
    pki: Path
    tools: Path
    runc: str
    cgroup: str
    snapshotter: str
    may_raise_oom_priority: bool

    def files(self) -> dict[Path, str]:
        """Path -> content."""
        return {
            self.folder / "containerd.toml": self.containerd(),
            self.folder / "cni" / "10-capibara.conflist": self.cni(),
            self.folder / "kubelet.yaml": yaml.safe_dump(self.kubelet()),
            self.folder / "kube-proxy.yaml": yaml.safe_dump(self.kube_proxy()),
            self.folder / "Corefile": self.corefile(),
            # Names outside the cluster cannot be reached, so nobody is asked for them.
            self.folder / "resolv.conf": "",
        }

    def containerd(self) -> str:
        """Configuration (version 3) of containerd 2."""
        restrict = json.dumps(not self.may_raise_oom_priority)
        runtime = "io.containerd.cri.v1.runtime"
        images = "io.containerd.cri.v1.images"
        return f"""\
version = 3
root = "{NODE_DIR}/containerd"
state = "/run/containerd"

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."{runtime}"]
restrict_oom_score_adj = {restrict}

[plugins."{runtime}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."{runtime}".containerd.runtimes.runc.options]
BinaryName = {json.dumps(self.runc)}
SystemdCgroup = false

[plugins."{runtime}".cni]
bin_dirs = [{json.dumps(str(self.tools))}]
conf_dir = {json.dumps(str(self.folder / "cni"))}

[plugins."{images}"]
snapshotter = "{self.snapshotter}"

[plugins."{images}".pinned_images]
sandbox = "{PAUSE_IMAGE}"
"""

    @staticmethod
    def cni() -> str:
        """A network of point-to-point links.

        On a bridge, answers between two pods of this node would bypass the node's address
        translation, and ClusterIPs would fail, unless a kernel module (br_netfilter) is loaded.
        """
        point_to_point = {
            "type": "ptp",
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni/ipam",
                "ranges": [[{"subnet": POD_CIDR}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        ports = {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": True}}
        return json.dumps(
            {"cniVersion": "1.0.0", "name": "capibara", "plugins": [point_to_point, ports]}
        )

    def kubelet(self) -> dict[str, object]:
        """KubeletConfiguration."""
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(self.pki / "kubelet.crt"),
            "tlsPrivateKeyFile": str(self.pki / "kubelet.key"),
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "clusterDNS": [DNS_SERVICE_IP],
            "clusterDomain": CLUSTER_DOMAIN,
            "resolvConf": str(self.folder / "resolv.conf"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.cgroup,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "maxPods": _MAX_PODS,
            "healthzPort": KUBELET_HEALTH_PORT,
            "podLogsDir": "/var/log/pods",
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%"},
            # Locally loaded images cannot be pulled again, so they are never collected.
            "imageGCHighThresholdPercent": 100,
            "imageMinimumGCAge": "8760h",
            "nodeStatusReportFrequency": "1m",
            "shutdownGracePeriod": "0s",
        }

    def kube_proxy(self) -> dict[str, object]:
        """KubeProxyConfiguration."""
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": POD_CIDR,
            "hostnameOverride": self.node,
            "clientConnection": {"kubeconfig": str(self.pki / "kube-proxy.kubeconfig")},
            "healthzBindAddress": f"127.0.0.1:{PROXY_HEALTH_PORT}",
            "conntrack": {"maxPerCore": 0, "min": 0},
            "nftables": {"minSyncPeriod": "100ms"},
        }

    def corefile(self) -> str:
        """Names of the cluster are answered; all others do not exist."""
        kubeconfig = self.pki / "coredns.kubeconfig"
        return f"""\
{CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
    errors
    ready 127.0.0.1:{DNS_READY_PORT}
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    loadbalance
}}
. {{
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def dns_manifest(node: str, address: str) -> str:
    """What makes the DNS process part of the cluster: its rights and the service of its name."""
    reader = "system:coredns"
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": reader},
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["services", "pods", "namespaces"],
                "verbs": ["list", "watch"],
            },
            {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "verbs": ["list", "watch"],
            },
        ],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": reader},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": reader,
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": reader}],
    }
    return yaml.safe_dump_all([role, binding, *_dns_service(node, address)])


def _dns_service(node: str, address: str) -> list[dict[str, object]]:
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    service: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"clusterIP": DNS_SERVICE_IP, "ports": ports},
    }
    endpoints: dict[str, object] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "nodeName": node, "conditions": {"ready": True}}],
        "ports": ports,
    }
    return [service, endpoints]
