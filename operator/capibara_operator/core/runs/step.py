"""A plan, and the steps that every part of planning shares."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from capibara_operator.api.run import RunReason, SandboxRunStatus
from capibara_operator.core.runs.actions import Action, WriteOutput, WriteStatus
from capibara_operator.core.runs.outputs import output_manifest
from capibara_operator.core.runs.record import Run
from capibara_operator.core.runs.seen import ChosenTemplate, Seen
from capibara_operator.core.runs.status import finished
from capibara_operator.core.runs.timing import Timing
from capibara_operator.core.runs.verdict import Verdict

_NO_DEADLINE: Final = 3600


@dataclass(frozen=True, slots=True)
class Case:
    """What is planned for: a run, what is known of it, the time, and how patient to be."""

    run: Run
    seen: Seen
    now: datetime
    timing: Timing


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions to take, in order, before planning anew.

    Without actions: the status to show now, and in how many seconds to look again (None: when
    something changes).
    """

    actions: tuple[Action, ...] = ()
    status: SandboxRunStatus | None = None
    requeue_after: float | None = None


def pause(case: Case, until: datetime, status: SandboxRunStatus | None = None) -> Plan:
    """Show this status and look again at that time."""
    return Plan(status=status, requeue_after=max(0.0, (until - case.now).total_seconds()))


def finish(case: Case, verdict: Verdict) -> Plan:
    """Store the outputs, then the result."""
    seen = case.seen
    if seen.transcript.rich and seen.output is None:
        return Plan((WriteOutput(output_manifest(case.run, seen.transcript)),))
    omissions = tuple(seen.transcript.notes)
    for name, stream in (("stdout", seen.transcript.stdout), ("stderr", seen.transcript.stderr)):
        if stream.size > stream.kept:
            omissions += (f"{stream.size - stream.kept} bytes of {name} were not kept",)
    if seen.output_problem:
        omissions += (seen.output_problem,)
    status = finished(case.run, seen, verdict, case.now)
    return Plan((WriteStatus(status, omissions=omissions),))


def fail(case: Case, reason: RunReason, message: str) -> Plan:
    """End the run for a reason that is not its code's."""
    return finish(case, Verdict(reason, message))


def deadline_seconds(case: Case) -> int:
    """How long the code may run: as the run says, else as its template said at the claim."""
    run, template = case.run, case.seen.template
    if run.spec is not None and run.spec.active_deadline_seconds is not None:
        return run.spec.active_deadline_seconds
    pin = run.status.template if run.status.sandbox_id is not None else None
    if pin is None and isinstance(template, ChosenTemplate):
        pin = template.pin
    return (pin.timeout_seconds if pin is not None else 0) or _NO_DEADLINE


def lifetime_seconds(case: Case) -> int:
    """How long the sandbox must live: starting and collecting each get their grace."""
    return deadline_seconds(case) + 2 * int(case.timing.collect_grace)
