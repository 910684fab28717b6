"""What `up` stores about a cluster so that any later command can find, judge and repair it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from capibara_devcluster import files
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.layout import Layout
from capibara_devcluster.network import Ports
from capibara_devcluster.options import Options, Profile, Provider
from capibara_devcluster.process import Identity


@dataclass(frozen=True, slots=True)
class Record:
    """A cluster that was brought up, or was being brought up.

    Args:
        supervisor: the process that everything of the cluster ends with.
        complete: whether `up` reached its end.
        ports: loopback ports of the control plane.
        link: network between host and node as a CIDR; empty without a node.
    """

    provider: Provider
    profile: Profile
    options: Options
    ports: Ports | None = None
    link: str = ""
    supervisor: Identity | None = None
    complete: bool = False

    def store(self, layout: Layout) -> None:
        """Write the record; whole or not at all."""
        files.write_json(
            layout.record,
            {
                "name": layout.name,
                "provider": self.provider.value,
                "profile": self.profile.value,
                "options": {"kwokNodes": self.options.kwok_nodes, "audit": self.options.audit},
                "ports": None if self.ports is None else self.ports.dump(),
                "link": self.link,
                "supervisor": self.supervisor.dump() if self.supervisor else None,
                "complete": self.complete,
            },
        )

    @classmethod
    def load(cls, layout: Layout) -> Self | None:
        """The stored record; None when the cluster was never brought up here."""
        stored: dict[str, Any] | None = files.read_json(layout.record)
        if stored is None:
            return None
        try:
            return cls._from_json(stored)
        except (KeyError, TypeError, ValueError) as error:
            raise DevclusterError(
                f"{layout.record} was written by another version",
                hint=f"end the process that it names as supervisor, then delete {layout.root}",
            ) from error

    @classmethod
    def _from_json(cls, stored: dict[str, Any]) -> Self:
        options = stored["options"]
        return cls(
            provider=Provider(stored["provider"]),
            profile=Profile(stored["profile"]),
            options=Options(kwok_nodes=options["kwokNodes"], audit=options["audit"]),
            ports=Ports.load(stored["ports"]),
            link=stored["link"],
            supervisor=Identity.load(stored["supervisor"]),
            complete=stored["complete"],
        )

    def with_supervisor(self, supervisor: Identity | None) -> Self:
        """The same cluster run by another supervisor; no longer complete."""
        return replace(self, supervisor=supervisor, complete=False)

    def completed(self) -> Self:
        """The same cluster after `up` reached its end."""
        return replace(self, complete=True)

    def same_choice(self, other: Record) -> bool:
        """Whether the user asked for the same cluster."""
        mine = (self.provider, self.profile, self.options)
        return mine == (other.provider, other.profile, other.options)
