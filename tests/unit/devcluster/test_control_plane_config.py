"""Command lines of the control plane."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from capibara_devcluster.component import Component
from capibara_devcluster.control_plane import ControlPlane, Credentials
from capibara_devcluster.network import Ports


@pytest.fixture
def control_plane() -> ControlPlane:
    return ControlPlane(
        tools=Path("/bin"),
        credentials=Credentials(Path("/pki")),
        etcd_data=Path("/data"),
        ports=Ports(apiserver=1, etcd=2, etcd_peer=3, controller_manager=4, scheduler=5, kwok=6),
    )


def _by_name(control_plane: ControlPlane) -> dict[str, Component]:
    return {one.name: one for one in control_plane.components(scheduler=True)}


def test_without_pods_everything_listens_on_loopback(control_plane: ControlPlane) -> None:
    for component in control_plane.components(scheduler=True):
        listening = [one for one in component.argv if "bind-address" in one or "listen" in one]
        assert listening
        assert all("127.0.0.1" in one for one in listening), component.name


def test_pods_reach_the_api_server_on_its_advertised_address(control_plane: ControlPlane) -> None:
    with_pods = replace(control_plane, advertise="10.213.0.2")
    argv = _by_name(with_pods)["kube-apiserver"].argv
    assert "--advertise-address=10.213.0.2" in argv
    assert "--endpoint-reconciler-type=none" not in argv
    assert with_pods.server == "https://10.213.0.2:1"


def test_etcd_talks_to_holders_of_our_certificates_only(control_plane: ControlPlane) -> None:
    argv = _by_name(control_plane)["etcd"].argv
    assert {"--client-cert-auth=true", "--peer-client-cert-auth=true"} <= set(argv)
    assert not any("http://" in one for one in argv)


def test_admission_is_as_in_production(control_plane: ControlPlane) -> None:
    argv = _by_name(control_plane)["kube-apiserver"].argv
    assert not any(one.startswith("--disable-admission-plugins") for one in argv)
    assert "--authorization-mode=Node,RBAC" in argv


def test_requests_are_logged_only_when_asked(control_plane: ControlPlane) -> None:
    quiet = _by_name(control_plane)["kube-apiserver"].argv
    logged = _by_name(replace(control_plane, audit_log=Path("/log")))["kube-apiserver"].argv
    assert not any(one.startswith("--audit") for one in quiet)
    assert "--audit-log-path=/log" in logged


def test_scheduler_is_left_out_unless_asked(control_plane: ControlPlane) -> None:
    names = [one.name for one in control_plane.components(scheduler=False)]
    assert names == ["etcd", "kube-apiserver", "kube-controller-manager"]


def test_components_survive_the_way_through_json(control_plane: ControlPlane) -> None:
    for component in control_plane.components(scheduler=True):
        assert Component.load(component.dump()) == component
