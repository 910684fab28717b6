"""From a new run to a claimed sandbox."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

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
from capibara_operator.core.runs.seen import (
    ChosenProvider,
    ChosenTemplate,
    Refused,
    Sandbox,
    Slot,
    Trouble,
)
from capibara_operator.core.runs.status import Wait, claimed, waiting
from capibara_operator.core.runs.step import (
    Case,
    Plan,
    deadline_seconds,
    fail,
    finish,
    lifetime_seconds,
    pause,
)
from capibara_operator.core.runs.verdict import cancelled

_POLL_SECONDS: Final = 2.0
_SLOW_REASONS: Final = frozenset({RunReason.TEMPLATE_NOT_READY, RunReason.PROVIDER_UNREACHABLE})


def plan_start(case: Case) -> Plan:
    """The next step of a run that has no sandbox yet."""
    run, seen = case.run, case.seen
    if run.spec is None:
        message = f"The spec cannot be used: {run.invalid}. Correct it and create the run anew."
        return fail(case, RunReason.INVALID_SPEC, message)
    if run.spec.cancel:
        return finish(case, cancelled())
    if isinstance(seen.template, Refused):
        return _refused(case, seen.template)
    if isinstance(seen.provider, Refused):
        return _refused(case, seen.provider)
    for step in _STEPS:
        planned = step(case, seen.provider)
        if planned is not None:
            return planned
    return Plan((_creation(case, seen.template, seen.provider),))


def _hold(case: Case, provider: ChosenProvider) -> Plan | None:
    refusal = _lifetime_refusal(case, provider)
    if refusal is not None:
        return _refused(case, refusal)
    return None if case.run.held else Plan((AddFinalizer(),))


def _get_over_trouble(case: Case, _: ChosenProvider) -> Plan | None:
    trouble = case.seen.trouble
    return None if trouble is None else _plan_trouble(case, trouble)


def _adopt(case: Case, provider: ChosenProvider) -> Plan | None:
    """Own the attempt's sandbox, if there is one; an earlier attempt's must be gone first."""
    run, seen = case.run, case.seen
    if seen.sandboxes is None:
        return Plan((ListSandboxes(provider.name),))
    living = [each for each in seen.sandboxes if each.sandbox_id not in seen.killed]
    earlier = [each for each in living if each.attempt != run.attempt]
    if earlier:
        return Plan(tuple(KillSandbox(provider.name, each.sandbox_id) for each in earlier))
    if living:
        return Plan((WriteStatus(claimed(run, seen, _oldest(living), case.now)),))
    return None


def _gather_inputs(case: Case, _: ChosenProvider) -> Plan | None:
    if case.seen.inputs is None:
        return Plan((ReadInputs(),))
    return _refused(case, case.seen.inputs) if isinstance(case.seen.inputs, Refused) else None


def _queue(case: Case, provider: ChosenProvider) -> Plan | None:
    slot = case.seen.slot
    if slot is None:
        return Plan((RequestSlot(provider.name),))
    return None if slot.granted else _queued(case, slot, provider)


def _await_conflict(case: Case, provider: ChosenProvider) -> Plan | None:
    if case.seen.conflict_since is None:
        return None
    if case.seen.creations and case.now >= _start_until(case):
        message = (
            f"Provider {provider.name} refuses to create a sandbox: it says that each idempotency "
            "key is in use, also new ones. See the provider's log for what it finds wrong."
        )
        return fail(case, RunReason.START_DEADLINE_EXCEEDED, message)
    until = case.seen.conflict_since + timedelta(seconds=provider.spec.sweep.grace_seconds)
    if case.now >= until:
        return None
    message = (
        "The provider says that this sandbox was created already but does not list it. "
        f"The operator looks for it until {_clock(until)}, then creates another one."
    )
    return _poll(case, until, Wait(RunPhase.STARTING, "Starting", message))


_STEPS: Final[tuple[Callable[[Case, ChosenProvider], Plan | None], ...]] = (
    _hold,
    _get_over_trouble,
    _adopt,
    _gather_inputs,
    _queue,
    _await_conflict,
)


def _creation(case: Case, template: ChosenTemplate, provider: ChosenProvider) -> CreateSandbox:
    run, seen = case.run, case.seen
    suffix = f"-{seen.creations}" if seen.creations else ""
    return CreateSandbox(
        provider=provider.name,
        template_id=template.pin.template_id,
        metadata=run.metadata(seen.operator, seen.cluster),
        idempotency_key=run.job_key + suffix,
        lifetime_seconds=lifetime_seconds(case),
    )


def _lifetime_refusal(case: Case, provider: ChosenProvider) -> Refused | None:
    longest = provider.spec.limits.max_lifetime_seconds
    spare = longest - lifetime_seconds(case)
    if spare >= 0:
        return None
    deadline = deadline_seconds(case)
    return Refused(
        RunReason.INVALID_SPEC,
        f"The deadline of {deadline} s is longer than provider {provider.name} lets a sandbox "
        f"live ({longest} s, less what starting and collecting take). Set "
        f"spec.activeDeadlineSeconds of a new run to {max(1, deadline + spare)} or less.",
    )


def _refused(case: Case, refusal: Refused) -> Plan:
    """Wait for what may still come; end the run when it does not."""
    if not refusal.waits:
        return fail(case, refusal.reason, refusal.message)
    is_input = refusal is case.seen.inputs
    slow = is_input or refusal.reason in _SLOW_REASONS
    patience = case.timing.start_deadline if slow else case.timing.reference_grace
    until = case.seen.since + timedelta(seconds=patience)
    if case.now >= until:
        message = f"{refusal.message} The operator waited for it until {_clock(until)}."
        late = is_input or refusal.reason is RunReason.PROVIDER_UNREACHABLE
        reason = RunReason.START_DEADLINE_EXCEEDED if late else refusal.reason
        return fail(case, reason, message)
    message = f"{refusal.message} The operator waits for it until {_clock(until)}."
    reason_shown = None if is_input else refusal.reason
    return _poll(case, until, Wait(RunPhase.PENDING, "Waiting", message, reason_shown))


def _queued(case: Case, slot: Slot, provider: ChosenProvider) -> Plan:
    message = f"Waiting for a sandbox of provider {provider.name}: {slot.reason}."
    wait = Wait(RunPhase.QUEUED, "Queued", message)
    status = waiting(case.run, case.seen, wait, case.now)
    return Plan(status=status) if slot.retry_at is None else pause(case, slot.retry_at, status)


def _plan_trouble(case: Case, trouble: Trouble) -> Plan | None:
    """None when it is time to try again."""
    if trouble.final:
        return fail(case, trouble.reason, trouble.message)
    until = _start_until(case)
    if case.now >= until:
        patience = case.timing.start_deadline
        message = f"No sandbox could be started within {patience:.0f} s. {trouble.message}"
        return fail(case, RunReason.START_DEADLINE_EXCEEDED, message)
    if case.now >= trouble.retry_at:
        return None
    message = f"{trouble.message} The operator tries again until {_clock(until)}."
    wait = Wait(RunPhase.STARTING, "Starting", message, trouble.reason)
    status = waiting(case.run, case.seen, wait, case.now)
    return pause(case, min(until, trouble.retry_at), status)


def _start_until(case: Case) -> datetime:
    """Until when a sandbox must be there: the time in the queue does not count."""
    granted_at = case.seen.slot.since if case.seen.slot is not None else case.seen.since
    patience = timedelta(seconds=case.timing.start_deadline)
    return max(case.seen.since, granted_at) + patience


def _poll(case: Case, until: datetime, wait: Wait) -> Plan:
    again = min(until, case.now + timedelta(seconds=_POLL_SECONDS))
    return pause(case, again, waiting(case.run, case.seen, wait, case.now))


def _oldest(sandboxes: list[Sandbox]) -> Sandbox:
    return min(
        sandboxes,
        key=lambda each: (each.started_at.timestamp() if each.started_at else 0, each.sandbox_id),
    )


def _clock(time: datetime) -> str:
    return time.strftime("%H:%M:%S UTC")
