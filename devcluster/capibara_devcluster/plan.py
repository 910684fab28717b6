"""One `up` in progress: what every provider needs to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from capibara_devcluster import files, pki
from capibara_devcluster.layout import Layout
from capibara_devcluster.process import Identity


@dataclass(frozen=True, slots=True)
class Plan:
    """One `up` in progress.

    Args:
        layout: paths of the cluster.
        tools: folder with a link to every program that the cluster needs.
        deadline: of the monotonic clock, in seconds.
        owner: process whose end ends the cluster; None = it runs until `down`.
        progress: shows a line to the user.
    """

    layout: Layout
    tools: Path
    deadline: float
    owner: Identity | None
    progress: Callable[[str], None]

    @property
    def context(self) -> str:
        """Name of the cluster in kubeconfigs."""
        name = self.layout.name
        return name if name.startswith("capibara") else f"capibara-{name}"

    def publish_kubeconfig(self) -> None:
        """Give the user the administrator's kubeconfig."""
        source = self.layout.pki / f"{pki.ADMIN}.kubeconfig"
        files.write(self.layout.kubeconfig, source.read_bytes())
