"""Free ports on loopback and free subnets for the links of cluster namespaces."""

from __future__ import annotations

import contextlib
import ipaddress
import random
import socket
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from typing import Final, Self

from capibara_devcluster.errors import DevclusterError

LOOPBACK: Final = "127.0.0.1"
# Below Linux's default range for outgoing connections, which could take a port before we listen.
_PORTS: Final = range(20_000, 32_000)
_ATTEMPTS: Final = 500
_PORT_COUNT: Final = 6


@dataclass(frozen=True, slots=True)
class Ports:
    """The loopback ports of a control plane."""

    apiserver: int
    etcd: int
    etcd_peer: int
    controller_manager: int
    scheduler: int
    kwok: int

    def dump(self) -> dict[str, int]:
        """A JSON object."""
        return asdict(self)

    @classmethod
    def load(cls, stored: dict[str, int] | None) -> Self | None:
        """The inverse of `dump`; None when nothing, or another set of ports, was stored."""
        known = {field.name for field in fields(cls)}
        return None if stored is None or set(stored) != known else cls(**stored)

    def all_free(self) -> bool:
        """Whether nobody listens on any of them."""
        return all(port_is_free(port) for port in self.dump().values())


def pick_ports() -> Ports:
    """Six distinct ports that nobody listens on now."""
    chosen: list[int] = []
    # Not for secrets: two clusters that start together should not try the same ports.
    for port in random.sample(_PORTS, _ATTEMPTS):
        if port_is_free(port):
            chosen.append(port)
        if len(chosen) == _PORT_COUNT:
            return Ports(*chosen)
    raise DevclusterError(
        f"no free port found on {LOOPBACK} between {_PORTS.start} and {_PORTS.stop}",
        hint="end some of the programs that listen there",
    )


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Link:
    """A point-to-point link between the host and a cluster's namespace."""

    network: ipaddress.IPv4Network

    @property
    def host(self) -> str:
        """The host's end."""
        return str(self.network[1])

    @property
    def node(self) -> str:
        """The node's end: the node's address."""
        return str(self.network[2])

    @property
    def prefix(self) -> int:
        """Length of the network's prefix."""
        return self.network.prefixlen


def pick_link(pool: str, used: Collection[ipaddress.IPv4Network]) -> Link:
    """The first /30 of `pool` that overlaps no network in use."""
    for network in ipaddress.IPv4Network(pool).subnets(new_prefix=30):
        if not any(network.overlaps(other) for other in used):
            return Link(network)
    raise DevclusterError(
        f"every /30 of {pool} overlaps a route of this machine",
        hint="bring another cluster down (capibara-devcluster down --name NAME)",
    )
