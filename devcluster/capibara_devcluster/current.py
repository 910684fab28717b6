"""The cluster of the kubeconfig in force: checked, never changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from capibara_devcluster import files, kubectl
from capibara_devcluster.backend import Health
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.layout import Layout
from capibara_devcluster.options import Options
from capibara_devcluster.plan import Plan
from capibara_devcluster.record import Record

_TIMEOUT_SECONDS: Final = 15
_HINT: Final = "see `kubectl config current-context`, and that the cluster answers"


class Current:
    """Somebody else's cluster as a backend."""

    missing: tuple[str, ...] = ()

    def tools(self, options: Options) -> tuple[str, ...]:
        """Only kubectl is needed."""
        if options.audit or options.kwok_nodes:
            raise DevclusterError(
                "an existing cluster is only checked, never changed",
                hint="leave --audit and --kwok out, or use another --provider",
            )
        return ("kubectl",)

    def prepare(self) -> None:
        """Nothing to do."""

    def start(self, plan: Plan, record: Record) -> Record:
        """Keep a copy of the context in force, so that a later switch does not redirect us."""
        layout = plan.layout
        record.store(layout)
        files.write(layout.kubeconfig, _context_in_force(plan.tools))
        health = kubectl.inspect(layout)
        if not health.ready:
            why = health.message or "a node is not Ready"
            raise DevclusterError(f"the cluster in force is not well: {why}", hint=_HINT)
        return record

    def inspect(self, layout: Layout, _record: Record, /) -> Health:
        """Ask the API server about itself and its nodes."""
        return kubectl.inspect(layout)

    def stop(self, _layout: Layout, _record: Record, /) -> None:
        """It is not ours to stop."""

    def delete(self, layout: Layout, _record: Record, _purge: bool, /) -> None:
        """Forget the cluster, which goes on."""
        shutil.rmtree(layout.root)

    def load_image(self, _layout: Layout, _record: Record, source: Path, /) -> list[str]:
        """We cannot reach its nodes."""
        raise DevclusterError(
            f"{source} cannot be loaded: devcluster does not reach the nodes of this cluster",
            hint="push the image to a registry that the cluster pulls from, "
            "or load it with the cluster's own tool (minikube image load, k3d image import)",
        )


def _context_in_force(tools: Path) -> str:
    done = subprocess.run(
        [tools / "kubectl", "config", "view", "--minify", "--flatten", "--raw"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
        env=os.environ,
    )
    if done.returncode != 0:
        raise DevclusterError(f"no cluster is in force: {done.stderr.strip()}", hint=_HINT)
    return done.stdout
