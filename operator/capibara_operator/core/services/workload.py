"""How far a Deployment is."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from capibara_operator.core.services.model import Object

_REVISION_ANNOTATION: Final = "deployment.kubernetes.io/revision"
_ROLLED_OUT: Final = "NewReplicaSetAvailable"
_DEADLINE_EXCEEDED: Final = "ProgressDeadlineExceeded"


@dataclass(frozen=True, slots=True)
class Workload:
    """The state of a Deployment; ``current`` when its status is about its present spec.

    ``wanted`` is what its spec asks for; ``progressed_at`` when a roll-out last got on; ``failure``
    why no pods can be created.
    """

    exists: bool = False
    current: bool = False
    wanted: int = 0
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    enough_available: bool = False
    rolled_out: bool = False
    deadline_exceeded: bool = False
    progressed_at: datetime | None = None
    failure: str = ""
    revision: str = ""

    @property
    def running(self) -> bool:
        """Whether it is asked to have pods at all."""
        return self.exists and self.wanted > 0

    @property
    def rolling(self) -> bool:
        """Whether a roll-out is under way: pods of the present revision replace others."""
        return not (
            self.current
            and self.rolled_out
            and self.updated >= self.wanted
            and self.replicas <= self.updated
        )

    @property
    def complete(self) -> bool:
        """Whether all pods are there, of the present revision, and available."""
        return not self.rolling and self.available >= self.wanted


def parse_workload(deployment: Object | None) -> Workload:
    """Read a Deployment, or the absence of one."""
    if deployment is None:
        return Workload()
    metadata, status = deployment["metadata"], deployment.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    progressing = conditions.get("Progressing", {})
    failure = conditions.get("ReplicaFailure", {})
    return Workload(
        exists=True,
        current=status.get("observedGeneration", 0) >= metadata.get("generation", 1),
        wanted=(deployment.get("spec") or {}).get("replicas", 1),
        replicas=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
        enough_available=conditions.get("Available", {}).get("status") == "True",
        rolled_out=progressing.get("reason") == _ROLLED_OUT,
        deadline_exceeded=progressing.get("reason") == _DEADLINE_EXCEEDED,
        progressed_at=_time(progressing.get("lastUpdateTime")),
        failure=failure.get("message", "") if failure.get("status") == "True" else "",
        revision=(metadata.get("annotations") or {}).get(_REVISION_ANNOTATION, ""),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
