"""The status of a run, derived whole; what is unchanged costs no write."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from capibara_operator.api.run import (
    MAX_STATUS_BYTES,
    GrantedResources,
    RunAttempt,
    RunPhase,
    RunQueue,
    RunReason,
    RunStages,
    SandboxRunStatus,
)
from capibara_operator.core.conditions import (
    MAX_MESSAGE_LENGTH,
    READY,
    RECONCILING,
    STALLED,
    Finding,
    derive_conditions,
)
from capibara_operator.core.runs.outputs import output_entries
from capibara_operator.core.runs.record import Run
from capibara_operator.core.runs.results import run_result, shrink_result
from capibara_operator.core.runs.seen import ChosenProvider, ChosenTemplate, Sandbox, Seen
from capibara_operator.core.runs.verdict import Verdict

SANDBOX_READY: Final = "SandboxReady"
SUCCEEDED: Final = "Succeeded"
_MAX_ATTEMPT_MESSAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Wait:
    """What a run waits for. ``word`` is the conditions' reason where ``reason`` is None."""

    phase: RunPhase
    word: str
    message: str
    reason: RunReason | None = None


def waiting(run: Run, seen: Seen, wait: Wait, now: datetime) -> SandboxRunStatus:
    """The run waits for something."""
    queue = None
    if wait.phase is RunPhase.QUEUED and seen.slot is not None:
        queue = RunQueue(since=seen.slot.since, reason=seen.slot.reason)
    word = wait.reason or wait.word
    status = _active(run, word=word, message=wait.message, sandbox=False, now=now)
    return status.model_copy(
        update={
            "phase": wait.phase,
            "reason": wait.reason,
            "queue": queue,
            "detection": _detection(seen),
        }
    )


def claimed(run: Run, seen: Seen, sandbox: Sandbox, now: datetime) -> SandboxRunStatus:
    """The run owns a sandbox: stored before any code starts."""
    message = f"The code runs in sandbox {sandbox.sandbox_id}."
    template, provider = seen.template, seen.provider
    update: dict[str, Any] = {
        "phase": RunPhase.RUNNING,
        "reason": None,
        "queue": None,
        "detection": _detection(seen),
        "provider": provider.name if isinstance(provider, ChosenProvider) else None,
        "template": template.pin if isinstance(template, ChosenTemplate) else None,
        "resources": _resources(sandbox),
        "attempt": run.attempt,
        "sandbox_id": sandbox.sandbox_id,
        "start_time": now,
        "stages": RunStages(queued=seen.stages.queued, create=seen.stages.create),
    }
    status = _active(run, word="Running", message=message, sandbox=True, now=now)
    return status.model_copy(update=update)


def running(run: Run, now: datetime) -> SandboxRunStatus:
    """The same again: only what follows from the object's generation may change."""
    return _active(run, word="Running", message=run.status.message or "", sandbox=True, now=now)


def retried(run: Run, *, reason: RunReason, message: str, now: datetime) -> SandboxRunStatus:
    """The attempt's sandbox failed before the code started; the next one is free."""
    status = _active(run, word="Retrying", message=message, sandbox=False, now=now)
    update = {
        "phase": RunPhase.STARTING,
        "reason": reason,
        "attempt": run.attempt + 1,
        "sandbox_id": None,
        "start_time": None,
        "attempts": (*run.status.attempts, _attempt(run, reason, message, now)),
    }
    return status.model_copy(update=update)


def finished(run: Run, seen: Seen, verdict: Verdict, now: datetime) -> SandboxRunStatus:
    """The end, whatever it is: nothing of the status changes after this."""
    update: dict[str, Any] = {
        "phase": _final_phase(verdict),
        "observed_generation": run.generation,
        "conditions": _final_conditions(run, verdict, now),
        "reason": verdict.reason,
        "message": verdict.message[:MAX_MESSAGE_LENGTH],
        "queue": None,
        "detection": run.status.detection or _detection(seen),
        "resources": _resources(seen.inspected) or run.status.resources,
        "completion_time": now,
        "duration": _duration(run, seen, now),
        "stages": _stages(run, seen, now),
        "exit_code": verdict.exit_code,
        "result": run_result(seen.transcript),
        "outputs": output_entries(seen.transcript, seen.output),
    }
    if run.status.sandbox_id:
        last = _attempt(run, verdict.reason, verdict.message, now)
        update["attempts"] = (*run.status.attempts, last)
    return _fitting(run.status.model_copy(update=update))


def status_patch(stored: Mapping[str, Any], status: SandboxRunStatus) -> dict[str, Any] | None:
    """The merge patch that makes the stored status this one; None when it is already."""
    return _merge_patch(stored, status.dump()) or None


def _merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            if inner := _merge_patch(before, value):
                patch[key] = inner
        elif before != value or key not in old:
            patch[key] = value
    return patch


def _active(run: Run, *, word: str, message: str, sandbox: bool, now: datetime) -> SandboxRunStatus:
    findings = (
        Finding(READY, False, word, message),
        Finding(SANDBOX_READY, sandbox, "Running" if sandbox else word),
        Finding(SUCCEEDED, None, word),
        Finding(RECONCILING, True, word, message),
    )
    conditions = derive_conditions(
        run.status.conditions, findings, generation=run.generation, now=now
    )
    return run.status.model_copy(
        update={
            "observed_generation": run.generation,
            "conditions": conditions,
            "message": message[:MAX_MESSAGE_LENGTH],
        }
    )


def _final_conditions(run: Run, verdict: Verdict, now: datetime) -> object:
    good, reason = verdict.succeeded, verdict.reason
    findings = [
        Finding(READY, good, reason, verdict.message),
        Finding(SANDBOX_READY, False, "Finished"),
        Finding(SUCCEEDED, good, reason),
    ]
    if not good:
        findings.append(Finding(STALLED, True, reason, verdict.message))
    return derive_conditions(run.status.conditions, findings, generation=run.generation, now=now)


def _final_phase(verdict: Verdict) -> RunPhase:
    if verdict.succeeded:
        return RunPhase.SUCCEEDED
    is_cancel = verdict.reason is RunReason.CANCELLED
    return RunPhase.CANCELLED if is_cancel else RunPhase.FAILED


def _detection(seen: Seen) -> object:
    return seen.template.detection if isinstance(seen.template, ChosenTemplate) else None


def _resources(sandbox: Sandbox | None) -> GrantedResources | None:
    if sandbox is None or not (sandbox.cpus or sandbox.memory_mib):
        return None
    return GrantedResources(
        cpu=str(sandbox.cpus) if sandbox.cpus else None,
        memory=f"{sandbox.memory_mib}Mi" if sandbox.memory_mib else None,
    )


def _attempt(run: Run, reason: RunReason, message: str, now: datetime) -> RunAttempt:
    return RunAttempt(
        number=run.attempt,
        sandbox_id=run.status.sandbox_id or "",
        start_time=run.status.start_time,
        end_time=now,
        reason=reason,
        message=message[:_MAX_ATTEMPT_MESSAGE],
    )


def _duration(run: Run, seen: Seen, now: datetime) -> str | None:
    if seen.transcript.exit is not None:
        seconds = seen.transcript.exit.seconds
    elif run.status.start_time is not None:
        seconds = max(0.0, (now - run.status.start_time).total_seconds())
    else:
        return None
    return f"{seconds:.1f}s" if seconds < 100 else f"{seconds:.0f}s"


def _stages(run: Run, seen: Seen, now: datetime) -> RunStages | None:
    stages = run.status.stages or RunStages()
    end = seen.transcript.exit
    collect = None
    if seen.exit_at is not None and seen.output:
        collect = max(0, round((now - seen.exit_at).total_seconds() * 1000))
    done = stages.model_copy(
        update={
            "upload": seen.stages.upload,
            "execute": None if end is None else round(end.seconds * 1000),
            "collect": collect,
        }
    )
    return done if done != RunStages() else None


def _fitting(status: SandboxRunStatus) -> SandboxRunStatus:
    """The status within its limit: texts that the output object has too are cut first."""
    for limit in (1024, 512, 128):
        if len(json.dumps(status.dump())) <= MAX_STATUS_BYTES:
            break
        status = status.model_copy(update={"result": shrink_result(status.result, limit)})
    return status
