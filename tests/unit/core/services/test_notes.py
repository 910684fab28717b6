"""Which changes of status are worth an Event."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from capibara_operator.api.service import EndpointState, EndpointStatus
from capibara_operator.core.services.model import Dependencies, Seen, Unmet
from capibara_operator.core.services.plan import plan

Make = Callable[..., Any]
ENDPOINTS = [{"name": "query", "path": "/q"}]


def query(state: str, reason: str, now: datetime) -> dict[str, EndpointStatus]:
    found = EndpointStatus(name="query", state=EndpointState(state), reason=reason, since=now)
    return {"query": found}


def test_the_life_of_a_service_in_events(
    make_service: Make, make_deployment: Make, make_front: Make, now: datetime
) -> None:
    story: list[list[tuple[str, bool]]] = []
    status: dict[str, Any] = {}

    def step(*, minutes: int, restart: str = "", spec: Any = None, **seen: Any) -> None:
        nonlocal status
        service = make_service(endpoints=ENDPOINTS, status=status, restart=restart, **(spec or {}))
        changes = seen.pop("deployment", {})
        found = Seen(
            deployment=None if changes is None else make_deployment(service, **changes),
            service=make_front(service),
            **seen,
        )
        planned = plan(service, found, now + timedelta(minutes=minutes))
        status = planned.status.dump()
        story.append([(note.reason, note.warning) for note in planned.notes])

    waits = Dependencies(unmet=(Unmet("model", "DependencyNotReady", "model is not ready"),))
    step(minutes=0, deployment=None, dependencies=waits)
    step(minutes=1, endpoints=query("Healthy", "", now))
    step(minutes=2, endpoints=query("Failing", "HTTP500", now))
    step(minutes=3, endpoints=query("Failing", "Timeout", now))
    step(minutes=4, endpoints=query("Healthy", "", now))
    step(
        minutes=5,
        restart="T1",
        deployment={"restarted_at": "T1"},
        endpoints=query("Healthy", "", now),
    )
    step(
        minutes=6,
        spec={"suspend": True},
        deployment={"wanted": 0, "restarted_at": "T1"},
        endpoints=query("Unknown", "NoPods", now),
    )
    assert story == [
        [("WaitingForDependencies", False)],
        [("Started", False)],
        [("EndpointDegraded", True)],
        [],
        [("EndpointRecovered", False)],
        [("Restarted", False)],
        [("Stopped", False)],
    ]


def test_stalled_is_a_warning_once(make_service: Make, make_front: Make, now: datetime) -> None:
    cycle = Dependencies(cycle=("backend", "model", "backend"))
    service = make_service()
    seen = Seen(service=make_front(service), dependencies=cycle)
    first = plan(service, seen, now)
    assert [(note.reason, note.warning) for note in first.notes] == [("DependencyCycle", True)]
    again = plan(make_service(status=first.status.dump()), seen, now)
    assert again.notes == ()
