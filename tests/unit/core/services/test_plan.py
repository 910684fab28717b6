"""What is done about a service, case by case."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from capibara_operator.core.services.model import (
    ApplyDeployment,
    ApplyService,
    Dependencies,
    Plan,
    ScaleDeployment,
    Seen,
    Service,
    Unmet,
)
from capibara_operator.core.services.plan import plan

Make = Callable[..., Any]

FREE = Dependencies()
WAITS = Unmet("model", "DependencyNotReady", "model is not available yet")


def actions(found: Plan) -> list[str]:
    """Short names of the actions, in order."""
    names: list[str] = []
    for action in found.actions:
        match action:
            case ApplyService():
                names.append("service")
            case ApplyDeployment(replicas=replicas):
                names.append(f"deployment {replicas}")
            case ScaleDeployment(replicas=replicas):
                names.append(f"scale {replicas}")
    return names


@dataclass(frozen=True)
class ActionCase:
    reason: str
    want: list[str]
    spec: Mapping[str, Any] = field(default_factory=dict)
    deployment: Mapping[str, Any] | None = field(default_factory=dict)
    older: Mapping[str, Any] = field(default_factory=dict)  # the spec that the children have
    front: bool = True
    dependencies: Dependencies = FREE


ACTIONS = [
    ActionCase("at rest there is nothing to do", []),
    ActionCase("a new service", ["service", "deployment 2"], {"replicas": 2}, None, front=False),
    ActionCase(
        "a start that has to wait gets its Service only",
        ["service"],
        deployment=None,
        front=False,
        dependencies=Dependencies(unmet=(WAITS,)),
    ),
    ActionCase(
        "a cycle starts nothing",
        [],
        deployment=None,
        dependencies=Dependencies(cycle=("backend", "backend")),
    ),
    ActionCase(
        "a dependency that fails stops nobody",
        [],
        dependencies=Dependencies(unmet=(WAITS,)),
    ),
    ActionCase(
        "who stopped starts only when its dependencies are ready",
        [],
        deployment={"wanted": 0},
        dependencies=Dependencies(unmet=(WAITS,)),
    ),
    ActionCase("a stop is a scale to zero", ["scale 0"], {"suspend": True}, {"wanted": 1}),
    ActionCase("a resume is a scale back", ["scale 3"], {"replicas": 3}, {"wanted": 0}),
    ActionCase("suspended before it ran: no Deployment", [], {"suspend": True}, None),
    ActionCase("more pods", ["scale 3"], {"replicas": 3}, {"wanted": 1}),
    ActionCase(
        "less pods come before a new template, which would start some",
        ["scale 0", "deployment 0"],
        {"suspend": True, "image": "backend:2"},
        {"wanted": 1},
        older={"image": "backend:1"},
    ),
    ActionCase(
        "a new template comes before more pods",
        ["deployment 3", "scale 3"],
        {"replicas": 3, "image": "backend:2"},
        {"wanted": 0},
        older={"image": "backend:1"},
    ),
]


@pytest.mark.parametrize("case", ACTIONS, ids=lambda case: case.reason)
def test_actions(
    case: ActionCase, make_service: Make, make_deployment: Make, make_front: Make, now: datetime
) -> None:
    service: Service = make_service(**case.spec)
    older = make_service(**{**case.spec, **case.older})
    seen = Seen(
        deployment=None
        if case.deployment is None
        else make_deployment(older, **{"wanted": 1, **case.deployment}),
        service=make_front(service) if case.front else None,
        dependencies=case.dependencies,
    )
    assert actions(plan(service, seen, now)) == case.want
