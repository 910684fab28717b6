"""Fixtures for tests of the operator against a real API server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.operator_process import OperatorProcess

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def crds_installed(control_plane: Any) -> Any:
    """The control plane with our CRDs established."""
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    control_plane.kubectl(
        "wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds")
    )
    return control_plane


@pytest.fixture
def operator_namespace(crds_installed: Any, namespace: str) -> Iterator[str]:
    """The namespace that stands for capibara-system, of the test's own."""
    name = f"{namespace}-system"
    crds_installed.kubectl("create", "namespace", name)
    yield name
    crds_installed.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def operator_process(
    crds_installed: Any, namespace: str, operator_namespace: str, tmp_path: Path
) -> Iterator[Callable[..., OperatorProcess]]:
    """Makes operators, not started yet, that serve the test's own namespace only.

    ``operator_process(CAPIBARA_LOG_LEVEL="DEBUG").start()``; each is killed at the end of the test.
    """
    made: list[OperatorProcess] = []

    def make(**environment: str) -> OperatorProcess:
        merged = {
            "KUBECONFIG": str(crds_installed.kubeconfig),
            "CAPIBARA_METRICS_BIND_ADDRESS": "127.0.0.1:0",
            "CAPIBARA_WATCH_NAMESPACES": namespace,
            "CAPIBARA_OPERATOR_NAMESPACE": operator_namespace,
            "CAPIBARA_INSTALL_ID": namespace,
            "PATH": f"{crds_installed.tools}:{os.environ.get('PATH', '')}",
            **environment,
        }
        log_file = tmp_path / f"operator-{len(made)}.log"
        made.append(OperatorProcess(merged, log_file))
        return made[-1]

    yield make
    for operator in made:
        if operator.process is not None and operator.process.poll() is None:
            operator.kill9()
