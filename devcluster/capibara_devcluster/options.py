"""What the user asks `up` for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Provider(StrEnum):
    """How the cluster is made."""

    AUTO = "auto"
    KIND = "kind"
    NATIVE = "native"
    LIGHT = "light"
    CURRENT = "current"


class Profile(StrEnum):
    """How much of a cluster is run."""

    FULL = "full"
    CONTROL_PLANE = "control-plane"


@dataclass(frozen=True, slots=True)
class Options:
    """The choices that make up a cluster; another choice needs another cluster.

    Args:
        kwok_nodes: number of simulated nodes (control-plane profile).
        audit: whether the API server logs every request.
    """

    kwok_nodes: int = 0
    audit: bool = False
