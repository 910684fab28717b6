"""The certificates and kubeconfigs of a cluster's components."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from capibara_devcluster import files, kubeconfig
from capibara_devcluster.certificates import Authority, Subject, service_account_key
from capibara_devcluster.control_plane import AUDIT_POLICY, KUBERNETES_SERVICE_IP
from capibara_devcluster.network import LOOPBACK

_API_NAMES: Final = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    LOOPBACK,
    KUBERNETES_SERVICE_IP,
)
ADMIN: Final = "admin"


def control_plane_subjects(address: str) -> Mapping[str, Subject]:
    """Who the control plane's certificates speak for; `address` is the API server's."""
    local = ("localhost", LOOPBACK)
    return {
        "etcd": Subject("etcd", names=local),
        "apiserver": Subject("kube-apiserver", names=(*_API_NAMES, address)),
        "apiserver-kubelet": Subject("kube-apiserver-kubelet-client", "system:masters"),
        "kube-controller-manager": Subject("system:kube-controller-manager", names=local),
        "kube-scheduler": Subject("system:kube-scheduler", names=local),
        ADMIN: Subject("kubernetes-admin", "system:masters"),
    }


def node_subjects(node: str, address: str) -> Mapping[str, Subject]:
    """Who the certificates of a node's components speak for."""
    return {
        "kubelet": Subject(f"system:node:{node}", "system:nodes", names=(node, address)),
        "kube-proxy": Subject("system:kube-proxy"),
        "coredns": Subject("system:coredns"),
    }


def create(folder: Path, subjects: Mapping[str, Subject], *, cluster: str, server: str) -> None:
    """Issue every certificate anew from the cluster's kept authority, with kubeconfigs.

    Args:
        folder: where files go; readable by the owner only.
        subjects: file name -> who.
        cluster: name shown in kubeconfigs.
        server: URL of the API server.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    authority = Authority(folder, "ca")
    Authority(folder, "front-proxy-ca").issue("front-proxy-client", Subject("front-proxy-client"))
    service_account_key(folder)
    files.write(folder / "audit-policy.yaml", AUDIT_POLICY)
    for name, subject in subjects.items():
        certificate, key = authority.issue(name, subject)
        text = kubeconfig.render(
            cluster=cluster,
            server=server,
            authority=authority.certificate,
            certificate=certificate,
            key=key,
        )
        files.write(folder / f"{name}.kubeconfig", text)
