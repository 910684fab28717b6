"""The one sentence about a service: its phase, Ready, Reconciling and Stalled."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from capibara_operator.api.service import ServicePhase
from capibara_operator.core.conditions import (
    READY,
    RECONCILING,
    STALLED,
    Finding,
    find_condition,
    is_true,
    ready_findings,
    reconciling_findings,
    stalled_findings,
)
from capibara_operator.core.services.endpoints import DEGRADED
from capibara_operator.core.services.model import Seen, Service
from capibara_operator.core.services.pods import problems
from capibara_operator.core.services.probing import NOTHING_REACHED
from capibara_operator.core.services.workload import Workload

DEPENDENCIES_READY: Final = "DependenciesReady"
DEADLINE_EXCEEDED: Final = "ProgressDeadlineExceeded"
_OWN_DEADLINE_GRACE_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Summary:
    """Phase and summary conditions. ``deadline`` is when it turns into Stalled by itself."""

    phase: ServicePhase
    findings: tuple[Finding, ...]
    deadline: datetime | None = None


def stopping(service: Service) -> bool:
    """Whether the service is to have no pods."""
    return service.spec.suspend or service.spec.replicas == 0


def stopped(service: Service, seen: Seen, workload: Workload) -> bool:
    """Whether the service is to have no pods, and has none."""
    gone = not workload.exists or (workload.wanted == 0 and workload.replicas == 0)
    return stopping(service) and gone and not seen.pods


def summarize(
    service: Service, seen: Seen, workload: Workload, endpoints: Finding, now: datetime
) -> Summary:
    """The state of a service in one; ``endpoints`` is the finding of EndpointsHealthy."""
    if stopping(service):
        return _stopping(service, seen, workload)
    if seen.dependencies.cycle:
        message = cycle_message(seen.dependencies.cycle)
        return Summary(ServicePhase.FAILED, stalled_findings("DependencyCycle", message))
    if not workload.running:
        return _starting(seen)
    if not workload.complete:
        return _unfinished(service, seen, workload, now)
    return _serving(endpoints)


def cycle_message(cycle: tuple[str, ...]) -> str:
    """Says which services wait for each other, and what to do about it."""
    path = " -> ".join(cycle)
    return f"services wait for each other: {path}; remove one of these dependencies"


def workload_message(seen: Seen, workload: Workload) -> str:
    """How many pods are available, and what keeps the others."""
    counts = f"{workload.available}/{workload.wanted} pods are available"
    detail = problems(seen.pods) or workload.failure
    return f"{counts}; {detail}" if detail else counts


def _stopping(service: Service, seen: Seen, workload: Workload) -> Summary:
    if stopped(service, seen, workload):
        reason = "Stopped" if service.spec.suspend else "ScaledToZero"
        message = "stopped: all objects are kept, no pod runs"
        return Summary(ServicePhase.STOPPED, ready_findings(reason, message))
    message = f"stops: {max(len(seen.pods), workload.replicas)} pods are still there"
    return Summary(ServicePhase.STOPPING, reconciling_findings("Stopping", message))


def _starting(seen: Seen) -> Summary:
    unmet = seen.dependencies.unmet
    if unmet:
        message = "waits for its dependencies: " + "; ".join(each.message for each in unmet)
        return Summary(ServicePhase.STARTING, reconciling_findings(unmet[0].reason, message))
    findings = reconciling_findings("Starting", "its pods are being created")
    return Summary(ServicePhase.STARTING, findings)


def _unfinished(service: Service, seen: Seen, workload: Workload, now: datetime) -> Summary:
    message = workload_message(seen, workload)
    deadline = _deadline(service, workload)
    late = workload.deadline_exceeded or _stays_stalled(service, workload)
    if late or (deadline is not None and now >= deadline):
        seconds = service.spec.progress_deadline_seconds
        text = f"no progress for {seconds} s: {message}"
        return Summary(ServicePhase.FAILED, stalled_findings(DEADLINE_EXCEEDED, text))
    if not workload.rolling and _settled(service):
        finding = Finding(READY, False, "PodsUnavailable", message)
        return Summary(ServicePhase.DEGRADED, (finding,))
    reason = "RollingOut" if workload.rolling else "PodsUnavailable"
    return Summary(ServicePhase.STARTING, reconciling_findings(reason, message), deadline)


def _serving(endpoints: Finding) -> Summary:
    if endpoints.status:
        return Summary(ServicePhase.RUNNING, ready_findings("Running", endpoints.message))
    if endpoints.status is False:
        finding = Finding(READY, False, DEGRADED, endpoints.message)
        return Summary(ServicePhase.DEGRADED, (finding,))
    if endpoints.reason == NOTHING_REACHED:
        unknown = Finding(READY, None, NOTHING_REACHED, endpoints.message)
        working = Finding(RECONCILING, True, NOTHING_REACHED, endpoints.message)
        return Summary(ServicePhase.RUNNING, (unknown, working))
    findings = reconciling_findings(endpoints.reason, endpoints.message)
    return Summary(ServicePhase.STARTING, findings)


def _settled(service: Service) -> bool:
    """Whether this generation was brought to its end before: what lacks now was lost later."""
    status = service.status
    return (
        status.observed_generation == service.generation
        and find_condition(status.conditions, READY) is not None
        and not is_true(status.conditions, RECONCILING)
        and not is_true(status.conditions, STALLED)
    )


def _stays_stalled(service: Service, workload: Workload) -> bool:
    """Whether the deadline has passed for this generation, without any progress since."""
    stalled = find_condition(service.status.conditions, STALLED)
    if stalled is None or stalled.reason != DEADLINE_EXCEEDED:
        return False
    progressed = workload.progressed_at
    return service.status.observed_generation == service.generation and (
        progressed is None or progressed <= stalled.last_transition_time
    )


def _deadline(service: Service, workload: Workload) -> datetime | None:
    """When a start that makes no progress counts as stalled; None before it is under way.

    The Deployment has a deadline of its own for roll-outs; this one is for all that it does not
    watch, such as pods that are added later, and comes after it.
    """
    conditions = service.status.conditions
    reconciling = find_condition(conditions, RECONCILING)
    if reconciling is None or service.status.observed_generation != service.generation:
        return None
    gate = find_condition(conditions, DEPENDENCIES_READY)
    starts = [
        reconciling.last_transition_time,
        *([gate.last_transition_time] if gate else []),
        *([workload.progressed_at] if workload.progressed_at else []),
    ]
    seconds = service.spec.progress_deadline_seconds + _OWN_DEADLINE_GRACE_SECONDS
    return max(starts) + timedelta(seconds=seconds)
