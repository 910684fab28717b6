"""What every way of making a cluster can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from capibara_devcluster.layout import Layout
from capibara_devcluster.options import Options
from capibara_devcluster.plan import Plan
from capibara_devcluster.record import Record


@dataclass(frozen=True, slots=True)
class Health:
    """How a cluster is now.

    Args:
        components: name -> ready.
        message: what is wrong and what to do; empty when all is well.
    """

    components: Mapping[str, bool] = field(default_factory=dict)
    message: str = ""

    @property
    def ready(self) -> bool:
        """Whether everything is well."""
        return bool(self.components) and all(self.components.values())


class Backend(Protocol):
    """A way of making a cluster. Every operation may be repeated without harm."""

    missing: tuple[str, ...]
    """What such a cluster leaves out, in words."""

    def tools(self, options: Options) -> tuple[str, ...]:
        """The programs from the catalogue that are needed."""
        ...

    def prepare(self) -> None:
        """Install or ask for what is not in the catalogue."""
        ...

    def start(self, plan: Plan, record: Record) -> Record:
        """Bring up what `record` describes, whatever an earlier attempt left."""
        ...

    def inspect(self, layout: Layout, record: Record, /) -> Health:
        """How the cluster is now."""
        ...

    def stop(self, layout: Layout, record: Record, /) -> None:
        """End the cluster's processes."""
        ...

    def delete(self, layout: Layout, record: Record, purge: bool, /) -> None:
        """Delete a stopped cluster's files; `purge` includes what makes the next `up` faster."""
        ...

    def load_image(self, layout: Layout, record: Record, source: Path, /) -> list[str]:
        """Bring an image archive to the nodes; returns the names of images that were not there."""
        ...
