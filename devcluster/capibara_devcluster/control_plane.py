"""Command lines of etcd, kube-apiserver, kube-controller-manager and kube-scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capibara_devcluster.component import Component, Probe
from capibara_devcluster.network import LOOPBACK, Ports

SERVICE_CIDR: Final = "10.96.0.0/16"
KUBERNETES_SERVICE_IP: Final = "10.96.0.1"
CLUSTER_DOMAIN: Final = "cluster.local"

AUDIT_POLICY: Final = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    nonResourceURLs: ["/healthz*", "/livez*", "/readyz*"]
  - level: Metadata
"""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files below one folder, by the names that the certificates were issued under."""

    folder: Path

    def certificate(self, name: str) -> str:
        """A certificate's path."""
        return str(self.folder / f"{name}.crt")

    def key(self, name: str) -> str:
        """A key's path."""
        return str(self.folder / f"{name}.key")

    def kubeconfig(self, name: str) -> str:
        """A component's kubeconfig."""
        return str(self.folder / f"{name}.kubeconfig")


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """All that the command lines depend on.

    Args:
        tools: folder of the programs.
        etcd_data: folder of etcd's data.
        advertise: address that pods reach the API server under; None = there are no pods, and
            the API server listens on loopback only.
        audit_log: where requests are logged; None = nowhere.
    """

    tools: Path
    credentials: Credentials
    etcd_data: Path
    ports: Ports
    advertise: str | None = None
    audit_log: Path | None = None

    @property
    def server(self) -> str:
        """URL of the API server on this host."""
        return f"https://{self.advertise or LOOPBACK}:{self.ports.apiserver}"

    def components(self, *, scheduler: bool) -> list[Component]:
        """The processes, with or without the scheduler."""
        components = [self._etcd(), self._apiserver(), self._controller_manager()]
        return [*components, self._scheduler()] if scheduler else components

    def _etcd(self) -> Component:
        client, peer = self._url(self.ports.etcd), self._url(self.ports.etcd_peer)
        certificate, key = self.credentials.certificate("etcd"), self.credentials.key("etcd")
        authority = self.credentials.certificate("ca")
        return Component(
            name="etcd",
            argv=(
                str(self.tools / "etcd"),
                "--name=default",
                f"--data-dir={self.etcd_data}",
                # A throw-away cluster: it survives killed processes, not a power cut.
                "--unsafe-no-fsync",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                f"--cert-file={certificate}",
                f"--key-file={key}",
                "--client-cert-auth=true",
                f"--trusted-ca-file={authority}",
                f"--peer-cert-file={certificate}",
                f"--peer-key-file={key}",
                "--peer-client-cert-auth=true",
                f"--peer-trusted-ca-file={authority}",
                "--log-level=warn",
            ),
            ready=Probe(f"{client}/readyz", authority, certificate, key),
        )

    def _apiserver(self) -> Component:
        files = self.credentials
        return Component(
            name="kube-apiserver",
            argv=(
                str(self.tools / "kube-apiserver"),
                f"--etcd-servers={self._url(self.ports.etcd)}",
                f"--etcd-cafile={files.certificate('ca')}",
                f"--etcd-certfile={files.certificate('etcd')}",
                f"--etcd-keyfile={files.key('etcd')}",
                f"--secure-port={self.ports.apiserver}",
                f"--tls-cert-file={files.certificate('apiserver')}",
                f"--tls-private-key-file={files.key('apiserver')}",
                f"--client-ca-file={files.certificate('ca')}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                f"--service-account-key-file={files.folder / 'service-account.pub'}",
                f"--service-account-signing-key-file={files.folder / 'service-account.key'}",
                f"--service-cluster-ip-range={SERVICE_CIDR}",
                f"--kubelet-certificate-authority={files.certificate('ca')}",
                f"--kubelet-client-certificate={files.certificate('apiserver-kubelet')}",
                f"--kubelet-client-key={files.key('apiserver-kubelet')}",
                f"--requestheader-client-ca-file={files.certificate('front-proxy-ca')}",
                "--requestheader-allowed-names=front-proxy-client",
                "--requestheader-username-headers=X-Remote-User",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                f"--proxy-client-cert-file={files.certificate('front-proxy-client')}",
                f"--proxy-client-key-file={files.key('front-proxy-client')}",
                "--kubelet-preferred-address-types=InternalIP,Hostname",
                "--allow-privileged=true",
                "--profiling=false",
                *self._address(),
                *self._audit(),
            ),
            after=("etcd",),
            ready=Probe(f"{self._url(self.ports.apiserver)}/readyz", files.certificate("ca")),
        )

    def _address(self) -> tuple[str, ...]:
        if self.advertise is None:
            return (f"--bind-address={LOOPBACK}", "--endpoint-reconciler-type=none")
        return ("--bind-address=0.0.0.0", f"--advertise-address={self.advertise}")

    def _audit(self) -> tuple[str, ...]:
        if self.audit_log is None:
            return ()
        policy = self.credentials.folder / "audit-policy.yaml"
        return (f"--audit-log-path={self.audit_log}", f"--audit-policy-file={policy}")

    def _controller_manager(self) -> Component:
        files = self.credentials
        kubeconfig = files.kubeconfig("kube-controller-manager")
        return Component(
            name="kube-controller-manager",
            argv=(
                str(self.tools / "kube-controller-manager"),
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                f"--service-account-private-key-file={files.folder / 'service-account.key'}",
                "--use-service-account-credentials=true",
                f"--root-ca-file={files.certificate('ca')}",
                f"--cluster-signing-cert-file={files.certificate('ca')}",
                f"--cluster-signing-key-file={files.key('ca')}",
                "--leader-elect=false",
                *self._secure_port(self.ports.controller_manager, "kube-controller-manager"),
            ),
            after=("kube-apiserver",),
            ready=self._healthz(self.ports.controller_manager),
        )

    def _scheduler(self) -> Component:
        kubeconfig = self.credentials.kubeconfig("kube-scheduler")
        return Component(
            name="kube-scheduler",
            argv=(
                str(self.tools / "kube-scheduler"),
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--leader-elect=false",
                *self._secure_port(self.ports.scheduler, "kube-scheduler"),
            ),
            after=("kube-apiserver",),
            ready=self._healthz(self.ports.scheduler),
        )

    def _secure_port(self, port: int, name: str) -> tuple[str, ...]:
        return (
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            f"--tls-cert-file={self.credentials.certificate(name)}",
            f"--tls-private-key-file={self.credentials.key(name)}",
        )

    def _healthz(self, port: int) -> Probe:
        return Probe(f"{self._url(port)}/healthz", self.credentials.certificate("ca"))

    @staticmethod
    def _url(port: int) -> str:
        return f"https://{LOOPBACK}:{port}"
