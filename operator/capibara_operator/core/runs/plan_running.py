"""From a claimed sandbox to a stored result."""

from datetime import datetime, timedelta

from capibara_operator.api.run import MAX_ATTEMPTS, RunReason
from capibara_operator.core.runs.actions import (
    Action,
    CheckStarted,
    ExtendSandbox,
    Follow,
    InspectSandbox,
    KillSandbox,
    ReadInputs,
    UploadJob,
    WriteStatus,
)
from capibara_operator.core.runs.record import Run
from capibara_operator.core.runs.seen import (
    ChosenTemplate,
    Following,
    Refused,
    Sandbox,
    Seen,
    Started,
    StreamEnd,
    Trouble,
)
from capibara_operator.core.runs.status import retried, running
from capibara_operator.core.runs.step import Plan, deadline_seconds, fail, finish, pause
from capibara_operator.core.runs.timing import Timing
from capibara_operator.core.runs.verdict import cancelled, deadline_exceeded, lost, verdict


def plan_running(run: Run, seen: Seen, now: datetime, timing: Timing) -> Plan:
    """The next step of a run that owns a sandbox."""
    deadline = deadline_seconds(run, seen)
    if seen.transcript.exit is not None:
        judged = verdict(seen.transcript, seen.transcript.exit, deadline_seconds=deadline)
        return finish(run, seen, judged, now)
    if run.spec is not None and run.spec.cancel:
        return finish(run, seen, cancelled(), now)
    if seen.gone:
        return _gone(run, seen, now, timing)
    overdue_at = _overdue_at(run, seen, deadline, timing)
    if now >= overdue_at:
        return finish(run, seen, deadline_exceeded(deadline), now)
    trouble = seen.trouble
    if trouble is not None and (trouble.final or trouble.retry_at > now):
        return _troubled(run, seen, trouble, now, overdue_at)
    if isinstance(seen.provider, Refused):
        return pause(now, min(overdue_at, now + timedelta(seconds=5)), running(run, now))
    if seen.following is not None and seen.following.end is not None:
        return _stream_ended(run, seen, seen.following, seen.provider.name, now)
    actions = _next_actions(run, seen, seen.provider.name, deadline, now, timing)
    if isinstance(actions, Refused):
        return fail(run, seen, actions.reason, actions.message, now)
    if actions:
        return Plan(actions)
    return pause(now, overdue_at, running(run, now))


def _next_actions(  # noqa: PLR0911 - one return for each step of the sequence
    run: Run, seen: Seen, provider: str, deadline: int, now: datetime, timing: Timing
) -> tuple[Action, ...] | Refused:
    mine = run.status.sandbox_id or ""
    losers = [
        each.sandbox_id
        for each in seen.sandboxes or ()
        if each.sandbox_id != mine and each.sandbox_id not in seen.killed
    ]
    if losers:
        return tuple(KillSandbox(provider, each) for each in losers)
    if seen.inspected is None and seen.started is Started.UNKNOWN:
        return (InspectSandbox(provider, mine),)
    needed = deadline + 2 * int(timing.collect_grace)
    if seen.inspected is not None and _too_short(run, seen.inspected, needed):
        return (ExtendSandbox(provider, mine, needed),)
    if seen.started is Started.UNKNOWN:
        return (CheckStarted(provider, mine, run.job_key),)
    if seen.started is Started.NO:
        if seen.inputs is None:
            return (ReadInputs(),)
        if isinstance(seen.inputs, Refused):
            return seen.inputs
        env = seen.template.env if isinstance(seen.template, ChosenTemplate) else {}
        return (UploadJob(provider, mine, run.job_key, deadline, env),)
    if seen.following is None:
        return (Follow(provider, mine, run.job_key),)
    return ()


def _too_short(run: Run, sandbox: Sandbox, needed: int) -> bool:
    if not sandbox.running:
        return True
    if sandbox.end_at is None or run.status.start_time is None:
        return False
    # A provider rounds and clocks differ: only a clear shortage counts.
    return sandbox.end_at < run.status.start_time + timedelta(seconds=needed * 0.8)


def _overdue_at(run: Run, seen: Seen, deadline: int, timing: Timing) -> datetime:
    """When the operator itself ends a run; a log that was out of reach gets its own grace."""
    grace = timedelta(seconds=timing.collect_grace)
    began = run.status.start_time or seen.since
    reading_since = seen.following.since if seen.following else seen.since
    return max(began + timedelta(seconds=deadline) + grace, reading_since + grace)


def _gone(run: Run, seen: Seen, now: datetime, timing: Timing) -> Plan:
    free = seen.started is Started.NO and run.attempt < MAX_ATTEMPTS
    if free and now < seen.since + timedelta(seconds=timing.start_deadline):
        message = (
            f"Sandbox {run.status.sandbox_id} vanished before the code was started. "
            "The operator creates another one."
        )
        status = retried(run, reason=RunReason.SANDBOX_LOST, message=message, now=now)
        return Plan((WriteStatus(status),))
    why = f"sandbox {run.status.sandbox_id} vanished at its provider"
    return finish(run, seen, lost(why), now)


def _troubled(run: Run, seen: Seen, trouble: Trouble, now: datetime, overdue_at: datetime) -> Plan:
    """A claimed sandbox may be working: nothing but the deadline ends the wait for it."""
    if trouble.final and seen.started is Started.NO:
        return fail(run, seen, trouble.reason, trouble.message, now)
    until = max(trouble.retry_at, now + timedelta(seconds=1))
    return pause(now, min(overdue_at, until), running(run, now))


def _stream_ended(run: Run, seen: Seen, following: Following, provider: str, now: datetime) -> Plan:
    match following.end:
        case StreamEnd.GONE | None:
            return Plan((InspectSandbox(provider, run.status.sandbox_id or ""),))
        case StreamEnd.LOCKED:
            return finish(run, seen, lost("another job took the sandbox"), now)
        case StreamEnd.GARBLED:
            return finish(run, seen, lost(following.detail), now)
        case StreamEnd.BROKEN:
            message = (
                f"The code could not be started in the sandbox: {following.detail}. "
                "A template needs python3 on its PATH."
            )
            return fail(run, seen, RunReason.TEMPLATE_NOT_READY, message, now)
