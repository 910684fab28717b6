"""Addresses that do not collide, certificates that verify."""

from __future__ import annotations

import contextlib
import socket
import ssl
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from capibara_devcluster import pki
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.network import LOOPBACK, Link, pick_link, pick_ports, port_is_free


def test_link_avoids_every_route() -> None:
    used = [IPv4Network("10.213.0.0/30"), IPv4Network("10.213.0.7/32")]
    link = pick_link("10.213.0.0/16", used)
    assert link == Link(IPv4Network("10.213.0.8/30"))
    assert (link.host, link.node, link.prefix) == ("10.213.0.9", "10.213.0.10", 30)


def test_no_link_left_says_so() -> None:
    with pytest.raises(DevclusterError, match="overlaps a route"):
        pick_link("10.213.0.0/24", [IPv4Network("10.0.0.0/8")])


def test_ports_are_distinct_and_free() -> None:
    ports = pick_ports()
    assert len(set(ports.dump().values())) == 6
    assert ports.all_free()


def test_port_with_a_listener_is_not_free() -> None:
    with contextlib.closing(socket.create_server((LOOPBACK, 0))) as server:
        assert not port_is_free(server.getsockname()[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    subjects = {
        **pki.control_plane_subjects("10.213.0.2"),
        **pki.node_subjects("demo-node", "10.213.0.2"),
    }
    pki.create(tmp_path / "pki", subjects, cluster="demo", server="https://10.213.0.2:6443")
    return tmp_path / "pki"


def test_api_server_certificate_is_valid_for_all_its_names(folder: Path) -> None:
    certificate = x509.load_pem_x509_certificate((folder / "apiserver.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(one) for one in names.get_values_for_type(x509.IPAddress)}
    assert {"127.0.0.1", "10.213.0.2", "10.96.0.1"} <= addresses
    assert "kubernetes.default.svc" in names.get_values_for_type(x509.DNSName)


def test_node_speaks_as_a_member_of_the_nodes(folder: Path) -> None:
    certificate = x509.load_pem_x509_certificate((folder / "kubelet.crt").read_bytes())
    assert certificate.subject.rfc4514_string() == "O=system:nodes,CN=system:node:demo-node"


def test_openssl_accepts_every_pair(folder: Path) -> None:
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    for name in ("apiserver", "etcd", "kubelet", pki.ADMIN):
        context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")


def test_keys_are_private(folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    for key in folder.glob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600


def test_authority_outlives_a_second_start(folder: Path, tmp_path: Path) -> None:
    before = {name: (folder / name).read_bytes() for name in ("ca.crt", "service-account.key")}
    leaf = (folder / "admin.crt").read_bytes()
    subjects = pki.control_plane_subjects("10.213.0.2")
    pki.create(folder, subjects, cluster="demo", server="https://10.213.0.2:6443")
    assert before == {name: (folder / name).read_bytes() for name in before}
    assert (folder / "admin.crt").read_bytes() != leaf


def test_kubeconfig_leads_to_the_server(folder: Path) -> None:
    config = yaml.safe_load((folder / "admin.kubeconfig").read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://10.213.0.2:6443"
    assert config["current-context"] == "demo"
