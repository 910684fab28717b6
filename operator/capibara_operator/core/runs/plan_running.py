"""From a claimed sandbox to a stored result."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from capibara_operator.api.run import MAX_ATTEMPTS, RunReason
from capibara_operator.core.runs.actions import (
    CheckStarted,
    ExtendSandbox,
    Follow,
    InspectSandbox,
    KillSandbox,
    ReadInputs,
    UploadJob,
    WriteStatus,
)
from capibara_operator.core.runs.seen import (
    ChosenTemplate,
    Following,
    Refused,
    Sandbox,
    Started,
    StreamEnd,
)
from capibara_operator.core.runs.status import retried, running
from capibara_operator.core.runs.step import (
    Case,
    Plan,
    deadline_seconds,
    fail,
    finish,
    lifetime_seconds,
    pause,
)
from capibara_operator.core.runs.verdict import cancelled, deadline_exceeded, lost, verdict

_PROVIDER_POLL: Final = timedelta(seconds=5)


def plan_running(case: Case) -> Plan:
    """The next step of a run that owns a sandbox."""
    for step in (_ended, _out_of_reach):
        planned = step(case)
        if planned is not None:
            return planned
    if isinstance(case.seen.provider, Refused):
        return _rest(case, case.now + _PROVIDER_POLL)
    for move in _STEPS:
        planned = move(case, case.seen.provider.name)
        if planned is not None:
            return planned
    return _rest(case, _overdue_at(case))


def _ended(case: Case) -> Plan | None:
    """Whether the run is at its end, by its log, its user, its sandbox or its deadline."""
    run, seen = case.run, case.seen
    deadline = deadline_seconds(case)
    if seen.transcript.exit is not None:
        return finish(
            case, verdict(seen.transcript, seen.transcript.exit, deadline_seconds=deadline)
        )
    if run.spec is not None and run.spec.cancel:
        return finish(case, cancelled())
    if seen.gone:
        return _gone(case)
    if case.now >= _overdue_at(case):
        return finish(case, deadline_exceeded(deadline))
    return None


def _out_of_reach(case: Case) -> Plan | None:
    """A claimed sandbox may be working: nothing but the deadline ends the wait for it."""
    trouble = case.seen.trouble
    if trouble is None or (trouble.retry_at <= case.now and not trouble.final):
        return None
    if trouble.final and case.seen.started is Started.NO:
        return fail(case, trouble.reason, trouble.message)
    if trouble.retry_at <= case.now:
        return None
    return _rest(case, trouble.retry_at)


def _judge_stream_end(case: Case, provider: str) -> Plan | None:
    following = case.seen.following
    if following is None or following.end is None:
        return None
    match following.end:
        case StreamEnd.GONE:
            return Plan((InspectSandbox(provider, _claimed(case)),))
        case StreamEnd.LOCKED:
            return finish(case, lost("another job took the sandbox"))
        case StreamEnd.GARBLED:
            return finish(case, lost(following.detail))
        case StreamEnd.BROKEN:
            return _broken(case, following)


def _kill_losers(case: Case, provider: str) -> Plan | None:
    """Only the claim decides which of several sandboxes lives."""
    losers = [
        each.sandbox_id
        for each in case.seen.sandboxes or ()
        if each.sandbox_id != _claimed(case) and each.sandbox_id not in case.seen.killed
    ]
    return Plan(tuple(KillSandbox(provider, each) for each in losers)) if losers else None


def _find_out(case: Case, provider: str) -> Plan | None:
    """After a restart: is the sandbox there, for long enough, and was the code started?"""
    seen = case.seen
    if seen.inspected is None and seen.started is Started.UNKNOWN:
        return Plan((InspectSandbox(provider, _claimed(case)),))
    if seen.inspected is not None and _is_short(case, seen.inspected):
        return Plan((ExtendSandbox(provider, _claimed(case), lifetime_seconds(case)),))
    if seen.started is Started.UNKNOWN:
        return Plan((CheckStarted(provider, _claimed(case)),))
    return None


def _upload(case: Case, provider: str) -> Plan | None:
    seen = case.seen
    if seen.started is not Started.NO:
        return None
    if seen.inputs is None:
        return Plan((ReadInputs(),))
    if isinstance(seen.inputs, Refused):
        return fail(case, seen.inputs.reason, seen.inputs.message)
    env = seen.template.env if isinstance(seen.template, ChosenTemplate) else {}
    key, deadline = case.run.job_key, deadline_seconds(case)
    return Plan((UploadJob(provider, _claimed(case), key, deadline, env),))


def _follow(case: Case, provider: str) -> Plan | None:
    if case.seen.following is not None:
        return None
    return Plan((Follow(provider, _claimed(case), case.run.job_key),))


_STEPS: Final[tuple[Callable[[Case, str], Plan | None], ...]] = (
    _judge_stream_end,
    _kill_losers,
    _find_out,
    _upload,
    _follow,
)


def _is_short(case: Case, sandbox: Sandbox) -> bool:
    if not sandbox.running:
        return True
    began = case.run.status.start_time
    if sandbox.end_at is None or began is None:
        return False
    # A provider rounds and clocks differ: only a clear shortage counts.
    return sandbox.end_at < began + timedelta(seconds=lifetime_seconds(case) * 0.8)


def _overdue_at(case: Case) -> datetime:
    """When the operator itself ends a run; a log that was out of reach gets its own grace."""
    grace = timedelta(seconds=case.timing.collect_grace)
    seen = case.seen
    began = case.run.status.start_time or seen.since
    reading_since = seen.following.since if seen.following else seen.since
    return max(began + timedelta(seconds=deadline_seconds(case)) + grace, reading_since + grace)


def _gone(case: Case) -> Plan:
    run, seen = case.run, case.seen
    free = seen.started is Started.NO and run.attempt < MAX_ATTEMPTS
    if free and case.now < seen.since + timedelta(seconds=case.timing.start_deadline):
        message = (
            f"Sandbox {_claimed(case)} vanished before the code was started. "
            "The operator creates another one."
        )
        reason = RunReason.SANDBOX_LOST
        return Plan((WriteStatus(retried(run, reason=reason, message=message, now=case.now)),))
    return finish(case, lost(f"sandbox {_claimed(case)} vanished at its provider"))


def _broken(case: Case, following: Following) -> Plan:
    if case.seen.transcript.started is not None:
        return finish(case, lost(f"the job's log cannot be read any more: {following.detail}"))
    message = (
        f"The code could not be started in the sandbox: {following.detail}. "
        "A template needs python3 on its PATH."
    )
    return fail(case, RunReason.TEMPLATE_NOT_READY, message)


def _rest(case: Case, until: datetime) -> Plan:
    soonest = case.now + timedelta(seconds=1)
    return pause(case, max(soonest, min(until, _overdue_at(case))), running(case.run, case.now))


def _claimed(case: Case) -> str:
    return case.run.status.sandbox_id or ""
