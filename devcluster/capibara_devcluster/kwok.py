"""Simulated nodes: their pods go through their lives without any container."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from capibara_devcluster import kubectl
from capibara_devcluster.component import Component
from capibara_devcluster.plan import Plan

_ANNOTATION: Final = "kwok.x-k8s.io/node"


def component(tools: Path, kubeconfig: Path) -> Component:
    """The process that simulates the kubelets."""
    return Component(
        name="kwok",
        argv=(
            str(tools / "kwok"),
            f"--kubeconfig={kubeconfig}",
            f"--manage-nodes-with-annotation-selector={_ANNOTATION}=fake",
        ),
        after=("kube-apiserver",),
    )


def add_nodes(plan: Plan, count: int) -> None:
    """Create the nodes, or leave them as they are."""
    kubectl.run(plan.layout, "apply", "--server-side", "-f", "-", stdin=manifest(count))


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
