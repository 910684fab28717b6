"""Command lines of a node's processes."""

from __future__ import annotations

from pathlib import Path

from capibara_devcluster.component import Component, Probe
from capibara_devcluster.debian import SYSTEM_PATH
from capibara_devcluster.namespaces import NODE_DIR
from capibara_devcluster.native import config
from capibara_devcluster.native.config import NodeConfig


def components(node: NodeConfig, *, address: str) -> list[Component]:
    """containerd, kubelet, kube-proxy and CoreDNS.

    Args:
        node: what the configuration files were made from.
        address: the node's address.
    """
    path = {"PATH": f"{node.tools}:{SYSTEM_PATH}"}
    return [
        Component(
            name="containerd",
            argv=(
                str(node.tools / "containerd"),
                f"--config={node.folder / 'containerd.toml'}",
            ),
            ready=Probe(f"unix://{config.CONTAINERD_SOCKET}"),
            env=path,
        ),
        Component(
            name="kubelet",
            argv=(
                str(node.tools / "kubelet"),
                f"--config={node.folder / 'kubelet.yaml'}",
                f"--kubeconfig={node.pki / 'kubelet.kubeconfig'}",
                f"--root-dir={NODE_DIR / 'kubelet'}",
                f"--hostname-override={node.node}",
                f"--node-ip={address}",
            ),
            after=("kube-apiserver", "containerd"),
            ready=_http(config.KUBELET_HEALTH_PORT, "/healthz"),
            env=path,
        ),
        Component(
            name="kube-proxy",
            argv=(str(node.tools / "kube-proxy"), f"--config={node.folder / 'kube-proxy.yaml'}"),
            after=("kube-apiserver",),
            ready=_http(config.PROXY_HEALTH_PORT, "/healthz"),
            env=path,
        ),
        Component(
            name="coredns",
            argv=(str(node.tools / "coredns"), f"-conf={node.folder / 'Corefile'}"),
            after=("kube-apiserver",),
            ready=_http(config.DNS_READY_PORT, "/ready"),
        ),
    ]


def _http(port: int, path: str) -> Probe:
    return Probe(f"http://127.0.0.1:{port}{path}")


def socket_on_host(supervisor: int) -> Path:
    """The socket of containerd as the host sees it, through the supervisor's root."""
    return Path(f"/proc/{supervisor}/root{config.CONTAINERD_SOCKET}")
