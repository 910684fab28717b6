"""What to do next for a run: a pure function of the run, what is known of it, and the time.

The order that keeps it safe: hold the run (finalizer), create, claim (conditional status write),
upload, start (the runner's lock); and at the end: store the result, destroy the sandbox and have
that confirmed, release the run.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from capibara_operator.api.common import CLOSED_LABEL, EXPIRES_AT_LABEL
from capibara_operator.core.runs.actions import Action, KillSandbox, ListSandboxes, Release
from capibara_operator.core.runs.plan_running import plan_running
from capibara_operator.core.runs.plan_start import plan_start
from capibara_operator.core.runs.record import Run
from capibara_operator.core.runs.seen import Refused, Seen
from capibara_operator.core.runs.step import Plan, pause
from capibara_operator.core.runs.timing import Timing

__all__ = ["Plan", "plan"]

_CLOSED: Final = "true"


def plan(run: Run, seen: Seen, now: datetime, timing: Timing) -> Plan:
    """The next actions, or the status to show and when to look again."""
    if run.closed:
        return Plan()
    if run.deleting_since is not None:
        return _plan_deletion(run, seen, now, timing)
    if run.finished:
        return _plan_closing(run, seen, now, timing)
    if run.status.sandbox_id is not None:
        return plan_running(run, seen, now, timing)
    return plan_start(run, seen, now, timing)


def closing_labels(run: Run) -> Mapping[str, str]:
    """Labels of a run that is done: closed, and the second (Unix time) in which it expires."""
    labels = {CLOSED_LABEL: _CLOSED}
    ttl = run.spec.ttl_seconds_after_finished if run.spec else None
    if ttl is not None and run.status.completion_time is not None:
        expires = run.status.completion_time + timedelta(seconds=ttl)
        labels[EXPIRES_AT_LABEL] = str(int(expires.timestamp()))
    return labels


def _plan_deletion(run: Run, seen: Seen, now: datetime, timing: Timing) -> Plan:
    if not run.held:
        return Plan()
    since = run.deleting_since or now
    give_up_at = since + timedelta(seconds=timing.release_after)
    return _clean_up(run, seen, now, give_up_at=give_up_at, labels={})


def _plan_closing(run: Run, seen: Seen, now: datetime, timing: Timing) -> Plan:
    give_up_at = None
    if isinstance(seen.provider, Refused):
        end = run.status.completion_time or now
        give_up_at = end + timedelta(seconds=timing.release_after)
    return _clean_up(run, seen, now, give_up_at=give_up_at, labels=closing_labels(run))


def _clean_up(
    run: Run, seen: Seen, now: datetime, *, give_up_at: datetime | None, labels: Mapping[str, str]
) -> Plan:
    """Destroy every sandbox of the run, then let go of it."""
    doomed = _doomed(run, seen)
    if isinstance(seen.provider, Refused):
        if not doomed:
            return Plan((Release(labels),))
        return _wait(run, now, now, give_up_at, labels, seen.provider.message)
    if seen.trouble is not None and (
        seen.trouble.retry_at > now or (give_up_at is not None and now >= give_up_at)
    ):
        return _wait(run, now, seen.trouble.retry_at, give_up_at, labels, seen.trouble.message)
    provider = seen.provider.name
    if doomed:
        return Plan(tuple(KillSandbox(provider, each) for each in doomed))
    # A run that was never held, or whose claim is known, has nothing that a list could find.
    if seen.sandboxes is None and run.held and run.status.sandbox_id is None:
        listing: tuple[Action, ...] = (ListSandboxes(provider),)
        return Plan(listing)
    return Plan((Release(labels),))


def _wait(
    run: Run,
    now: datetime,
    retry_at: datetime,
    give_up_at: datetime | None,
    labels: Mapping[str, str],
    why: str,
) -> Plan:
    if give_up_at is not None and now >= give_up_at:
        warning = (
            f"The run was released although its sandbox {run.status.sandbox_id or ''} could not "
            f"be destroyed: {why} The orphan sweep destroys it once the provider answers."
        )
        return Plan((Release(labels, warning=warning),))
    until = max(retry_at, now + timedelta(seconds=1))
    return pause(now, until if give_up_at is None else min(until, give_up_at))


def _doomed(run: Run, seen: Seen) -> list[str]:
    known = [each.sandbox_id for each in seen.sandboxes or ()]
    claimed = [run.status.sandbox_id] if run.status.sandbox_id and not seen.gone else []
    return [each for each in dict.fromkeys(claimed + known) if each not in seen.killed]
