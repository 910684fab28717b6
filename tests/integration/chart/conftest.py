"""A control plane for each file of tests: policies and kinds are cluster-wide."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from capibara_devcluster import clusters
from capibara_devcluster.layout import Layout
from capibara_devcluster.options import Options, Profile, Provider
from support.chart_cluster import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    layout = Layout(tmp_path_factory.mktemp("chart"), "chart")
    request = clusters.Request(
        provider=Provider.LIGHT,
        profile=Profile.CONTROL_PLANE,
        options=Options(audit=True),
        extra_tools=("helm",),
        owner_pid=os.getpid(),
    )
    try:
        status = clusters.up(layout, request)
        yield Cluster(Path(status.kubeconfig), layout.root / "bin", layout.audit_log)
    finally:
        clusters.down(layout, purge=True)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Cluster:
    """The cluster with the chart installed and its policies in force; no operator runs."""
    cluster.install("--set=sandboxd.enabled=true")
    return cluster
