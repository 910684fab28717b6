"""Which dependencies hold a start up."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capibara_operator.api.service import ServiceDependency
from capibara_operator.core.services.dependencies import find_cycle, names_of, unmet_of


def service(
    *, suspend: bool = False, generation: int = 1, observed: int = 1, **status: Any
) -> dict[str, Any]:
    conditions = [
        {
            "type": type_,
            "status": str(value),
            "reason": "X",
            "lastTransitionTime": "2026-05-04T12:00:00Z",
            "observedGeneration": 1,
        }
        for type_, value in status.pop("conditions", {}).items()
    ]
    return {
        "metadata": {"name": "model", "generation": generation},
        "spec": {"suspend": suspend},
        "status": {"observedGeneration": observed, "conditions": conditions, **status},
    }


AVAILABLE = {"WorkloadAvailable": True}
HEALTHY = {**AVAILABLE, "EndpointsHealthy": True}


@dataclass(frozen=True)
class Case:
    reason: str
    dependency: dict[str, Any]
    obj: dict[str, Any] | None
    want: str  # what is said, or nothing: it is met
    why: str = field(default="DependencyNotReady")


CASES = [
    Case("healthy is the default", {}, service(conditions=HEALTHY), ""),
    Case(
        "available alone is not healthy",
        {},
        service(conditions=AVAILABLE),
        "model is not healthy at all its endpoints yet",
    ),
    Case("not even available", {}, service(), "model is not available yet"),
    Case(
        "available is enough where asked for",
        {"condition": "Available"},
        service(conditions=AVAILABLE),
        "",
    ),
    Case("a pod is enough where asked for", {"condition": "Started"}, service(replicas=1), ""),
    Case("no pod yet", {"condition": "Started"}, service(replicas=0), "model has no pods yet"),
    Case(
        "a status about an older spec does not count",
        {},
        service(conditions=HEALTHY, generation=2),
        "model is being started",
    ),
    Case(
        "a suspended one is not about to be ready",
        {},
        service(suspend=True, conditions=HEALTHY),
        "model is suspended",
    ),
    Case(
        "a failed one is said to be so",
        {},
        service(conditions={"Stalled": True}),
        "model is not available yet and is stalled",
    ),
    Case("missing", {}, None, "model does not exist in this namespace", "DependencyNotFound"),
    Case("an optional one may be missing", {"optional": True}, None, ""),
    Case("an optional one may be suspended", {"optional": True}, service(suspend=True), ""),
    Case(
        "an optional one that is there is waited for",
        {"optional": True},
        service(),
        "model is not available yet",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.reason)
def test_unmet(case: Case) -> None:
    dependency = ServiceDependency.model_validate({"name": "model", **case.dependency})
    found = unmet_of([dependency], {"model": case.obj})
    assert [(each.name, each.message) for each in found] == (
        [("model", case.want)] if case.want else []
    )
    assert all(each.reason == case.why for each in found)


@pytest.mark.parametrize(
    ("edges", "want"),
    [
        ({}, ()),
        ({"a": "b", "b": "c"}, ()),
        ({"a": "b", "b": "a"}, ("a", "b", "a")),
        ({"a": "b", "b": "c", "c": "a"}, ("a", "b", "c", "a")),
        ({"a": "b", "b": "c", "c": "b"}, ()),  # b and c are at fault, not a
        ({"a": "bc", "b": "d", "c": "d", "d": ""}, ()),  # a diamond
        ({"a": "a"}, ("a", "a")),
    ],
)
def test_cycles(edges: dict[str, str], want: tuple[str, ...]) -> None:
    assert find_cycle("a", lambda name: edges.get(name, "")) == want


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4)))
def test_a_cycle_is_a_real_path_and_is_found_whenever_there_is_one(
    edges: dict[str, list[str]],
) -> None:
    def step(name: str) -> list[str]:
        return edges.get(name, [])

    path = find_cycle("a", step)
    if path:
        assert path[0] == path[-1] == "a"
        assert all(after in step(before) for before, after in pairwise(path))
        return
    reached, todo = set[str](), step("a")
    while todo:
        reached |= set(todo)
        todo = [next_ for name in todo for next_ in step(name) if next_ not in reached]
    assert "a" not in reached


def test_names_of_whatever_the_api_server_sends() -> None:
    assert names_of(None) == ()
    assert names_of({"spec": {}}) == ()
    assert names_of({"spec": {"dependsOn": [{"name": "a"}, {"name": "b"}]}}) == ("a", "b")
