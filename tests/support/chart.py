"""Runs Helm on the chart of this checkout."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "helm" / "capibara-operator"
RELEASE: Final = "capibara"
NAMESPACE: Final = "capibara-system"
OPERATOR: Final = f"system:serviceaccount:{NAMESPACE}:capibara-operator"
_TIMEOUT_SECONDS: Final = 120

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Helm:
    """The helm program, on a cluster where ``kubeconfig`` is given."""

    program: Path
    kubeconfig: Path | None = None

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run helm; a failure shows what it said."""
        # An empty kubeconfig, so that a test never reaches the developer's own cluster.
        kubeconfig = str(self.kubeconfig or os.devnull)
        done = subprocess.run(
            [self.program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
            env={**os.environ, "KUBECONFIG": kubeconfig},
        )
        if check and done.returncode != 0:
            raise AssertionError(f"helm {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done

    def template(self, *arguments: str) -> list[Manifest]:
        """The objects that the chart renders, hooks too."""
        text = self.run(
            "template", RELEASE, str(CHART), "--namespace", NAMESPACE, *arguments
        ).stdout
        return [found for found in yaml.safe_load_all(text) if found]


def of_kind(manifests: Sequence[Manifest], kind: str) -> dict[str, Manifest]:
    """The objects of a kind by name; ``namespace/name`` where two share a name."""
    found = [item for item in manifests if item["kind"] == kind]
    names = [item["metadata"]["name"] for item in found]
    return {
        name if names.count(name) == 1 else f"{item['metadata'].get('namespace')}/{name}": item
        for name, item in zip(names, found, strict=True)
    }


def sources(folder: str) -> dict[str, Manifest]:
    """Manifests of a folder of ``manifests/`` or of ``crds`` by name, without kustomizations."""
    read = (
        manifest
        for path in sorted((ROOT / folder).glob("*.yaml"))
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    )
    return {item["metadata"]["name"]: item for item in read if item["kind"] != "Kustomization"}


def rules(manifests: Sequence[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every RBAC rule with the name of its role."""
    for manifest in manifests:
        if manifest["kind"] in {"ClusterRole", "Role"}:
            for rule in manifest["rules"]:
                yield manifest["metadata"]["name"], rule
