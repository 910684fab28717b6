"""Which template and which provider a run gets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from capibara_operator.api.common import LabelSelector
from capibara_operator.api.run import RunReason, SandboxRunSpec
from capibara_operator.core.providers.select import (
    ProviderRefused,
    ProviderView,
    select_provider,
    selects,
    template_allowed,
    view_provider,
)
from capibara_operator.core.templates.select import (
    TemplateChosen,
    TemplateRefused,
    TemplateView,
    select_template,
    view_template,
)

SYSTEM, MINE = "capibara-system", "mine"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def stored(
    name: str, spec: dict[str, Any], *, namespace: str = "", ready: bool = True, generation: int = 1
) -> dict[str, Any]:
    condition = {
        "type": "Ready",
        "status": "True" if ready else "False",
        "reason": "Available" if ready else "AuthenticationFailed",
        "message": "The key is wrong.",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    return {
        "metadata": {"name": name, "namespace": namespace, "generation": generation},
        "spec": spec,
        "status": {"observedGeneration": 1, "conditions": [condition]},
    }


def template(
    name: str, *tasks: str, namespace: str = SYSTEM, ready: bool = True, **spec: Any
) -> TemplateView:
    view = view_template(
        stored(
            name,
            {"templateID": name, "taskTypes": list(tasks)} | spec,
            namespace=namespace,
            ready=ready,
        )
    )
    assert view is not None
    return view


SHARED = [
    template("default", "General"),
    template("data-analysis", "DataAnalysis"),
    template("quick-script", "QuickScript"),
    template("secret", "General", namespace="other"),
]


def choose(
    templates: list[TemplateView], namespace: str = MINE, **spec: Any
) -> TemplateChosen | TemplateRefused:
    return select_template(
        SandboxRunSpec.model_validate({"code": "import pandas"} | spec),
        namespace=namespace,
        operator_namespace=SYSTEM,
        templates=templates,
    )


def chosen(found: TemplateChosen | TemplateRefused) -> tuple[str, str]:
    assert isinstance(found, TemplateChosen), found
    return found.template.namespace, found.template.name


def test_detected() -> None:
    found = choose(SHARED)
    assert chosen(found) == (SYSTEM, "data-analysis")
    assert found.detection.task_type == "DataAnalysis"


def test_given_task_type() -> None:
    assert chosen(choose(SHARED, taskType="QuickScript")) == (SYSTEM, "quick-script")


def test_reference() -> None:
    found = choose(SHARED, templateRef={"name": "quick-script"})
    assert chosen(found) == (SYSTEM, "quick-script")
    assert found.detection.task_type == "DataAnalysis"


@pytest.mark.parametrize("spec", [{}, {"templateRef": {"name": "data-analysis"}}])
def test_the_own_namespace_comes_first(spec: dict[str, Any]) -> None:
    own = template("data-analysis", "DataAnalysis", namespace=MINE)
    assert chosen(choose([*SHARED, own], **spec)) == (MINE, "data-analysis")


def test_other_namespaces_are_not_looked_at() -> None:
    found = choose(SHARED, templateRef={"name": "secret"})
    assert isinstance(found, TemplateRefused)
    assert found.reason is RunReason.TEMPLATE_NOT_FOUND
    assert "there are: data-analysis, default, quick-script" in found.message


def test_detected_but_not_served_takes_general() -> None:
    found = choose([template("default", "General")])
    assert chosen(found) == (SYSTEM, "default")
    assert found.detection.task_type == "DataAnalysis"


def test_given_but_not_served_is_refused() -> None:
    found = choose(SHARED, taskType="MachineLearning")
    assert isinstance(found, TemplateRefused)
    assert found.reason is RunReason.TEMPLATE_NOT_FOUND
    assert "MachineLearning" in found.message


def test_unready_is_waited_for_and_not_passed_over() -> None:
    own = template("mine", "DataAnalysis", namespace=MINE, ready=False)
    found = choose([*SHARED, own])
    assert isinstance(found, TemplateRefused)
    assert found.reason is RunReason.TEMPLATE_NOT_READY
    assert "mine/mine is not ready: The key is wrong." in found.message


def test_of_several_the_ready_one_then_by_name() -> None:
    several = [
        template("b", "DataAnalysis"),
        template("a", "DataAnalysis", ready=False),
        template("c", "DataAnalysis"),
    ]
    assert chosen(choose(several)) == (SYSTEM, "b")


def test_of_several_the_one_that_the_code_fits() -> None:
    several = [
        template("a", "DataAnalysis"),
        template("z", "DataAnalysis", detect={"imports": ["pandas"]}),
    ]
    assert chosen(choose(several)) == (SYSTEM, "z")


def test_languages() -> None:
    python = template("default", "General", languages=["python"])
    assert chosen(choose([python])) == (SYSTEM, "default")
    assert chosen(choose([python], code=None, command=["ls"], language="bash"))
    found = choose([python], language="bash")
    assert isinstance(found, TemplateRefused)
    named = choose([python], language="bash", templateRef={"name": "default"})
    assert isinstance(named, TemplateRefused)
    assert named.reason is RunReason.INVALID_SPEC


def test_a_status_of_an_older_generation_is_not_trusted() -> None:
    view = view_template(stored("a", {"templateID": "a"}, generation=2))
    assert view is not None
    assert not view.ready
    assert "not been checked yet" in view.message
    assert view_template(stored("a", {"unknown": 1})) is None


# --- providers


def provider(
    name: str, *, default: bool = False, created: str = "", ready: bool = True, **spec: Any
) -> ProviderView:
    obj = stored(
        name,
        {"credentialsSecretRef": {"name": "x"}, "namespaceSelector": {}} | spec,
        ready=ready,
    )
    obj["metadata"]["creationTimestamp"] = created
    if default:
        obj["metadata"]["annotations"] = {"capibara6.dev/is-default-provider": "true"}
    view = view_provider(obj)
    assert view is not None
    return view


def pick(
    name: str | None, providers: list[ProviderView], **labels: str
) -> ProviderView | ProviderRefused:
    return select_provider(name, namespace=MINE, namespace_labels=labels, providers=providers)


def test_the_named_one_and_the_default_one() -> None:
    both = [provider("a", default=True), provider("b")]
    assert pick("b", both) == both[1]
    assert pick(None, both) == both[0]


def test_the_newest_of_several_defaults() -> None:
    old = provider("z", default=True, created="2026-01-01T00:00:00Z")
    new = provider("a", default=True, created="2026-01-02T00:00:00Z")
    assert pick(None, [new, old]) == new


@pytest.mark.parametrize(
    ("found", "reason", "message"),
    [
        (pick("x", [provider("a")]), "ProviderNotFound", "No SandboxProvider 'x'; there are: a."),
        (pick(None, [provider("a")]), "ProviderNotFound", "is-default-provider"),
        (pick(None, []), "ProviderNotFound", "there are: none"),
        (
            pick("a", [provider("a", namespaceSelector={"matchLabels": {"team": "x"}})]),
            "ProviderNotFound",
            "not open to namespace 'mine'",
        ),
        (
            pick("a", [provider("a", namespaceSelector=None)]),
            "ProviderNotFound",
            "not open to namespace",
        ),
        (pick("a", [provider("a", ready=False)]), "AuthenticationFailed", "The key is wrong."),
    ],
)
def test_refused(found: ProviderView | ProviderRefused, reason: str, message: str) -> None:
    assert isinstance(found, ProviderRefused)
    assert found.reason == reason
    assert message in found.message


def test_never_tested_is_unreachable() -> None:
    obj = stored("a", {"credentialsSecretRef": {"name": "x"}, "namespaceSelector": {}})
    view = view_provider(obj | {"status": {"observedGeneration": -1}})
    assert view is not None
    found = pick("a", [view])
    assert isinstance(found, ProviderRefused)
    assert found.reason is RunReason.PROVIDER_UNREACHABLE
    assert "has not been tested yet" in found.message


@pytest.mark.parametrize(
    ("selector", "want"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"team": "blue"}}, True),
        ({"matchLabels": {"team": "red"}}, False),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["blue"]}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["blue"]}]}, False),
        ({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}, True),
        ({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}, True),
        (
            {
                "matchLabels": {"team": "blue"},
                "matchExpressions": [{"key": "zone", "operator": "Exists"}],
            },
            False,
        ),
    ],
)
def test_label_selectors(selector: dict[str, Any] | None, want: bool) -> None:
    model = None if selector is None else LabelSelector.model_validate(selector)
    assert selects(model, {"team": "blue"}) is want


@pytest.mark.parametrize(
    ("template_id", "namespace", "want"),
    [("any", SYSTEM, True), ("listed", MINE, True), ("any", MINE, False)],
)
def test_templates_outside_the_catalogue_must_be_allowed(
    template_id: str, namespace: str, want: bool
) -> None:
    found = template_allowed(
        provider("a", allowedTemplateIDs=["listed"]),
        template_id,
        template_namespace=namespace,
        operator_namespace=SYSTEM,
    )
    assert (found is None) is want
    assert found is None or "spec.allowedTemplateIDs" in found.message
