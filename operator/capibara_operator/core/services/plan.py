"""What to do about a service: a pure function of what it asks for and what is there."""

from collections.abc import Iterator
from datetime import datetime

from capibara_operator.core.services.children import (
    desired_deployment,
    desired_service,
    restart_to_apply,
)
from capibara_operator.core.services.drift import needs_apply
from capibara_operator.core.services.model import (
    Action,
    ApplyDeployment,
    ApplyService,
    Plan,
    ScaleDeployment,
    Seen,
    Service,
)
from capibara_operator.core.services.notes import notes
from capibara_operator.core.services.status import derive_status
from capibara_operator.core.services.summary import stopping
from capibara_operator.core.services.workload import Workload, parse_workload


def plan(service: Service, seen: Seen, now: datetime) -> Plan:
    """The next actions for a service, and its status as of what is seen.

    Actions change what is seen: carry them out, look again and plan again until there are none;
    the status of that last plan is the one to write.
    """
    workload = parse_workload(seen.deployment)
    status, summary = derive_status(service, seen, workload, now)
    due = summary.deadline
    return Plan(
        actions=tuple(_actions(service, seen, workload)),
        status=status,
        notes=notes(service, status),
        requeue_after=max((due - now).total_seconds(), 0.0) if due else None,
    )


def wanted_replicas(service: Service, seen: Seen, workload: Workload) -> int:
    """How many pods there should be now.

    Dependencies hold up a start only: whoever runs is not stopped by theirs.
    """
    if stopping(service):
        return 0
    held = bool(seen.dependencies.cycle or seen.dependencies.unmet)
    return 0 if held and not workload.running else service.spec.replicas


def _actions(service: Service, seen: Seen, workload: Workload) -> Iterator[Action]:
    front = desired_service(service)
    if needs_apply(front, seen.service, seen.applied.get("Service")):
        yield ApplyService(front)
    wanted = wanted_replicas(service, seen, workload)
    shrinks = workload.exists and wanted < workload.wanted
    if shrinks:
        yield ScaleDeployment(wanted)
    if workload.exists or wanted:
        restart = restart_to_apply(service, seen.deployment)
        deployment = desired_deployment(service, restarted_at=restart)
        if needs_apply(deployment, seen.deployment, seen.applied.get("Deployment")):
            yield ApplyDeployment(deployment, replicas=wanted)
    if workload.exists and wanted > workload.wanted:
        yield ScaleDeployment(wanted)
