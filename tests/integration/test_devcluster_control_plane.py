"""The control-plane profile through its command line: up, crash, repair, down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.devcluster import Devcluster, eventually

_PROFILE = "--profile=control-plane"
_TIMEOUT_SECONDS = 180


@pytest.fixture
def devcluster(tmp_path: Path) -> Iterator[Devcluster]:
    command = Devcluster(tmp_path / "state")
    yield command
    command.run("down", "--purge")
    command.wait_until_gone()


def test_up_status_and_down_are_repeatable(devcluster: Devcluster) -> None:
    first = devcluster.up(_PROFILE)
    supervisor = devcluster.supervisor()
    assert first["ready"]
    assert first["provider"] == "light"
    assert any("container" in line for line in first["missing"])
    assert devcluster.up(_PROFILE)["ready"]
    assert devcluster.supervisor() == supervisor
    assert json.loads(devcluster.run("status", "--json").stdout)["components"] == {
        "etcd": True,
        "kube-apiserver": True,
        "kube-controller-manager": True,
    }
    assert devcluster.run("kubeconfig").stdout.strip() == str(devcluster.root / "kubeconfig")
    devcluster.run("down")
    devcluster.run("down")
    assert not devcluster.root.exists()
    assert not (devcluster.state_dir / "env").exists()
    assert "bring it up" in devcluster.run("status", code=1).stderr


def test_environment_file_reaches_the_cluster(devcluster: Devcluster) -> None:
    devcluster.up(_PROFILE)
    script = f'. "{devcluster.state_dir}/env" && kubectl get namespace default -o name'
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stdout == "namespace/default\n", done.stderr


def test_killed_supervisor_takes_all_along_and_up_keeps_the_data(devcluster: Devcluster) -> None:
    devcluster.up(_PROFILE)
    devcluster.kubectl("create", "configmap", "kept")
    before = (devcluster.root / "kubeconfig").read_text()
    os.kill(devcluster.supervisor(), signal.SIGKILL)
    devcluster.wait_until_gone()
    assert "up` starts them again" in devcluster.run("status", code=1).stdout.replace("\n", " ")
    assert devcluster.up(_PROFILE)["ready"]
    assert devcluster.kubectl("get", "configmap", "kept", "-o", "name") == "configmap/kept\n"
    server = [line for line in before.splitlines() if "server:" in line]
    assert server[0] in (devcluster.root / "kubeconfig").read_text()


def test_killed_component_is_started_again(devcluster: Devcluster) -> None:
    devcluster.up(_PROFILE)
    killed: int = devcluster.component("kube-apiserver")["process"]["pid"]
    os.kill(killed, signal.SIGKILL)

    def restarted() -> bool:
        apiserver = devcluster.component("kube-apiserver")
        return bool(apiserver["ready"]) and apiserver["process"]["pid"] != killed

    eventually(restarted, "the API server runs again", seconds=40)
    devcluster.kubectl("get", "namespaces")


# Seconds after the start of `up`: before, while and after it starts processes and writes files.
@pytest.mark.parametrize("moment", [0.3, 0.6, 1.2])
def test_up_killed_at_any_moment_can_be_repaired(devcluster: Devcluster, moment: float) -> None:
    devcluster.up_killed_after(moment, _PROFILE)
    assert devcluster.up(_PROFILE)["ready"]
    running = [line for line in devcluster.processes() if "kube-apiserver --" in line]
    assert len(running) == 1


@pytest.mark.parametrize("moment", [0.5, 1.0])
def test_up_killed_at_any_moment_can_be_taken_down(devcluster: Devcluster, moment: float) -> None:
    devcluster.up_killed_after(moment, _PROFILE)
    devcluster.run("down")
    devcluster.wait_until_gone()
    assert not devcluster.root.exists()


def test_two_ups_at_once_make_one_cluster(devcluster: Devcluster) -> None:
    argv = devcluster.argv("up", _PROFILE)
    with (
        subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as one,
        subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as two,
    ):
        said = one.communicate(timeout=_TIMEOUT_SECONDS)[1] + two.communicate()[1]
    assert (one.returncode, two.returncode) == (0, 0), said.decode()
    running = [line for line in devcluster.processes() if "kube-apiserver --" in line]
    assert len(running) == 1


def test_other_options_need_another_cluster(devcluster: Devcluster) -> None:
    devcluster.up(_PROFILE)
    refused = devcluster.run("up", _PROFILE, "--audit", code=1).stderr
    assert "exists with other options" in refused
    assert "down" in refused
    assert devcluster.run("status").returncode == 0


def test_cluster_ends_with_its_owner(devcluster: Devcluster) -> None:
    with subprocess.Popen(["sleep", "120"]) as owner:
        devcluster.up(_PROFILE, f"--owner-pid={owner.pid}")
        owner.kill()
    devcluster.wait_until_gone()


def test_component_that_cannot_run_is_named_with_its_log(devcluster: Devcluster) -> None:
    devcluster.up(_PROFILE)
    os.kill(devcluster.supervisor(), signal.SIGKILL)
    devcluster.wait_until_gone()
    data = devcluster.root / "etcd" / "member" / "snap" / "db"
    data.write_bytes(b"no database")
    said = devcluster.run("up", _PROFILE, code=1).stderr
    assert "etcd did not become ready" in said
    assert f"log: {devcluster.root}/logs/etcd.log" in said
    assert "next: " in said


def test_simulated_nodes_run_pods(devcluster: Devcluster) -> None:
    devcluster.up(_PROFILE, "--kwok=2")
    devcluster.kubectl("create", "deployment", "web", "--image=any.example/web", "--replicas=3")
    devcluster.kubectl("rollout", "status", "deployment/web", "--timeout=40s")


def test_images_are_refused_with_the_reason(devcluster: Devcluster, tmp_path: Path) -> None:
    devcluster.up(_PROFILE)
    (tmp_path / "image.tar").touch()
    said = devcluster.run("load-image", str(tmp_path / "image.tar"), code=1).stderr
    assert "a light cluster runs no containers" in said
