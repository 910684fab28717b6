"""The control-plane profile through its command line: up, crash, repair, down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_TIMEOUT_SECONDS = 180
_COMMAND = [sys.executable, "-c", "from capibara_devcluster.cli import main; main()"]


@dataclass(frozen=True)
class Devcluster:
    """The command line on one state folder."""

    state_dir: Path
    name: str = "it"

    @property
    def root(self) -> Path:
        return self.state_dir / self.name

    def argv(self, command: str, *args: str) -> list[str]:
        return [*_COMMAND, command, f"--name={self.name}", f"--state-dir={self.state_dir}", *args]

    def run(self, command: str, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(command, *args),
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def up(self, *args: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(
            self.run("up", "--profile=control-plane", "--json", *args).stdout
        )
        return shown

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [self.root / "bin" / "kubectl", f"--kubeconfig={self.root}/kubeconfig", *args],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def supervisor(self) -> int:
        record = json.loads((self.root / "cluster.json").read_text())
        pid: int = record["supervisor"]["pid"]
        return pid

    def component(self, name: str) -> int:
        health = json.loads((self.root / "supervisor.json").read_text())
        pid: int = health["components"][name]["process"]["pid"]
        return pid

    def processes(self) -> list[str]:
        """Command lines of all processes that mention our state folder."""
        return [line for line in _command_lines() if str(self.state_dir) in line]


def _command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if path.parent.name != str(os.getpid()):
            yield line


def _eventually(holds: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def devcluster(tmp_path: Path) -> Iterator[Devcluster]:
    command = Devcluster(tmp_path / "state")
    yield command
    command.run("down", "--purge")
    _eventually(lambda: command.processes() == [], "every process is gone", seconds=5)


def test_up_status_and_down_are_repeatable(devcluster: Devcluster) -> None:
    first = devcluster.up()
    supervisor = devcluster.supervisor()
    assert first["ready"]
    assert first["provider"] == "light"
    assert any("container" in line for line in first["missing"])
    assert devcluster.up()["ready"]
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
    devcluster.up()
    script = f'. "{devcluster.state_dir}/env" && kubectl get namespace default -o name'
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stdout == "namespace/default\n", done.stderr


def test_killed_supervisor_takes_all_along_and_up_keeps_the_data(devcluster: Devcluster) -> None:
    devcluster.up()
    devcluster.kubectl("create", "configmap", "kept")
    before = (devcluster.root / "kubeconfig").read_text()
    os.kill(devcluster.supervisor(), signal.SIGKILL)
    _eventually(lambda: devcluster.processes() == [], "components die with their supervisor")
    assert "up` starts them again" in devcluster.run("status", code=1).stdout.replace("\n", " ")
    assert devcluster.up()["ready"]
    assert devcluster.kubectl("get", "configmap", "kept", "-o", "name") == "configmap/kept\n"
    server = [line for line in before.splitlines() if "server:" in line]
    assert server[0] in (devcluster.root / "kubeconfig").read_text()


def test_killed_component_is_started_again(devcluster: Devcluster) -> None:
    devcluster.up()
    killed = devcluster.component("kube-apiserver")
    os.kill(killed, signal.SIGKILL)

    def restarted() -> bool:
        health = json.loads((devcluster.root / "supervisor.json").read_text())
        apiserver = health["components"]["kube-apiserver"]
        return bool(apiserver["ready"]) and apiserver["process"]["pid"] != killed

    _eventually(restarted, "the API server runs again", seconds=40)
    devcluster.kubectl("get", "namespaces")


# Seconds after the start of `up`: before, while and after it starts processes and writes files.
@pytest.mark.parametrize("moment", [0.3, 0.6, 1.2])
def test_up_killed_at_any_moment_can_be_repaired(devcluster: Devcluster, moment: float) -> None:
    with subprocess.Popen(
        devcluster.argv("up", "--profile=control-plane"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        time.sleep(moment)
        process.kill()
    assert devcluster.up()["ready"]
    running = [line for line in devcluster.processes() if "kube-apiserver --" in line]
    assert len(running) == 1


@pytest.mark.parametrize("moment", [0.5, 1.0])
def test_up_killed_at_any_moment_can_be_taken_down(devcluster: Devcluster, moment: float) -> None:
    with subprocess.Popen(
        devcluster.argv("up", "--profile=control-plane"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        time.sleep(moment)
        process.kill()
    devcluster.run("down")
    _eventually(lambda: devcluster.processes() == [], "every process is gone", seconds=5)
    assert not devcluster.root.exists()


def test_two_ups_at_once_make_one_cluster(devcluster: Devcluster) -> None:
    argv = devcluster.argv("up", "--profile=control-plane")
    with (
        subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as one,
        subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as two,
    ):
        said = one.communicate(timeout=_TIMEOUT_SECONDS)[1] + two.communicate()[1]
    assert (one.returncode, two.returncode) == (0, 0), said.decode()
    running = [line for line in devcluster.processes() if "kube-apiserver --" in line]
    assert len(running) == 1


def test_other_options_need_another_cluster(devcluster: Devcluster) -> None:
    devcluster.up()
    refused = devcluster.run("up", "--profile=control-plane", "--audit", code=1).stderr
    assert "exists with other options" in refused
    assert "down" in refused
    assert devcluster.run("status").returncode == 0


def test_cluster_ends_with_its_owner(devcluster: Devcluster) -> None:
    with subprocess.Popen(["sleep", "120"]) as owner:
        devcluster.up(f"--owner-pid={owner.pid}")
        owner.kill()
    _eventually(lambda: devcluster.processes() == [], "the cluster ends after its owner")


def test_component_that_cannot_run_is_named_with_its_log(devcluster: Devcluster) -> None:
    devcluster.up()
    os.kill(devcluster.supervisor(), signal.SIGKILL)
    _eventually(lambda: devcluster.processes() == [], "components die with their supervisor")
    data = devcluster.root / "etcd" / "member" / "snap" / "db"
    data.write_bytes(b"no database")
    said = devcluster.run("up", "--profile=control-plane", code=1).stderr
    assert "etcd did not become ready" in said
    assert f"log: {devcluster.root}/logs/etcd.log" in said
    assert "next: " in said


def test_simulated_nodes_run_pods(devcluster: Devcluster) -> None:
    devcluster.up("--kwok=2")
    devcluster.kubectl("create", "deployment", "web", "--image=any.example/web", "--replicas=3")
    devcluster.kubectl("rollout", "status", "deployment/web", "--timeout=40s")


def test_images_are_refused_with_the_reason(devcluster: Devcluster, tmp_path: Path) -> None:
    devcluster.up()
    (tmp_path / "image.tar").touch()
    said = devcluster.run("load-image", str(tmp_path / "image.tar"), code=1).stderr
    assert "a light cluster runs no containers" in said
