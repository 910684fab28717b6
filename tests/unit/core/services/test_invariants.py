"""What holds of every status that is ever written, whatever is seen."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capibara_operator.api.service import CapibaraServiceStatus, EndpointState, EndpointStatus
from capibara_operator.core.conditions import find_condition, kstatus_violations
from capibara_operator.core.services.model import (
    ApplyDeployment,
    Dependencies,
    Pod,
    ScaleDeployment,
    Seen,
    Service,
    Unmet,
)
from capibara_operator.core.services.plan import plan

Make = Callable[..., Any]

ENDPOINTS = [
    {"name": "health", "path": "/health"},
    {"name": "query", "path": "/q", "required": False},
]
REASONS = ("ReplicaSetUpdated", "NewReplicaSetAvailable", "ProgressDeadlineExceeded")
COUNT = st.integers(0, 3)

DEPLOYMENTS = st.none() | st.fixed_dictionaries(
    {
        "wanted": COUNT,
        "available": COUNT,
        "replicas": COUNT,
        "updated": COUNT,
        "observed": st.sampled_from([2, 3]),
        "progressing": st.sampled_from(REASONS),
    }
)
PODS = st.lists(
    st.builds(
        Pod,
        name=st.sampled_from(["a", "b"]),
        ip=st.just("10.0.0.1"),
        ready=st.booleans(),
        running=st.booleans(),
        terminating=st.booleans(),
        host_network=st.just(False),
        problem=st.sampled_from(["", "CrashLoopBackOff (exit code 1)"]),
    ),
    max_size=3,
).map(tuple)
DEPENDENCIES = st.sampled_from(
    [
        Dependencies(),
        Dependencies(unmet=(Unmet("model", "DependencyNotReady", "model is not ready"),)),
        Dependencies(cycle=("backend", "model", "backend")),
    ]
)
RESULTS = st.fixed_dictionaries(
    {
        name: st.sampled_from(
            [
                (EndpointState.HEALTHY, ""),
                (EndpointState.FAILING, "HTTP500"),
                (EndpointState.UNKNOWN, "Probing"),
                (EndpointState.UNKNOWN, "NothingReached"),
                (EndpointState.UNKNOWN, "NoPods"),
            ]
        )
        for name in ("health", "query")
    }
)
STEPS = st.lists(
    st.tuples(
        st.fixed_dictionaries({"suspend": st.booleans(), "replicas": COUNT}),
        DEPLOYMENTS,
        PODS,
        DEPENDENCIES,
        RESULTS,
        st.integers(0, 900),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@given(STEPS)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_status_is_one_that_waiters_understand(
    make_service: Make, make_deployment: Make, make_front: Make, now: datetime, steps: Any
) -> None:
    status: dict[str, Any] = {}
    generation = 1
    for spec, deployment, pods, dependencies, results, seconds, edited in steps:
        now += timedelta(seconds=seconds)
        generation += edited
        service: Service = make_service(
            endpoints=ENDPOINTS, status=status, generation=generation, **spec
        )
        found = Seen(
            deployment=None if deployment is None else make_deployment(service, **deployment),
            service=make_front(service),
            pods=pods,
            dependencies=dependencies,
            endpoints={
                name: EndpointStatus(name=name, state=state, reason=reason, since=now)
                for name, (state, reason) in results.items()
            },
        )
        planned = plan(service, found, now)
        _check(service, planned.status)
        _check_actions(service, found, planned.actions)
        status = planned.status.dump()
        again = plan(
            make_service(endpoints=ENDPOINTS, status=status, generation=generation, **spec),
            found,
            now,
        )
        assert again.status.dump() == status, "the same sight must not cost a second write"


def _check(service: Service, status: CapibaraServiceStatus) -> None:
    assert not kstatus_violations(
        status.conditions,
        generation=service.generation,
        observed_generation=status.observed_generation,
    )
    CapibaraServiceStatus.model_validate(status.dump())
    ready = find_condition(status.conditions, "Ready")
    assert ready is not None
    assert ready.message, "every status says something"
    if ready.status == "True" and not service.spec.suspend and service.spec.replicas:
        health = next(each for each in status.endpoints if each.name == "health")
        assert health.state is EndpointState.HEALTHY, "Ready needs each required endpoint"
    if status.phase == "Degraded":
        types = {each.type for each in status.conditions}
        assert not {"Reconciling", "Stalled"} & types, "Degraded is Ready=False alone"


def _check_actions(service: Service, seen: Seen, actions: Any) -> None:
    numbers = [
        each.replicas for each in actions if isinstance(each, (ApplyDeployment, ScaleDeployment))
    ]
    held = seen.dependencies.cycle or seen.dependencies.unmet
    running = seen.deployment is not None and seen.deployment["spec"]["replicas"] > 0
    if service.spec.suspend or (held and not running):
        assert not any(numbers), "nothing starts a service that is suspended or has to wait"
    else:
        assert set(numbers) <= {service.spec.replicas}
