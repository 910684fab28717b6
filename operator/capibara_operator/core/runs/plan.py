"""What to do next for a run: a pure function of the run, what is known of it, and the time.

The order that keeps it safe: hold the run (finalizer), create, claim (conditional status write),
upload, start (the runner's lock); and at the end: store the result, destroy the sandbox and have
that confirmed, release the run.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from capibara_operator.api.common import CLOSED_LABEL, EXPIRES_AT_LABEL
from capibara_operator.core.runs.actions import KillSandbox, ListSandboxes, Release
from capibara_operator.core.runs.plan_running import plan_running
from capibara_operator.core.runs.plan_start import plan_start
from capibara_operator.core.runs.record import Run
from capibara_operator.core.runs.seen import Refused, Seen
from capibara_operator.core.runs.step import Case, Plan, pause
from capibara_operator.core.runs.timing import Timing

__all__ = ["Plan", "plan"]

_CLOSED: Final = "true"


def plan(run: Run, seen: Seen, now: datetime, timing: Timing) -> Plan:
    """The next actions, or the status to show and when to look again."""
    case = Case(run, seen, now, timing)
    if run.closed:
        return Plan()
    if run.deleting_since is not None:
        give_up_at = run.deleting_since + timedelta(seconds=timing.release_after)
        return _clean_up(case, give_up_at, {}) if run.held else Plan()
    if run.status.completion_time is not None:
        # A provider that does not exist any more will not confirm anything.
        give_up_at = run.status.completion_time + timedelta(seconds=timing.release_after)
        missing = isinstance(seen.provider, Refused)
        return _clean_up(case, give_up_at if missing else None, closing_labels(run))
    if run.status.sandbox_id is not None:
        return plan_running(case)
    return plan_start(case)


def closing_labels(run: Run) -> Mapping[str, str]:
    """Labels of a run that is done: closed, and the second (Unix time) in which it expires."""
    labels = {CLOSED_LABEL: _CLOSED}
    ttl = run.spec.ttl_seconds_after_finished if run.spec else None
    if ttl is not None and run.status.completion_time is not None:
        expires = run.status.completion_time + timedelta(seconds=ttl)
        labels[EXPIRES_AT_LABEL] = str(int(expires.timestamp()))
    return labels


def _clean_up(case: Case, give_up_at: datetime | None, labels: Mapping[str, str]) -> Plan:
    """Destroy every sandbox of the run, then let go of it."""
    run, seen, trouble = case.run, case.seen, case.seen.trouble
    doomed = _doomed(run, seen)
    if isinstance(seen.provider, Refused):
        if not doomed:
            return Plan((Release(labels),))
        return _wait(case, give_up_at, labels, seen.provider.message)
    given_up = give_up_at is not None and case.now >= give_up_at
    if trouble is not None and (given_up or trouble.retry_at > case.now):
        return _wait(case, give_up_at, labels, trouble.message)
    if doomed:
        return Plan(tuple(KillSandbox(seen.provider.name, each) for each in doomed))
    # A run that was never held, or whose claim is known, has nothing that a list could find.
    if seen.sandboxes is None and run.held and run.status.sandbox_id is None:
        return Plan((ListSandboxes(seen.provider.name),))
    return Plan((Release(labels),))


def _wait(case: Case, give_up_at: datetime | None, labels: Mapping[str, str], why: str) -> Plan:
    until = case.now + timedelta(seconds=1)
    if case.seen.trouble is not None:
        until = max(until, case.seen.trouble.retry_at)
    if give_up_at is None:
        return pause(case, until)
    if case.now < give_up_at:
        return pause(case, min(until, give_up_at))
    warning = (
        f"The run was released although its sandbox {case.run.status.sandbox_id or ''} could not "
        f"be destroyed: {why} The orphan sweep destroys it once the provider answers."
    )
    return Plan((Release(labels, warning=warning),))


def _doomed(run: Run, seen: Seen) -> list[str]:
    known = [each.sandbox_id for each in seen.sandboxes or ()]
    claimed = [run.status.sandbox_id] if run.status.sandbox_id and not seen.gone else []
    return [each for each in dict.fromkeys(claimed + known) if each not in seen.killed]
