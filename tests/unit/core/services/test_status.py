"""What is said about a service, case by case."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from capibara_operator.api.service import EndpointState, EndpointStatus
from capibara_operator.core.conditions import find_condition, kstatus_violations
from capibara_operator.core.services.model import (
    Dependencies,
    Pod,
    Seen,
    Unmet,
)
from capibara_operator.core.services.plan import plan

Make = Callable[..., Any]

ENDPOINTS = [{"name": "health", "path": "/health"}, {"name": "query", "path": "/q"}]
OPTIONAL = [ENDPOINTS[0], {**ENDPOINTS[1], "required": False}]
FREE = Dependencies()
WAITS = Unmet("model", "DependencyNotReady", "model is not available yet")


def endpoints(now: datetime, **states: str) -> dict[str, EndpointStatus]:
    """``health="Healthy", query="Failing:HTTP500"``."""
    return {
        name: EndpointStatus(
            name=name,
            state=EndpointState(text.partition(":")[0]),
            reason=text.partition(":")[2],
            since=now,
        )
        for name, text in states.items()
    }


def pod(name: str = "backend-1", *, problem: str = "", terminating: bool = False) -> Pod:
    ready = not problem
    return Pod(name, "10.0.0.1", ready, True, terminating, host_network=False, problem=problem)


def condition(type_: str, status: str, reason: str, *, ago: float = 0, now: datetime) -> Any:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": (now - timedelta(seconds=ago)).isoformat(),
        "observedGeneration": 1,
    }


@dataclass(frozen=True)
class Case:
    """``deployment`` None: absent; else the changes to a finished one. ``before``: conditions."""

    reason: str
    phase: str
    ready: tuple[str, str]
    says: str = ""
    extra: str = ""  # Reconciling or Stalled
    spec: Mapping[str, Any] = field(default_factory=dict)
    deployment: Mapping[str, Any] | None = field(default_factory=dict)
    pods: tuple[Pod, ...] = (pod(),)
    states: Mapping[str, str] = field(default_factory=dict)
    dependencies: Dependencies = FREE
    before: tuple[tuple[str, str, str, float], ...] = ()


SETTLED = (("Ready", "True", "Running", 100.0),)
GOOD = {"health": "Healthy", "query": "Healthy"}
BAD = {"health": "Healthy", "query": "Failing:HTTP500"}
ROLLING = {"progressing": "ReplicaSetUpdated", "available": 0}

CASES = [
    Case(
        "all pods and endpoints answer",
        "Running",
        ("True", "Running"),
        spec={"endpoints": ENDPOINTS},
        states=GOOD,
    ),
    Case("without endpoints the pods decide", "Running", ("True", "Running")),
    Case(
        "a new service has no pods yet",
        "Starting",
        ("False", "Starting"),
        extra="Reconciling",
        deployment=None,
        pods=(),
    ),
    Case(
        "a roll-out is under way",
        "Starting",
        ("False", "RollingOut"),
        says="0/1 pods are available",
        extra="Reconciling",
        deployment=ROLLING,
    ),
    Case(
        "the Deployment has not looked at its new spec: what it says is about the old one",
        "Starting",
        ("False", "RollingOut"),
        extra="Reconciling",
        deployment={"observed": 2},
    ),
    Case(
        "an old pod is still there beside the new one",
        "Starting",
        ("False", "RollingOut"),
        extra="Reconciling",
        deployment={"replicas": 2},
    ),
    Case(
        "what a pod waits for is in the message",
        "Starting",
        ("False", "RollingOut"),
        says="pod backend-1: ImagePullBackOff",
        extra="Reconciling",
        deployment=ROLLING,
        pods=(pod(problem="ImagePullBackOff (image 'x')"),),
    ),
    Case(
        "why no pod can be created is in the message",
        "Starting",
        ("False", "RollingOut"),
        says="exceeded quota",
        extra="Reconciling",
        deployment=ROLLING
        | {
            "replicas": 0,
            "conditions": [
                {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
            ],
        },
        pods=(),
    ),
    Case(
        "the Deployment ran into its deadline",
        "Failed",
        ("False", "ProgressDeadlineExceeded"),
        says="no progress for 600 s",
        extra="Stalled",
        deployment={"progressing": "ProgressDeadlineExceeded", "available": 0},
    ),
    Case(
        "a pod was lost after all was well: Degraded, since nothing is being rolled out",
        "Degraded",
        ("False", "PodsUnavailable"),
        says="0/1 pods are available; pod backend-1: CrashLoopBackOff",
        deployment={"available": 0},
        pods=(pod(problem="CrashLoopBackOff (exit code 1)"),),
        before=SETTLED,
    ),
    Case(
        "pods that were added come up",
        "Starting",
        ("False", "PodsUnavailable"),
        extra="Reconciling",
        deployment={"available": 0},
        before=(("Reconciling", "True", "RollingOut", 10), ("Ready", "False", "RollingOut", 10)),
    ),
    Case(
        "pods that were added do not come up within the deadline",
        "Failed",
        ("False", "ProgressDeadlineExceeded"),
        extra="Stalled",
        deployment={"available": 0},
        before=(("Reconciling", "True", "X", 700), ("Ready", "False", "X", 700)),
    ),
    Case(
        "stalled stays stalled while there is no progress",
        "Failed",
        ("False", "ProgressDeadlineExceeded"),
        extra="Stalled",
        deployment={"available": 0},
        before=(
            ("Stalled", "True", "ProgressDeadlineExceeded", 10),
            ("Ready", "False", "ProgressDeadlineExceeded", 10),
        ),
    ),
    Case(
        "the time spent waiting for dependencies does not count",
        "Starting",
        ("False", "PodsUnavailable"),
        extra="Reconciling",
        deployment={"available": 0},
        before=(
            ("Reconciling", "True", "X", 700),
            ("Ready", "False", "X", 700),
            ("DependenciesReady", "True", "DependenciesReady", 100),
        ),
    ),
    Case(
        "the process runs, its endpoints do not fully answer",
        "Degraded",
        ("False", "EndpointsDegraded"),
        says="1/2 endpoints failing: query (GET /q: HTTP500)",
        spec={"endpoints": ENDPOINTS},
        states=BAD,
    ),
    Case(
        "an optional endpoint that fails is only reported",
        "Running",
        ("True", "Running"),
        says="1/2 endpoints failing",
        spec={"endpoints": OPTIONAL},
        states=BAD,
    ),
    Case(
        "the first probes are under way",
        "Starting",
        ("False", "Probing"),
        says="no answer yet from: query",
        extra="Reconciling",
        spec={"endpoints": ENDPOINTS},
        states={"health": "Healthy", "query": "Unknown:Probing"},
    ),
    Case(
        "nothing is reached anywhere: unknown, not degraded",
        "Running",
        ("Unknown", "NothingReached"),
        says="check that network policies",
        extra="Reconciling",
        spec={"endpoints": ENDPOINTS},
        states={"health": "Unknown:NothingReached", "query": "Unknown:NothingReached"},
        before=SETTLED,
    ),
    Case(
        "endpoints do not count while a roll-out is under way",
        "Starting",
        ("False", "RollingOut"),
        extra="Reconciling",
        spec={"endpoints": ENDPOINTS},
        deployment=ROLLING,
        states=BAD,
    ),
    Case(
        "a start waits for its dependencies and names them",
        "Starting",
        ("False", "DependencyNotReady"),
        says="model is not available yet",
        extra="Reconciling",
        deployment=None,
        pods=(),
        dependencies=Dependencies(unmet=(WAITS,)),
    ),
    Case(
        "who runs does not wait",
        "Running",
        ("True", "Running"),
        dependencies=Dependencies(unmet=(WAITS,)),
    ),
    Case(
        "a cycle is refused with its path",
        "Failed",
        ("False", "DependencyCycle"),
        says="backend -> model -> backend",
        extra="Stalled",
        deployment=None,
        pods=(),
        dependencies=Dependencies(cycle=("backend", "model", "backend")),
    ),
    Case(
        "its pods are on their way out",
        "Stopping",
        ("False", "Stopping"),
        says="1 pods are still there",
        extra="Reconciling",
        spec={"suspend": True},
    ),
    Case(
        "stopped is what was asked for, so that waiters end",
        "Stopped",
        ("True", "Stopped"),
        spec={"suspend": True},
        deployment={"wanted": 0},
        pods=(),
    ),
    Case(
        "a pod that still ends is not stopped yet",
        "Stopping",
        ("False", "Stopping"),
        extra="Reconciling",
        spec={"suspend": True},
        deployment={"wanted": 0},
        pods=(pod(terminating=True),),
    ),
    Case(
        "suspended before it ever ran",
        "Stopped",
        ("True", "Stopped"),
        spec={"suspend": True},
        deployment=None,
        pods=(),
    ),
    Case(
        "scaled to zero without being suspended",
        "Stopped",
        ("True", "ScaledToZero"),
        spec={"replicas": 0},
        deployment={"wanted": 0},
        pods=(),
    ),
    Case(
        "stopping wins over a cycle: a stopped service waits for nobody",
        "Stopped",
        ("True", "Stopped"),
        spec={"suspend": True},
        deployment=None,
        pods=(),
        dependencies=Dependencies(cycle=("backend", "backend")),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.reason)
def test_status(
    case: Case, make_service: Make, make_deployment: Make, make_front: Make, now: datetime
) -> None:
    before = {
        "observedGeneration": 1,
        "conditions": [
            condition(type_, status, reason, ago=ago, now=now)
            for type_, status, reason, ago in case.before
        ],
    }
    service = make_service(status=before if case.before else None, **case.spec)
    deployment = None if case.deployment is None else make_deployment(service, **case.deployment)
    seen = Seen(
        deployment=deployment,
        service=make_front(service),
        pods=case.pods,
        dependencies=case.dependencies,
        endpoints=endpoints(now, **case.states),
    )
    status = plan(service, seen, now).status
    ready = find_condition(status.conditions, "Ready")
    assert ready is not None
    assert (status.phase, ready.status, ready.reason) == (case.phase, *case.ready)
    assert case.says in ready.message
    abnormal = {each.type for each in status.conditions} & {"Reconciling", "Stalled"}
    assert abnormal == ({case.extra} if case.extra else set())
    assert not kstatus_violations(
        status.conditions, generation=1, observed_generation=status.observed_generation
    )


def test_a_plan_comes_back_when_the_deadline_passes(
    make_service: Make, make_deployment: Make, make_front: Make, now: datetime
) -> None:
    before = [
        condition("Reconciling", "True", "X", ago=100, now=now),
        condition("Ready", "False", "X", ago=100, now=now),
    ]
    service = make_service(status={"observedGeneration": 1, "conditions": before})
    seen = Seen(deployment=make_deployment(service, available=0), service=make_front(service))
    again = plan(service, seen, now).requeue_after
    assert again == 600 - 100 + 5
    later = plan(service, seen, now + timedelta(seconds=again))
    assert find_condition(later.status.conditions, "Stalled") is not None


def test_the_same_sight_gives_the_same_status(
    make_service: Make, make_deployment: Make, make_front: Make, now: datetime
) -> None:
    first = make_service(endpoints=ENDPOINTS)
    seen = Seen(
        deployment=make_deployment(first),
        service=make_front(first),
        pods=(pod(),),
        endpoints=endpoints(now, **BAD),
    )
    status = plan(first, seen, now).status.dump()
    second = make_service(endpoints=ENDPOINTS, status=status)
    again = plan(second, seen, now + timedelta(hours=1))
    assert again.status.dump() == status, "steady state: zero writes"
    assert not again.notes
