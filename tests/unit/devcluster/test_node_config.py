"""What the node's programs are configured with."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from capibara_devcluster.native import node
from capibara_devcluster.native.config import (
    DNS_SERVICE_IP,
    PAUSE_IMAGE,
    POD_CIDR,
    NodeConfig,
    dns_manifest,
)


@pytest.fixture
def config() -> NodeConfig:
    return NodeConfig(
        node="demo-node",
        folder=Path("/state/demo/config"),
        pki=Path("/state/demo/pki"),
        tools=Path("/state/demo/bin"),
        runc="/usr/sbin/runc",
        cgroup="/capibara-0123456789",
        snapshotter="overlayfs",
        may_raise_oom_priority=False,
    )


def test_containerd_pins_the_local_pause_image(config: NodeConfig) -> None:
    plugins = tomllib.loads(config.containerd())["plugins"]
    images = plugins["io.containerd.cri.v1.images"]
    assert images["pinned_images"]["sandbox"] == PAUSE_IMAGE
    assert images["snapshotter"] == "overlayfs"


@pytest.mark.parametrize("capable", [True, False])
def test_containerd_lowers_oom_scores_only_where_it_may(config: NodeConfig, capable: bool) -> None:
    rendered = replace(config, may_raise_oom_priority=capable).containerd()
    runtime = tomllib.loads(rendered)["plugins"]["io.containerd.cri.v1.runtime"]
    assert runtime["restrict_oom_score_adj"] is not capable


def test_paths_with_quotes_stay_valid_toml(config: NodeConfig) -> None:
    odd = replace(config, tools=Path('/state/a "b"/bin'))
    runtime = tomllib.loads(odd.containerd())["plugins"]["io.containerd.cri.v1.runtime"]
    assert runtime["cni"]["bin_dirs"] == ['/state/a "b"/bin']


def test_pods_get_point_to_point_links_in_the_masqueraded_range(config: NodeConfig) -> None:
    network = json.loads(config.cni())
    point_to_point = network["plugins"][0]
    assert point_to_point["type"] == "ptp"
    assert point_to_point["ipam"]["ranges"] == [[{"subnet": POD_CIDR}]]


def test_kubelet_asks_our_dns_and_keeps_to_our_cgroup(config: NodeConfig) -> None:
    kubelet = config.kubelet()
    assert kubelet["clusterDNS"] == [DNS_SERVICE_IP]
    assert kubelet["cgroupRoot"] == "/capibara-0123456789"
    authentication: Any = kubelet["authentication"]
    assert authentication["anonymous"] == {"enabled": False}


def test_kubelet_never_collects_images_that_cannot_be_pulled_again(config: NodeConfig) -> None:
    assert config.kubelet()["imageGCHighThresholdPercent"] == 100


def test_every_file_a_command_line_names_is_written(config: NodeConfig) -> None:
    written = {str(path) for path in config.files()}
    named = {
        argument.partition("=")[2]
        for component in node.components(config, address="10.213.0.2")
        for argument in component.argv
        if argument.startswith(("--config=", "-conf="))
    }
    assert named <= written
    assert len(named) == 4


def test_kubelet_waits_for_its_container_runtime(config: NodeConfig) -> None:
    by_name = {one.name: one for one in node.components(config, address="10.213.0.2")}
    assert set(by_name["kubelet"].after) == {"kube-apiserver", "containerd"}


def test_names_outside_the_cluster_do_not_exist(config: NodeConfig) -> None:
    assert "rcode NXDOMAIN" in config.corefile()
    assert "forward" not in config.corefile()


def test_dns_service_leads_to_the_dns_process() -> None:
    objects = {one["kind"]: one for one in yaml.safe_load_all(dns_manifest("n", "10.213.0.2"))}
    assert objects["Service"]["spec"]["clusterIP"] == DNS_SERVICE_IP
    assert objects["EndpointSlice"]["endpoints"][0]["addresses"] == ["10.213.0.2"]
    assert "selector" not in objects["Service"]["spec"]
