"""Chooses the provider of a run, and says whether the run may use it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from capibara_operator.api.common import (
    DEFAULT_PROVIDER_ANNOTATION,
    LabelOperator,
    LabelRequirement,
    LabelSelector,
)
from capibara_operator.api.provider import SandboxProviderSpec, SandboxProviderStatus
from capibara_operator.api.run import RunReason
from capibara_operator.core.conditions import READY, find_condition, is_true


@dataclass(frozen=True, slots=True)
class ProviderView:
    """A SandboxProvider as it was last seen. ``ready``: for the generation that was seen."""

    name: str
    spec: SandboxProviderSpec
    is_default: bool
    created: str
    ready: bool
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProviderRefused:
    """No provider. ProviderUnreachable and AuthenticationFailed may pass without a new run."""

    reason: RunReason
    message: str


def view_provider(obj: Mapping[str, Any]) -> ProviderView | None:
    """A SandboxProvider manifest as a view; None when its spec is not one of ours."""
    metadata = obj["metadata"]
    try:
        spec = SandboxProviderSpec.model_validate(obj.get("spec") or {})
        status = SandboxProviderStatus.model_validate(obj.get("status") or {})
    except ValidationError:
        return None
    current = status.observed_generation == metadata.get("generation", 0)
    ready = find_condition(status.conditions, READY) if current else None
    annotations = metadata.get("annotations") or {}
    return ProviderView(
        name=metadata["name"],
        spec=spec,
        is_default=annotations.get(DEFAULT_PROVIDER_ANNOTATION) == "true",
        created=metadata.get("creationTimestamp", ""),
        ready=ready is not None and is_true(status.conditions, READY),
        reason=ready.reason if ready else "",
        message=ready.message if ready else "",
    )


def select_provider(
    name: str | None,
    *,
    namespace: str,
    namespace_labels: Mapping[str, str],
    providers: Iterable[ProviderView],
) -> ProviderView | ProviderRefused:
    """The provider of that name, or the default one where ``name`` is None.

    Of several defaults the newest is taken, as with StorageClass. ProviderNotFound also where
    ``namespace`` may not use it.
    """
    known = list(providers)
    found = _named(known, name) if name else _default(known)
    if found is None:
        return ProviderRefused(RunReason.PROVIDER_NOT_FOUND, _missing(name, known))
    if not selects(found.spec.namespace_selector, namespace_labels):
        return ProviderRefused(
            RunReason.PROVIDER_NOT_FOUND,
            f"SandboxProvider {found.name!r} is not open to namespace {namespace!r}: its"
            " spec.namespaceSelector does not match the namespace's labels. Ask its administrator"
            " to open it, or name another provider in spec.providerRef of a new run.",
        )
    return found if found.ready else _refuse_unready(found)


def selects(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; an absent one matches nothing, an empty one everything."""
    if selector is None:
        return False
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _holds(requirement, labels) for requirement in selector.match_expressions
    )


def template_allowed(
    provider: ProviderView, template_id: str, *, template_namespace: str, operator_namespace: str
) -> ProviderRefused | None:
    """None where a template may be used there: of the operator's catalogue, or allowed by ID."""
    if template_namespace == operator_namespace:
        return None
    if template_id in provider.spec.allowed_template_ids:
        return None
    return ProviderRefused(
        RunReason.INVALID_SPEC,
        f"SandboxProvider {provider.name!r} does not allow templateID {template_id!r} to"
        f" templates of namespace {template_namespace!r}. Ask its administrator to add it to"
        " spec.allowedTemplateIDs, or use a template of the shared catalogue.",
    )


def _named(known: Iterable[ProviderView], name: str) -> ProviderView | None:
    return next((view for view in known if view.name == name), None)


def _default(known: Iterable[ProviderView]) -> ProviderView | None:
    defaults = [view for view in known if view.is_default]
    return max(defaults, key=lambda view: (view.created, view.name), default=None)


def _missing(name: str | None, known: Iterable[ProviderView]) -> str:
    names = ", ".join(sorted(view.name for view in known)[:10]) or "none"
    if name:
        return (
            f"No SandboxProvider {name!r}; there are: {names}. Create it, or name another in"
            " spec.providerRef of a new run."
        )
    return (
        f"No SandboxProvider is the default; there are: {names}. Annotate one with"
        f' {DEFAULT_PROVIDER_ANNOTATION}: "true", or name one in spec.providerRef of a new run.'
    )


def _refuse_unready(view: ProviderView) -> ProviderRefused:
    denied = view.reason == RunReason.AUTHENTICATION_FAILED
    return ProviderRefused(
        RunReason.AUTHENTICATION_FAILED if denied else RunReason.PROVIDER_UNREACHABLE,
        f"SandboxProvider {view.name!r} is not ready:"
        f" {view.message or 'its connection has not been tested yet'}",
    )


def _holds(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    match requirement.operator:
        case LabelOperator.IN:
            return labels.get(requirement.key) in requirement.values
        case LabelOperator.NOT_IN:
            return labels.get(requirement.key) not in requirement.values
        case LabelOperator.EXISTS:
            return requirement.key in labels
        case LabelOperator.DOES_NOT_EXIST:
            return requirement.key not in labels
