"""What the operator needs of a Kubernetes API server, as a Protocol of small verbs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

Manifest = dict[str, Any]
"""A Kubernetes object as the API server sends it: decoded JSON."""


class Key(NamedTuple):
    """Names one object of a kind; ``namespace`` is empty for cluster-scoped kinds."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the API: where its objects live.

    ``group`` is empty for the core group; ``plural`` is the last part of the URL.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``group/version``, or ``version`` alone for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(slots=True)
class KubeError(Exception):
    """The API server refused a request, or could not be reached (``status`` 0).

    ``retry_after`` is in seconds where the server named one.
    """

    status: int
    reason: str
    message: str
    retry_after: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.reason}: {self.message}"

    @property
    def conflict(self) -> bool:
        """The object changed since it was read (409 Conflict), as opposed to AlreadyExists."""
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def transient(self) -> bool:
        """Worth the same request again later."""
        return self.status in {0, 429} or self.status >= 500


class KubeAPI(Protocol):
    """Requests to the API server. Every call has a deadline and raises ``KubeError``."""

    async def get(self, resource: Resource, key: Key) -> Manifest | None:
        """Read one object from etcd (a quorum read); None when there is none."""
        ...

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> Sequence[Manifest]:
        """List objects, all pages; with ``metadata_only`` as PartialObjectMetadata."""
        ...

    async def create(self, resource: Resource, obj: Manifest) -> Manifest:
        """POST a new object; ``metadata.namespace`` says where."""
        ...

    async def apply(self, resource: Resource, obj: Manifest) -> Manifest:
        """Server-side apply with our field manager, forced."""
        ...

    async def patch(
        self, resource: Resource, key: Key, body: Mapping[str, Any], *, subresource: str = ""
    ) -> Manifest | None:
        """JSON merge patch; None when the object is gone (404).

        A ``metadata.resourceVersion`` in ``body`` makes it conditional: ``KubeError`` with
        ``conflict`` when the object has changed.
        """
        ...

    async def delete(self, resource: Resource, key: Key, *, uid: str = "") -> bool:
        """Delete in the background; False when it was gone. ``uid`` is a precondition."""
        ...


class Recorder(Protocol):
    """Emits Kubernetes Events."""

    def event(self, obj: Manifest, *, warning: bool, reason: str, message: str) -> None:
        """Emit one Event about ``obj`` in the background; never raises, never blocks.

        ``reason`` is CamelCase, at most 128 characters; ``message`` is cut to 1,024.
        """
        ...
