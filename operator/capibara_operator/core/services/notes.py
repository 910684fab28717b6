"""Which Events a change of status is worth."""

from collections.abc import Iterator

from capibara_operator.api.service import CapibaraServiceStatus, EndpointState
from capibara_operator.core.conditions import STALLED, find_condition, is_true
from capibara_operator.core.services.dependencies import WORKLOAD_AVAILABLE
from capibara_operator.core.services.endpoints import failing_message
from capibara_operator.core.services.model import Note, Service
from capibara_operator.core.services.status import SUSPENDED
from capibara_operator.core.services.summary import DEPENDENCIES_READY


def notes(service: Service, new: CapibaraServiceStatus) -> tuple[Note, ...]:
    """The Events that the step from the service's present status to ``new`` is worth."""
    old = service.status
    return (
        *_endpoint_notes(service, new),
        *_stalled_notes(old, new),
        *_waiting_notes(old, new),
        *_workload_notes(old, new),
    )


def _endpoint_notes(service: Service, new: CapibaraServiceStatus) -> Iterator[Note]:
    before = {each.name: each.state for each in service.status.endpoints}
    for endpoint in new.endpoints:
        was = before.get(endpoint.name)
        if endpoint.state is EndpointState.FAILING and was is not EndpointState.FAILING:
            yield Note("EndpointDegraded", failing_message(service, [endpoint]), warning=True)
        if endpoint.state is EndpointState.HEALTHY and was is EndpointState.FAILING:
            yield Note("EndpointRecovered", f"endpoint {endpoint.name} answers again")


def _stalled_notes(old: CapibaraServiceStatus, new: CapibaraServiceStatus) -> Iterator[Note]:
    before, after = (find_condition(each.conditions, STALLED) for each in (old, new))
    if after is not None and (before is None or before.reason != after.reason):
        yield Note(after.reason, after.message, warning=True)


def _waiting_notes(old: CapibaraServiceStatus, new: CapibaraServiceStatus) -> Iterator[Note]:
    before, after = (find_condition(each.conditions, DEPENDENCIES_READY) for each in (old, new))
    waits = after is not None and after.reason in {"DependencyNotReady", "DependencyNotFound"}
    starting = not is_true(new.conditions, WORKLOAD_AVAILABLE)
    if (
        after is not None
        and waits
        and starting
        and (before is None or before.reason != after.reason)
    ):
        yield Note("WaitingForDependencies", after.message)


def _workload_notes(old: CapibaraServiceStatus, new: CapibaraServiceStatus) -> Iterator[Note]:
    if new.last_handled_restart_at != old.last_handled_restart_at and old.revision:
        yield Note("Restarted", f"pods are replaced, as asked for at {new.last_handled_restart_at}")
    if _became(WORKLOAD_AVAILABLE, old, new):
        yield Note("Started", f"{new.replica_summary} pods are ready")
    if _became(SUSPENDED, old, new):
        yield Note("Stopped", "no pod runs any more")


def _became(type_: str, old: CapibaraServiceStatus, new: CapibaraServiceStatus) -> bool:
    return is_true(new.conditions, type_) and not is_true(old.conditions, type_)
