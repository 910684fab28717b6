"""A SandboxRun as the planner reads it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from capibara_operator.api.common import CLOSED_LABEL, FINALIZER, SandboxMetadata
from capibara_operator.api.run import SandboxRunSpec, SandboxRunStatus


@dataclass(frozen=True, slots=True)
class Run:
    """One SandboxRun. ``spec`` is None where ``invalid`` says why it cannot be read.

    ``held`` is whether our finalizer is on it; ``stored`` is its status as the API server has it.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    created_at: datetime
    deleting_since: datetime | None
    held: bool
    closed: bool
    spec: SandboxRunSpec | None
    invalid: str
    status: SandboxRunStatus
    stored: dict[str, Any] = field(default_factory=dict)

    @property
    def attempt(self) -> int:
        """Number of the attempt that is under way or next, from 1."""
        return self.status.attempt or 1

    @property
    def finished(self) -> bool:
        """Whether its result is stored."""
        return self.status.completion_time is not None

    @property
    def job_key(self) -> str:
        """What names the attempt at the runner and, as idempotency key, at the provider."""
        return f"{self.uid}-{self.attempt}"

    def metadata(self, operator: str, cluster: str) -> dict[str, str]:
        """The metadata that the attempt's sandbox carries at its provider."""
        return {
            SandboxMetadata.OPERATOR: operator,
            SandboxMetadata.CLUSTER: cluster,
            SandboxMetadata.NAMESPACE: self.namespace,
            SandboxMetadata.NAME: self.name,
            SandboxMetadata.UID: self.uid,
            SandboxMetadata.ATTEMPT: str(self.attempt),
        }


def parse_run(obj: dict[str, Any]) -> Run:
    """Read a SandboxRun as the API server sends it."""
    metadata = obj["metadata"]
    spec, invalid = _parse_spec(obj.get("spec") or {})
    stored = obj.get("status") or {}
    deleted = metadata.get("deletionTimestamp")
    return Run(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        resource_version=metadata["resourceVersion"],
        created_at=datetime.fromisoformat(metadata["creationTimestamp"]),
        deleting_since=datetime.fromisoformat(deleted) if deleted else None,
        held=FINALIZER in metadata.get("finalizers", ()),
        closed=CLOSED_LABEL in metadata.get("labels", {}),
        spec=spec,
        invalid=invalid,
        status=SandboxRunStatus.model_validate(stored),
        stored=stored,
    )


def _parse_spec(spec: dict[str, Any]) -> tuple[SandboxRunSpec | None, str]:
    try:
        parsed = SandboxRunSpec.model_validate(spec)
    except ValidationError as error:
        # Never the input itself: it may hold what should not be shown.
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return None, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    if (parsed.code is None) == (not parsed.command):
        return None, "exactly one of code and command must be given"
    return parsed, ""
