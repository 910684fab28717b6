"""A plan, and the steps that every part of planning shares."""

from dataclasses import dataclass
from datetime import datetime

from capibara_operator.api.run import RunReason, SandboxRunStatus
from capibara_operator.core.runs.actions import Action, WriteOutput, WriteStatus
from capibara_operator.core.runs.outputs import output_manifest
from capibara_operator.core.runs.record import Run
from capibara_operator.core.runs.seen import ChosenTemplate, Seen
from capibara_operator.core.runs.status import finished
from capibara_operator.core.runs.verdict import Verdict

_FALLBACK_DEADLINE_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions to take, in order, before planning anew.

    Without actions: the status to show now, and in how many seconds to look again (None: when
    something changes).
    """

    actions: tuple[Action, ...] = ()
    status: SandboxRunStatus | None = None
    requeue_after: float | None = None


def pause(now: datetime, until: datetime, status: SandboxRunStatus | None = None) -> Plan:
    """Show this status and look again at that time."""
    return Plan(status=status, requeue_after=max(0.0, (until - now).total_seconds()))


def finish(run: Run, seen: Seen, verdict: Verdict, now: datetime) -> Plan:
    """Store the outputs, then the result."""
    if seen.transcript.rich and seen.output is None:
        return Plan((WriteOutput(output_manifest(run, seen.transcript)),))
    omissions = tuple(seen.transcript.notes)
    for name, stream in (("stdout", seen.transcript.stdout), ("stderr", seen.transcript.stderr)):
        if stream.size > stream.kept:
            omissions += (f"{stream.size - stream.kept} bytes of {name} were not kept",)
    if seen.output_problem:
        omissions += (seen.output_problem,)
    return Plan((WriteStatus(finished(run, seen, verdict, now), omissions=omissions),))


def fail(run: Run, seen: Seen, reason: RunReason, message: str, now: datetime) -> Plan:
    """End the run for a reason that is not its code's."""
    return finish(run, seen, Verdict(reason, message), now)


def deadline_seconds(run: Run, seen: Seen) -> int:
    """How long the code may run: as the run says, else as its template says."""
    if run.spec is not None and run.spec.active_deadline_seconds is not None:
        return run.spec.active_deadline_seconds
    if isinstance(seen.template, ChosenTemplate):
        return seen.template.timeout_seconds
    return _FALLBACK_DEADLINE_SECONDS
