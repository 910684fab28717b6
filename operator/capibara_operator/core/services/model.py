"""What the planning of services works on: the service, what is seen of it, and what to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import ValidationError

from capibara_operator.api.common import RESTARTED_AT_ANNOTATION
from capibara_operator.api.service import (
    CapibaraServiceSpec,
    CapibaraServiceStatus,
    EndpointStatus,
)

Object = dict[str, Any]
"""A Kubernetes object: decoded JSON."""


@dataclass(frozen=True, slots=True)
class Service:
    """A CapibaraService, read."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: CapibaraServiceSpec
    status: CapibaraServiceStatus
    restart_requested: str = ""

    @classmethod
    def parse(cls, obj: Object) -> Self:
        """Read an object; ``pydantic.ValidationError`` when its spec is not valid."""
        metadata = obj["metadata"]
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 1),
            spec=CapibaraServiceSpec.model_validate(obj.get("spec") or {}),
            status=parse_status(obj),
            restart_requested=(metadata.get("annotations") or {}).get(RESTARTED_AT_ANNOTATION, ""),
        )


def parse_status(obj: Object) -> CapibaraServiceStatus:
    """The status of an object; an empty one where it cannot be read."""
    try:
        return CapibaraServiceStatus.model_validate(obj.get("status") or {})
    except ValidationError:
        return CapibaraServiceStatus()


@dataclass(frozen=True, slots=True)
class Pod:
    """What matters of a pod. ``problem`` says what keeps it from working, else it is empty."""

    name: str
    ip: str
    ready: bool
    running: bool
    terminating: bool
    host_network: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """Remembers an apply of ours: what was sent, and the version that the answer had.

    ``version`` is the generation, or the resource version of a kind that counts no generations.
    """

    hash: str
    uid: str
    version: str

    @classmethod
    def of(cls, obj: Object, digest: str) -> Self:
        """The memory of an apply of what has the hash ``digest``, answered with ``obj``."""
        metadata = obj["metadata"]
        version = metadata.get("generation") or metadata.get("resourceVersion", "")
        return cls(hash=digest, uid=metadata.get("uid", ""), version=str(version))


@dataclass(frozen=True, slots=True)
class Unmet:
    """A dependency that is not ready: its name, why, and that in words."""

    name: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Dependencies:
    """How the dependencies of a service are. ``cycle`` is a path that ends where it begins."""

    unmet: tuple[Unmet, ...] = ()
    cycle: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen around a service: its children, pods, dependencies and endpoints."""

    deployment: Object | None = None
    service: Object | None = None
    pods: tuple[Pod, ...] = ()
    dependencies: Dependencies = Dependencies()
    endpoints: Mapping[str, EndpointStatus] = field(default_factory=dict)
    applied: Mapping[str, Applied] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApplyService:
    """Apply the Service."""

    manifest: Object


@dataclass(frozen=True, slots=True)
class ApplyDeployment:
    """Apply the Deployment; ``replicas`` counts only where it is created by that."""

    manifest: Object
    replicas: int


@dataclass(frozen=True, slots=True)
class ScaleDeployment:
    """Set the Deployment's number of pods through its scale subresource."""

    replicas: int


Action = ApplyService | ApplyDeployment | ScaleDeployment


@dataclass(frozen=True, slots=True)
class Note:
    """An Event to emit."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order, and the status that holds afterwards.

    ``requeue_after`` in seconds: when to look again although nothing changes.
    """

    actions: tuple[Action, ...]
    status: CapibaraServiceStatus
    notes: tuple[Note, ...] = ()
    requeue_after: float | None = None
