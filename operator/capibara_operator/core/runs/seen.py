"""What the operator knows about a run beside the object itself: the planner's other input."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from capibara_operator.api.provider import SandboxProviderSpec
from capibara_operator.api.run import Detection, RunReason, TemplatePin
from capibara_operator.core.runs.transcript import Transcript


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that the run needs is not to be had. ``waits``: it may still come."""

    reason: RunReason
    message: str
    waits: bool = False


@dataclass(frozen=True, slots=True)
class ChosenTemplate:
    """The template that the run gets."""

    pin: TemplatePin
    env: Mapping[str, str] = field(default_factory=dict)
    detection: Detection | None = None


@dataclass(frozen=True, slots=True)
class ChosenProvider:
    """The provider that the run goes to."""

    name: str
    spec: SandboxProviderSpec


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox of the run at its provider; ``memory_mib`` and ``cpus`` may be 0: unknown."""

    sandbox_id: str
    running: bool = True
    attempt: int = 1
    started_at: datetime | None = None
    end_at: datetime | None = None
    cpus: int = 0
    memory_mib: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """Whether the run may have a sandbox now. ``retry_at`` is None where a release wakes it."""

    granted: bool
    since: datetime
    reason: str = ""
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """The last call failed, ``failures`` times in a row; ``final``: it would always fail."""

    reason: RunReason
    message: str
    failures: int
    since: datetime
    retry_at: datetime
    final: bool = False


class StreamEnd(StrEnum):
    """Why following the log ended without the job's exit."""

    GONE = "Gone"  # the provider does not know the sandbox, or not any more
    LOCKED = "Locked"  # another job took this sandbox
    BROKEN = "Broken"  # the runner could not be started
    GARBLED = "Garbled"  # what came is not a job's log


@dataclass(frozen=True, slots=True)
class Following:
    """The task that reads the log. ``end`` is None while it reads or reconnects."""

    since: datetime
    end: StreamEnd | None = None
    detail: str = ""


class Started(StrEnum):
    """What is known about the code having been started."""

    NO = "No"  # certainly not: nothing was uploaded
    UPLOADED = "Uploaded"  # the job is there; it may have been started
    UNKNOWN = "Unknown"  # an earlier process of the operator claimed the sandbox


@dataclass(frozen=True, slots=True)
class Stages:
    """Milliseconds, None where unknown."""

    queued: int | None = None
    create: int | None = None
    upload: int | None = None

    def with_queued(self, milliseconds: int) -> "Stages":
        """The same, with the time in the queue."""
        return replace(self, queued=milliseconds)


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is known; None means not looked at yet.

    Attributes:
        since: When this process began to work on the run.
        sandboxes: Every sandbox at the provider that carries the run's uid.
        gone: The claimed sandbox is not there any more; its provider said so.
        killed: Sandboxes whose end the provider confirmed.
        conflict_since: Since when the provider refuses the idempotency key as in use.
        creations: How many idempotency keys were given up, their sandbox never having shown up.
        output: Name of the stored output object; empty when it could not be stored.
    """

    since: datetime
    template: ChosenTemplate | Refused
    provider: ChosenProvider | Refused
    sandboxes: tuple[Sandbox, ...] | None = None
    inputs: Refused | bool | None = None
    slot: Slot | None = None
    started: Started = Started.UNKNOWN
    inspected: Sandbox | None = None
    gone: bool = False
    killed: frozenset[str] = frozenset()
    following: Following | None = None
    transcript: Transcript = field(default_factory=Transcript)
    exit_at: datetime | None = None
    output: str | None = None
    output_problem: str = ""
    stages: Stages = Stages()
    trouble: Trouble | None = None
    conflict_since: datetime | None = None
    creations: int = 0
    operator: str = ""
    cluster: str = ""
