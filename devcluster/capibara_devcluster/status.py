"""What is known of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape

from capibara_devcluster.options import Profile, Provider


@dataclass(frozen=True, slots=True)
class Status:
    """What `status` shows.

    Args:
        ready: whether everything that the profile has is well.
        missing: what the cluster leaves out, in words.
        components: name -> ready.
    """

    name: str
    provider: Provider
    profile: Profile
    ready: bool
    kubeconfig: str
    missing: tuple[str, ...] = ()
    components: Mapping[str, bool] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    message: str = ""

    def dump(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "name": self.name,
            "provider": self.provider.value,
            "profile": self.profile.value,
            "ready": self.ready,
            "kubeconfig": self.kubeconfig,
            "missing": list(self.missing),
            "components": dict(self.components),
            "versions": dict(self.versions),
            "message": self.message,
        }


def show(status: Status) -> None:
    """Print a status for people."""
    console = Console()
    versions = ", ".join(f"{name} {version}" for name, version in status.versions.items())
    state = "[green]ready[/]" if status.ready else "[red]not ready[/]"
    console.print(f"cluster     {escape(status.name)}: {state}")
    console.print(f"provider    {status.provider} ({status.profile}) {escape(versions)}")
    console.print(f"kubeconfig  {escape(status.kubeconfig)}", soft_wrap=True)
    for name, ready in status.components.items():
        console.print(f"  {'[green]ok [/]' if ready else '[red]bad[/]'} {escape(name)}")
    for line in status.missing:
        console.print(f"  left out: {escape(line)}", soft_wrap=True)
    if status.message:
        console.print(escape(status.message), soft_wrap=True)
