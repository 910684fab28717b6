"""What a failed call to a provider means for a run."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from capibara_operator.api.run import RunReason
from capibara_operator.controllers.runs.gates import Gates
from capibara_operator.controllers.runs.track import Track
from capibara_operator.core.runs.actions import (
    Action,
    AddFinalizer,
    CreateSandbox,
    ExtendSandbox,
    Follow,
    ReadInputs,
    RequestSlot,
    UploadJob,
    WriteOutput,
    WriteStatus,
)
from capibara_operator.core.runs.seen import Trouble
from capibara_operator.core.runs.timing import Timing
from capibara_operator.ports.clock import Clock
from capibara_operator.ports.sandboxes import Fault, SandboxError

_FULL_SECONDS: Final = 5.0
# No answer of the provider comes with these: following goes on in a task of its own.
_LOCAL: Final = (AddFinalizer, Follow, ReadInputs, RequestSlot, WriteOutput, WriteStatus)


def note_success(action: Action, track: Track) -> None:
    """A call went through: the provider is well."""
    if not isinstance(action, _LOCAL):
        track.trouble = None


@dataclass(frozen=True, slots=True)
class Faults:
    """Turns failed calls into what the planner can use."""

    gates: Gates
    clock: Clock
    timing: Timing

    def note(self, action: Action, error: SandboxError, track: Track) -> Trouble | None:
        """Note in the track what the fault leads to; returns the trouble, if it is one."""
        if isinstance(action, CreateSandbox):
            match error.fault:
                case Fault.CAPACITY:
                    self.gates.shrink(track, error.retry_after or _FULL_SECONDS)
                    return None
                case Fault.THROTTLED:
                    self.gates.block(track, error.retry_after or _FULL_SECONDS)
                    return None
                case Fault.CONFLICT:
                    self._note_conflict(track)
                    return None
                case _:
                    pass
        if error.fault is Fault.NOT_FOUND and isinstance(action, UploadJob | ExtendSandbox):
            track.gone = True
            return None
        track.trouble = self._trouble(action, error, track)
        return track.trouble

    def _note_conflict(self, track: Track) -> None:
        if track.conflict_since is None:
            track.conflict_since = self.clock.now()
        else:
            # The grace is over and the sandbox never showed up: its key is given up.
            track.creations += 1
            track.conflict_since = None

    def _trouble(self, action: Action, error: SandboxError, track: Track) -> Trouble:
        now, previous = self.clock.now(), track.trouble
        failures = previous.failures + 1 if previous else 1
        pause = self.timing.backoff(failures)
        if error.retry_after is not None:
            pause = max(pause, timedelta(seconds=error.retry_after))
        reason, message, final = _judge(action, error)
        return Trouble(
            reason=reason,
            message=message,
            failures=failures,
            since=previous.since if previous else now,
            retry_at=now + pause,
            final=final,
        )


def _judge(action: Action, error: SandboxError) -> tuple[RunReason, str, bool]:
    provider = getattr(action, "provider", "")
    said = error.message.rstrip(".")
    match error.fault:
        case Fault.UNAUTHENTICATED:
            message = (
                f"SandboxProvider {provider} refuses its API key: {said}. "
                "Put a valid key into the Secret that its credentialsSecretRef names."
            )
            return RunReason.AUTHENTICATION_FAILED, message, True
        case Fault.NOT_FOUND if isinstance(action, CreateSandbox):
            message = (
                f"SandboxProvider {provider} has no template {action.template_id}: {said}. "
                "Correct spec.templateID of the SandboxTemplate, or build the template there."
            )
            return RunReason.TEMPLATE_NOT_FOUND, message, True
        case Fault.INVALID if isinstance(action, CreateSandbox | UploadJob):
            message = f"SandboxProvider {provider} refuses the request: {said}."
            return RunReason.INVALID_SPEC, message, True
        case _:
            message = f"SandboxProvider {provider} cannot be reached: {said}."
            return RunReason.PROVIDER_UNREACHABLE, message, False
