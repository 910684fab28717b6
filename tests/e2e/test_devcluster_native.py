"""A whole node: containers, probes, ClusterIPs, DNS, side by side, and after crashes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from capibara_devcluster.layout import Layout
from capibara_devcluster.native import host
from capibara_devcluster.native.archive import write_image
from capibara_devcluster.tools.golang import go
from support.devcluster import Devcluster, eventually

pytestmark = pytest.mark.e2e

_SOURCE = Path(__file__).parents[1] / "data" / "probe"
_IMAGE = "localhost/capibara-test-probe:1"
_PROXY = "/api/v1/namespaces/default/services/probe:http/proxy"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of an image with a static web server that says what it sees."""
    folder = tmp_path_factory.mktemp("image")
    program = folder / "probe"
    subprocess.run(
        [go(), "build", "-trimpath", "-ldflags=-s -w", "-o", program, "."],
        cwd=_SOURCE,
        env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
        check=True,
        timeout=280,
    )
    archive = folder / "probe.tar"
    write_image(archive, reference=_IMAGE, programs={"/probe": program}, entrypoint=["/probe"])
    return archive


@pytest.fixture(scope="module")
def native_state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := host.why_impossible():
        pytest.skip(f"no node can run on this machine: {why}")
    return tmp_path_factory.mktemp("native")


@pytest.fixture(scope="module")
def cluster(native_state_dir: Path, image: Path) -> Iterator[Devcluster]:
    """A cluster that runs two replicas of the web server."""
    command = Devcluster(native_state_dir, "first")
    try:
        assert command.up("--provider=native")["ready"]
        command.run("load-image", str(image))
        deploy(command)
        yield command
    finally:
        command.run("down", "--purge")
    assert_nothing_left(command)


def deploy(cluster: Devcluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=_manifest())
    cluster.kubectl("rollout", "status", "deployment/probe", "--timeout=60s")


def assert_nothing_left(cluster: Devcluster) -> None:
    eventually(
        lambda: not [line for line in cluster.processes() if f"{cluster.root}/" in line],
        "every process is gone",
    )
    assert str(cluster.root) not in Path("/proc/self/mountinfo").read_text()
    layout = Layout(cluster.state_dir, cluster.name)
    assert not Path("/sys/class/net", host.interface(layout)).exists()
    assert list(Path("/sys/fs/cgroup").glob(f"*/{host.cgroup(layout).lstrip('/')}")) == []


def _manifest() -> str:
    probe = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1}
    container = {
        "name": "probe",
        "image": _IMAGE,
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": probe,
        "livenessProbe": probe,
        "resources": {"limits": {"cpu": "200m", "memory": "64Mi"}},
        "securityContext": {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    labels = {"app": "probe"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "probe"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "probe"},
        "spec": {
            "selector": labels,
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }
    return yaml.safe_dump_all([deployment, service])


def _ask(cluster: Devcluster, path: str) -> str:
    """What a pod of the deployment answers."""
    return cluster.kubectl("get", "--raw", f"{_PROXY}{path}")


def test_deployment_with_probes_is_available(cluster: Devcluster) -> None:
    shown = cluster.kubectl("get", "deployment/probe", "-o=jsonpath={.status.availableReplicas}")
    assert shown == "2"


def test_pods_resolve_names_of_services(cluster: Devcluster) -> None:
    address = cluster.kubectl("get", "service/probe", "-o=jsonpath={.spec.clusterIP}")
    for name in ("probe", "probe.default", "probe.default.svc.cluster.local"):
        assert _ask(cluster, f"/lookup?name={name}") == address


def test_cluster_address_balances_over_the_pods_also_from_one_of_them(cluster: Devcluster) -> None:
    pods = cluster.kubectl("get", "pods", "-l=app=probe", "-o=jsonpath={.items[*].metadata.name}")
    answered = {_ask(cluster, "/get?url=http://probe/hostname") for _ in range(20)}
    assert answered == set(pods.split())


def test_pods_reach_the_api_server_by_its_service(cluster: Devcluster) -> None:
    answer = _ask(cluster, "/get?url=https://kubernetes.default.svc/version")
    assert '"gitVersion": "v1.37' in answer


def test_logs_and_exec_work(cluster: Devcluster) -> None:
    assert cluster.kubectl("logs", "deployment/probe", "--tail=1") == ""
    shown = cluster.kubectl("exec", "deployment/probe", "--", "/probe", "-version")
    assert shown.strip() == "probe 1"


def test_image_that_is_there_is_not_loaded_again(cluster: Devcluster, image: Path) -> None:
    assert "already there" in cluster.run("load-image", str(image)).stderr


def test_status_names_every_part(cluster: Devcluster) -> None:
    shown = cluster.run("status").stdout
    for part in ("kubelet", "containerd", "kube-proxy", "coredns", "node first-node"):
        assert f"ok  {part}" in shown


def test_up_again_changes_nothing(cluster: Devcluster) -> None:
    before = cluster.supervisor()
    assert cluster.up("--provider=native")["ready"]
    assert cluster.supervisor() == before


def test_clusters_live_side_by_side(cluster: Devcluster, image: Path) -> None:
    second = Devcluster(cluster.state_dir, "second")
    try:
        assert second.up("--provider=native")["ready"]
        second.run("load-image", str(image))
        deploy(second)
        assert "1.37" in _ask(second, "/get?url=https://kubernetes.default.svc/version")
        assert second.kubectl("get", "nodes", "-o=name") == "node/second-node\n"
        assert cluster.kubectl("get", "nodes", "-o=name") == "node/first-node\n"
    finally:
        second.run("down", "--purge")
    assert_nothing_left(second)
    assert _ask(cluster, "/lookup?name=probe")


def test_killed_supervisor_ends_all_and_up_brings_the_pods_back(cluster: Devcluster) -> None:
    os.kill(cluster.supervisor(), signal.SIGKILL)
    assert cluster.run("status", code=1)
    assert cluster.up("--provider=native")["ready"]
    cluster.kubectl("rollout", "status", "deployment/probe", "--timeout=60s")
    address = cluster.kubectl("get", "service/probe", "-o=jsonpath={.spec.clusterIP}")
    eventually(lambda: _answers(cluster, address), "the pods answer again")


def _answers(cluster: Devcluster, address: str) -> bool:
    try:
        return _ask(cluster, "/lookup?name=probe") == address
    except AssertionError:
        return False


def test_down_keeps_images_unless_purged(cluster: Devcluster) -> None:
    cluster.run("down")
    assert_nothing_left(cluster)
    assert cluster.up("--provider=native")["ready"]
    assert cluster.kubectl("get", "namespaces", "-o=name").count("namespace/") == 4
    deploy(cluster)


@pytest.mark.parametrize("moment", [0.7, 1.5, 3.0])
def test_up_killed_at_any_moment_can_be_repaired(native_state_dir: Path, moment: float) -> None:
    crashed = Devcluster(native_state_dir, "crashed")
    crashed.up_killed_after(moment, "--provider=native")
    try:
        assert crashed.up("--provider=native")["ready"]
    finally:
        crashed.run("down", "--purge")
    assert_nothing_left(crashed)


def test_up_killed_in_the_middle_can_be_taken_down(native_state_dir: Path) -> None:
    crashed = Devcluster(native_state_dir, "crashed")
    crashed.up_killed_after(1.5, "--provider=native")
    crashed.run("down", "--purge")
    assert_nothing_left(crashed)
    assert not crashed.root.exists()
