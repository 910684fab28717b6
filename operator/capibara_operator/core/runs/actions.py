"""What the plan of a run can ask for. Every action may be repeated without harm."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from capibara_operator.api.run import SandboxRunStatus


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Hold the run, before anything is created for it."""


@dataclass(frozen=True, slots=True)
class ReadInputs:
    """Read the ConfigMaps and Secrets that the run refers to."""


@dataclass(frozen=True, slots=True)
class ListSandboxes:
    """Ask the provider which sandboxes this run has there."""

    provider: str


@dataclass(frozen=True, slots=True)
class RequestSlot:
    """Ask for one of the sandboxes that the provider's limits allow."""

    provider: str


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    """Create the attempt's sandbox."""

    provider: str
    template_id: str
    metadata: Mapping[str, str]
    idempotency_key: str
    lifetime_seconds: int


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Store a status, only if the run is still as it was read: that makes a claim a lock.

    ``omissions`` say in words what of the output was left out.
    """

    status: SandboxRunStatus
    omissions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InspectSandbox:
    """Ask the provider how the claimed sandbox is."""

    provider: str
    sandbox_id: str


@dataclass(frozen=True, slots=True)
class CheckStarted:
    """Ask the sandbox whether a job holds its start lock."""

    provider: str
    sandbox_id: str


@dataclass(frozen=True, slots=True)
class ExtendSandbox:
    """Wake the sandbox if it is paused, and give it at least this long to live."""

    provider: str
    sandbox_id: str
    lifetime_seconds: int


@dataclass(frozen=True, slots=True)
class UploadJob:
    """Write the runner, the job and the user's files into the sandbox, in one request."""

    provider: str
    sandbox_id: str
    key: str
    deadline_seconds: int
    template_env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Follow:
    """Start the job or attach to it, and read its log, in a task of its own."""

    provider: str
    sandbox_id: str
    key: str


@dataclass(frozen=True, slots=True)
class WriteOutput:
    """Store the outputs that do not fit into the status."""

    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class KillSandbox:
    """Destroy a sandbox and have that confirmed."""

    provider: str
    sandbox_id: str


@dataclass(frozen=True, slots=True)
class Release:
    """Remove our finalizer and set labels, in one patch: the last write to the run.

    A ``warning`` is emitted as an Event: something may have been left behind.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    warning: str = ""


Action = (
    AddFinalizer
    | ReadInputs
    | ListSandboxes
    | RequestSlot
    | CreateSandbox
    | WriteStatus
    | InspectSandbox
    | CheckStarted
    | ExtendSandbox
    | UploadJob
    | Follow
    | WriteOutput
    | KillSandbox
    | Release
)
