"""The endpoints of a service as its status shows them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from capibara_operator.api.service import EndpointState, EndpointStatus
from capibara_operator.core.conditions import Finding
from capibara_operator.core.services.model import Seen, Service
from capibara_operator.core.services.probing import NOTHING_REACHED, PROBING
from capibara_operator.core.services.workload import Workload

ENDPOINTS_HEALTHY: Final = "EndpointsHealthy"
DEGRADED: Final = "EndpointsDegraded"
_BLIND: Final = (
    "the operator reaches no pod of any service, so it cannot tell whether endpoints answer;"
    " check that network policies let the operator's pods connect to the services' pods"
)


def endpoint_statuses(service: Service, seen: Seen, now: datetime) -> tuple[EndpointStatus, ...]:
    """The state of each declared endpoint, in order."""
    before = {each.name: each for each in service.status.endpoints}
    return tuple(
        seen.endpoints.get(each.name) or _unprobed(each.name, before.get(each.name), now)
        for each in service.spec.endpoints
    )


def endpoint_summary(endpoints: Sequence[EndpointStatus]) -> str | None:
    """Healthy endpoints of all, such as 3/4; None without endpoints."""
    healthy = sum(each.state is EndpointState.HEALTHY for each in endpoints)
    return f"{healthy}/{len(endpoints)}" if endpoints else None


def endpoints_finding(
    service: Service, workload: Workload, endpoints: Sequence[EndpointStatus]
) -> Finding:
    """The condition EndpointsHealthy: about the required endpoints only."""
    if not endpoints:
        return Finding(ENDPOINTS_HEALTHY, True, "NoEndpoints", "the service declares no endpoints")
    if not workload.running:
        return Finding(ENDPOINTS_HEALTHY, None, "NotRunning", "the service has no pods")
    required = {each.name for each in service.spec.endpoints if each.required}
    failing = [each for each in endpoints if each.state is EndpointState.FAILING]
    if any(each.name in required for each in failing):
        return Finding(ENDPOINTS_HEALTHY, False, DEGRADED, failing_message(service, failing))
    unknown = [each for each in endpoints if each.state is EndpointState.UNKNOWN]
    if any(each.name in required for each in unknown):
        return _unknown_finding(unknown)
    if failing:
        message = failing_message(service, failing)
        return Finding(ENDPOINTS_HEALTHY, True, "OptionalEndpointsFailing", message)
    return Finding(ENDPOINTS_HEALTHY, True, "AllHealthy", "all endpoints answer as expected")


def _unknown_finding(unknown: Sequence[EndpointStatus]) -> Finding:
    if any(each.reason == NOTHING_REACHED for each in unknown):
        return Finding(ENDPOINTS_HEALTHY, None, NOTHING_REACHED, _BLIND)
    waiting = ", ".join(each.name for each in unknown)
    return Finding(ENDPOINTS_HEALTHY, None, PROBING, f"no answer yet from: {waiting}")


def failing_message(service: Service, failing: Sequence[EndpointStatus]) -> str:
    """Names each failing endpoint, what is asked there, and what comes back."""
    asked = {each.name: f"{each.method.value} {each.path}" for each in service.spec.endpoints}
    listed = ", ".join(f"{each.name} ({asked[each.name]}: {each.reason})" for each in failing)
    return f"{len(failing)}/{len(asked)} endpoints failing: {listed}"


def _unprobed(name: str, before: EndpointStatus | None, now: datetime) -> EndpointStatus:
    if before is not None and before.state is EndpointState.UNKNOWN and before.reason == PROBING:
        return before
    since = now.replace(microsecond=0)
    return EndpointStatus(name=name, state=EndpointState.UNKNOWN, reason=PROBING, since=since)
