"""From a new run to a claimed sandbox."""

from datetime import datetime, timedelta

from capibara_operator.api.run import RunPhase, RunReason
from capibara_operator.core.runs.actions import (
    AddFinalizer,
    CreateSandbox,
    KillSandbox,
    ListSandboxes,
    ReadInputs,
    RequestSlot,
    WriteStatus,
)
from capibara_operator.core.runs.record import Run
from capibara_operator.core.runs.seen import (
    ChosenProvider,
    ChosenTemplate,
    Refused,
    Sandbox,
    Seen,
    Slot,
    Trouble,
)
from capibara_operator.core.runs.status import claimed, waiting
from capibara_operator.core.runs.step import Plan, deadline_seconds, fail, finish, pause
from capibara_operator.core.runs.timing import Timing
from capibara_operator.core.runs.verdict import cancelled

_INPUT_POLL_SECONDS = 2.0
_SLOW_REASONS = frozenset({RunReason.TEMPLATE_NOT_READY, RunReason.PROVIDER_UNREACHABLE})


def plan_start(run: Run, seen: Seen, now: datetime, timing: Timing) -> Plan:
    """The next step of a run that has no sandbox yet."""
    if run.spec is None:
        message = f"The spec cannot be used: {run.invalid}. Correct it and create the run anew."
        return fail(run, seen, RunReason.INVALID_SPEC, message, now)
    if run.spec.cancel:
        return finish(run, seen, cancelled(), now)
    if isinstance(seen.template, Refused):
        return _refused(run, seen, seen.template, now, timing)
    if isinstance(seen.provider, Refused):
        return _refused(run, seen, seen.provider, now, timing)
    if refusal := _lifetime_refusal(run, seen, seen.provider, timing):
        return _refused(run, seen, refusal, now, timing)
    if not run.held:
        return Plan((AddFinalizer(),))
    if seen.trouble is not None:
        planned = _plan_trouble(run, seen, seen.trouble, now, timing)
        if planned is not None:
            return planned
    return _plan_sandbox(run, seen, seen.template, seen.provider, now, timing)


def _plan_sandbox(
    run: Run,
    seen: Seen,
    template: ChosenTemplate,
    provider: ChosenProvider,
    now: datetime,
    timing: Timing,
) -> Plan:
    if seen.sandboxes is None:
        return Plan((ListSandboxes(provider.name),))
    living = [each for each in seen.sandboxes if each.sandbox_id not in seen.killed]
    earlier = [each for each in living if each.attempt != run.attempt]
    if earlier:
        return Plan(tuple(KillSandbox(provider.name, each.sandbox_id) for each in earlier))
    if living:
        return Plan((WriteStatus(claimed(run, seen, _oldest(living), now)),))
    if seen.inputs is None:
        return Plan((ReadInputs(),))
    if isinstance(seen.inputs, Refused):
        return _refused(run, seen, seen.inputs, now, timing)
    if seen.slot is None:
        return Plan((RequestSlot(provider.name),))
    if not seen.slot.granted:
        return _queued(run, seen, seen.slot, provider, now)
    if seen.conflict_since is not None:
        grace = timedelta(seconds=provider.spec.sweep.grace_seconds)
        if now < seen.conflict_since + grace:
            return _conflicted(run, seen, now, seen.conflict_since + grace)
    return Plan((_creation(run, seen, template, provider, timing),))


def _creation(
    run: Run, seen: Seen, template: ChosenTemplate, provider: ChosenProvider, timing: Timing
) -> CreateSandbox:
    suffix = f"-{seen.creations}" if seen.creations else ""
    return CreateSandbox(
        provider=provider.name,
        template_id=template.pin.template_id,
        metadata=run.metadata(seen.operator, seen.cluster),
        idempotency_key=run.job_key + suffix,
        lifetime_seconds=_lifetime_seconds(run, seen, timing),
    )


def _lifetime_seconds(run: Run, seen: Seen, timing: Timing) -> int:
    """Starting and collecting each get the grace beside the code's own deadline."""
    return deadline_seconds(run, seen) + 2 * int(timing.collect_grace)


def _lifetime_refusal(
    run: Run, seen: Seen, provider: ChosenProvider, timing: Timing
) -> Refused | None:
    longest = provider.spec.limits.max_lifetime_seconds
    spare = longest - _lifetime_seconds(run, seen, timing)
    if spare >= 0:
        return None
    deadline = deadline_seconds(run, seen)
    return Refused(
        RunReason.INVALID_SPEC,
        f"The deadline of {deadline} s is longer than provider {provider.name} lets a sandbox "
        f"live ({longest} s, less what starting and collecting take). Set "
        f"spec.activeDeadlineSeconds to {max(1, deadline + spare)} or less.",
    )


def _refused(run: Run, seen: Seen, refusal: Refused, now: datetime, timing: Timing) -> Plan:
    """Wait for what may still come; end the run when it does not."""
    until = seen.since + timedelta(seconds=_patience(seen, refusal, timing))
    if not refusal.waits:
        return fail(run, seen, refusal.reason, refusal.message, now)
    if now >= until:
        message = f"{refusal.message} The operator waited for it until {_clock(until)}."
        late = refusal is seen.inputs or refusal.reason is RunReason.PROVIDER_UNREACHABLE
        reason = RunReason.START_DEADLINE_EXCEEDED if late else refusal.reason
        return fail(run, seen, reason, message, now)
    status = waiting(
        run,
        seen,
        phase=RunPhase.PENDING,
        word="Waiting",
        reason=None if refusal is seen.inputs else refusal.reason,
        message=f"{refusal.message} The operator waits for it until {_clock(until)}.",
        now=now,
    )
    return pause(now, min(until, now + timedelta(seconds=_INPUT_POLL_SECONDS)), status)


def _patience(seen: Seen, refusal: Refused, timing: Timing) -> float:
    slow = refusal is seen.inputs or refusal.reason in _SLOW_REASONS
    return timing.start_deadline if slow else timing.reference_grace


def _queued(run: Run, seen: Seen, slot: Slot, provider: ChosenProvider, now: datetime) -> Plan:
    message = f"Waiting for a sandbox of provider {provider.name}: {slot.reason}."
    status = waiting(run, seen, phase=RunPhase.QUEUED, word="Queued", message=message, now=now)
    if slot.retry_at is None:
        return Plan(status=status)
    return pause(now, slot.retry_at, status)


def _conflicted(run: Run, seen: Seen, now: datetime, until: datetime) -> Plan:
    message = (
        "The provider says that this sandbox was created already but does not list it. "
        f"The operator looks for it until {_clock(until)}, then creates another one."
    )
    status = waiting(run, seen, phase=RunPhase.STARTING, word="Starting", message=message, now=now)
    return pause(now, min(until, now + timedelta(seconds=_INPUT_POLL_SECONDS)), status)


def _plan_trouble(
    run: Run, seen: Seen, trouble: Trouble, now: datetime, timing: Timing
) -> Plan | None:
    """None when it is time to try again."""
    if trouble.final:
        return fail(run, seen, trouble.reason, trouble.message, now)
    granted_at = seen.slot.since if seen.slot is not None else seen.since
    until = max(seen.since, granted_at) + timedelta(seconds=timing.start_deadline)
    if now >= until:
        message = (
            f"No sandbox could be started within {timing.start_deadline:.0f} s. {trouble.message}"
        )
        return fail(run, seen, RunReason.START_DEADLINE_EXCEEDED, message, now)
    if now >= trouble.retry_at:
        return None
    status = waiting(
        run,
        seen,
        phase=RunPhase.STARTING,
        word="Starting",
        reason=trouble.reason,
        message=f"{trouble.message} The operator tries again until {_clock(until)}.",
        now=now,
    )
    return pause(now, min(until, trouble.retry_at), status)


def _oldest(sandboxes: list[Sandbox]) -> Sandbox:
    return min(
        sandboxes,
        key=lambda each: (each.started_at.timestamp() if each.started_at else 0, each.sandbox_id),
    )


def _clock(time: datetime) -> str:
    return time.strftime("%H:%M:%S UTC")
