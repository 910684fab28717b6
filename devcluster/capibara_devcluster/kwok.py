"""Simulated nodes: their pods go through their lives without any container."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import yaml

from capibara_devcluster import kubectl
from capibara_devcluster.component import Component, Probe
from capibara_devcluster.network import LOOPBACK
from capibara_devcluster.plan import Plan

_ANNOTATION: Final = "kwok.x-k8s.io/node"
_STAGES: Final = Path(__file__).with_name("kwok-stages.yaml")
_LEASE_SECONDS: Final = 40


def component(tools: Path, kubeconfig: Path, port: int) -> Component:
    """The process that simulates the kubelets."""
    return Component(
        name="kwok",
        argv=(
            str(tools / "kwok"),
            f"--kubeconfig={kubeconfig}",
            f"--config={_STAGES}",
            f"--manage-nodes-with-annotation-selector={_ANNOTATION}=fake",
            f"--node-lease-duration-seconds={_LEASE_SECONDS}",
            f"--server-address={LOOPBACK}:{port}",
        ),
        after=("kube-apiserver",),
        ready=Probe(f"http://{LOOPBACK}:{port}/readyz"),
    )


def add_nodes(plan: Plan, count: int) -> None:
    """Create the nodes, or leave them as they are, and wait until they are Ready."""
    kubectl.run(plan.layout, "apply", "--server-side", "-f", "-", stdin=manifest(count))
    seconds = max(1, int(plan.deadline - time.monotonic()))
    ready = ("wait", "--for=condition=Ready", "node", "--all", f"--timeout={seconds}s")
    kubectl.run(plan.layout, *ready)


def manifest(count: int) -> str:
    """Node objects `kwok-0` ... as one YAML stream."""
    return yaml.safe_dump_all(_node(f"kwok-{number}") for number in range(count))


def _node(name: str) -> dict[str, Any]:
    resources = {"cpu": "32", "memory": "256Gi", "pods": "250"}
    labels = {"type": "kwok", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": {_ANNOTATION: "fake"}, "labels": labels},
        "status": {"allocatable": resources, "capacity": resources},
    }
