"""The status of a service, derived whole from what is seen."""

from datetime import datetime
from typing import Final

from capibara_operator.api.service import CapibaraServiceStatus, ServicePhase
from capibara_operator.core.conditions import (
    READY,
    RECONCILING,
    STALLED,
    Finding,
    derive_conditions,
)
from capibara_operator.core.services.children import pod_selector, restarted_at
from capibara_operator.core.services.dependencies import WORKLOAD_AVAILABLE
from capibara_operator.core.services.endpoints import (
    endpoint_statuses,
    endpoint_summary,
    endpoints_finding,
)
from capibara_operator.core.services.model import Object, Seen, Service
from capibara_operator.core.services.summary import (
    DEPENDENCIES_READY,
    Summary,
    cycle_message,
    stopped,
    stopping,
    summarize,
    workload_message,
)
from capibara_operator.core.services.workload import Workload

SUSPENDED: Final = "Suspended"


def derive_status(
    service: Service, seen: Seen, workload: Workload, now: datetime
) -> tuple[CapibaraServiceStatus, Summary]:
    """The status that is true now, and the summary in it."""
    endpoints = endpoint_statuses(service, seen, now)
    healthy = endpoints_finding(service, workload, endpoints)
    summary = summarize(service, seen, workload, healthy, now)
    findings = (
        _first(summary, READY),
        _workload_finding(service, seen, workload),
        healthy,
        _dependencies_finding(service, seen),
        _suspended_finding(service, seen, workload),
        *(each for each in summary.findings if each.type in {RECONCILING, STALLED}),
    )
    wanted = 0 if service.spec.suspend else service.spec.replicas
    status = CapibaraServiceStatus(
        phase=summary.phase,
        observed_generation=service.generation,
        conditions=derive_conditions(
            service.status.conditions, findings, generation=service.generation, now=now
        ),
        endpoints=endpoints,
        endpoint_summary=endpoint_summary(endpoints),
        replica_summary=f"{workload.ready}/{wanted}",
        replicas=workload.replicas,
        selector=pod_selector(service.name),
        url=f"http://{service.name}.{service.namespace}.svc:{service.spec.ports[0].port}",
        revision=workload.revision or None,
        last_handled_restart_at=_handled_restart(service, seen.deployment) or None,
    )
    return status, summary


def failed_status(
    last: CapibaraServiceStatus,
    generation: int,
    finding: Finding,
    now: datetime,
) -> CapibaraServiceStatus:
    """The last status with a failure on top.

    ``finding`` is Stalled when it is for good, or Reconciling when it is tried again.
    """
    kept = tuple(
        Finding(each.type, _FLAGS[each.status.value], each.reason, each.message)
        for each in last.conditions
        if each.type not in {READY, RECONCILING, STALLED}
    )
    findings = (Finding(READY, False, finding.reason, finding.message), *kept, finding)
    final = finding.type == STALLED
    return last.model_copy(
        update={
            "phase": ServicePhase.FAILED if final else ServicePhase.STARTING,
            "observed_generation": generation,
            "conditions": derive_conditions(
                last.conditions, findings, generation=generation, now=now
            ),
        }
    )


def _first(summary: Summary, type_: str) -> Finding:
    return next(each for each in summary.findings if each.type == type_)


def _workload_finding(service: Service, seen: Seen, workload: Workload) -> Finding:
    if stopping(service):
        return Finding(WORKLOAD_AVAILABLE, False, "Stopped", "the service is to have no pods")
    if not workload.running:
        return Finding(WORKLOAD_AVAILABLE, False, "NotStarted", "no pods were asked for yet")
    message = workload_message(seen, workload)
    if workload.available and workload.enough_available:
        return Finding(WORKLOAD_AVAILABLE, True, "MinimumReplicasAvailable", message)
    return Finding(WORKLOAD_AVAILABLE, False, "MinimumReplicasUnavailable", message)


def _dependencies_finding(service: Service, seen: Seen) -> Finding:
    dependencies = seen.dependencies
    if dependencies.cycle:
        message = cycle_message(dependencies.cycle)
        return Finding(DEPENDENCIES_READY, False, "DependencyCycle", message)
    if dependencies.unmet:
        message = "; ".join(each.message for each in dependencies.unmet)
        return Finding(DEPENDENCIES_READY, False, dependencies.unmet[0].reason, message)
    if not service.spec.depends_on:
        return Finding(DEPENDENCIES_READY, True, "NoDependencies", "it depends on no service")
    return Finding(DEPENDENCIES_READY, True, "DependenciesReady", "all dependencies are ready")


def _suspended_finding(service: Service, seen: Seen, workload: Workload) -> Finding:
    if not service.spec.suspend:
        return Finding(SUSPENDED, False, "NotSuspended", "`suspend` is not set")
    if stopped(service, seen, workload):
        return Finding(SUSPENDED, True, "Stopped", "no pod runs; set `suspend` to false to resume")
    return Finding(SUSPENDED, False, "Stopping", "waits for its pods to end")


def _handled_restart(service: Service, deployment: Object | None) -> str:
    """The last restart request that has reached the pods, or that had no pods to reach."""
    handled = service.status.last_handled_restart_at or ""
    requested = service.restart_requested
    reached = deployment is None or restarted_at(deployment) == requested
    return requested if requested and reached else handled


_FLAGS: Final = {"True": True, "False": False, "Unknown": None}
