"""Fixtures for tests that need a real API server."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from capibara_devcluster import clusters
from capibara_devcluster.layout import Layout
from capibara_devcluster.options import Options, Profile, Provider
from capibara_devcluster.tools import build, catalogue, locate

pytest_plugins = ["plugins.sandboxd"]

_KUBECTL_TIMEOUT_SECONDS = 60
_TOOLS_OF_FIXTURES = {
    "control_plane": catalogue.CONTROL_PLANE,
    "devcluster": (*catalogue.CONTROL_PLANE, *catalogue.SIMULATED_NODES),
    "installed": ("helm",),
    "kind_program": ("kind",),
    "native_state_dir": (*catalogue.CONTROL_PLANE, *catalogue.NODE, "helm"),
}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the tests need before their time limits run, and show the progress."""
    if session.config.option.collectonly:
        return
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    wanted = {tool for name in used for tool in _TOOLS_OF_FIXTURES.get(name, ())}
    missing = locate.find(sorted(wanted))[1]
    capture = session.config.pluginmanager.getplugin("capturemanager")
    if missing and capture is not None:
        with capture.global_and_fixture_disabled():
            build.build(missing)


@dataclass(frozen=True)
class Cluster:
    """A cluster that tests may use.

    `tools` holds kubectl and the control plane's programs; `audit_log` has one JSON object a line
    for each request, and is None on a cluster that we did not start.
    """

    kubeconfig: Path
    tools: Path
    audit_log: Path | None

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - named as in subprocess.run
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as cluster administrator; a failure shows what kubectl said."""
        done = subprocess.run(
            ["kubectl", f"--kubeconfig={self.kubeconfig}", *args],
            input=input,
            capture_output=True,
            text=True,
            check=False,
            timeout=_KUBECTL_TIMEOUT_SECONDS,
            env={**os.environ, "PATH": f"{self.tools}:{os.environ.get('PATH', '')}"},
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(args)}: {done.stdout}{done.stderr}")
        return done


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One control plane for the whole run, or for each xdist worker: two operators on one would
    both write the status of the cluster-scoped providers.

    USE_EXISTING_CLUSTER=true uses the kubeconfig in force instead.
    """
    if os.environ.get("USE_EXISTING_CLUSTER", "").lower() in {"1", "true"}:
        yield _existing_cluster()
        return
    layout = Layout(tmp_path_factory.mktemp("control-plane"), "tests")
    request = clusters.Request(
        provider=Provider.LIGHT,
        profile=Profile.CONTROL_PLANE,
        options=Options(audit=True),
        owner_pid=os.getpid(),
    )
    try:
        status = clusters.up(layout, request)
        yield Cluster(Path(status.kubeconfig), layout.root / "bin", layout.audit_log)
    finally:
        clusters.down(layout, purge=True)


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """A namespace of the test's own, where pods could be created; deleted afterwards."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    control_plane.kubectl("create", "namespace", name)
    control_plane.kubectl(
        "wait", f"--namespace={name}", "--for=create", "serviceaccount/default", "--timeout=30s"
    )
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


def _existing_cluster() -> Cluster:
    configured = os.environ.get("KUBECONFIG", "").split(":")[0]
    kubectl = shutil.which("kubectl")
    assert kubectl, "USE_EXISTING_CLUSTER is set, but kubectl is not on PATH"
    kubeconfig = Path(configured) if configured else Path.home() / ".kube" / "config"
    return Cluster(kubeconfig, Path(kubectl).parent, audit_log=None)
