"""The status of a SandboxTemplate."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from capibara_operator.api.provider import SandboxProviderSpec
from capibara_operator.api.template import SandboxTemplateSpec, SandboxTemplateStatus
from capibara_operator.core.conditions import derive_conditions, ready_findings, stalled_findings

_HASH_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class TemplateProblem:
    """Why a template cannot be used: a reason in CamelCase, and what to do."""

    reason: str
    message: str


def spec_hash(spec: SandboxTemplateSpec) -> str:
    """A short hash of everything that the spec says."""
    text = json.dumps(spec.model_dump(by_alias=True, mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]


def check_template(
    spec: SandboxTemplateSpec,
    *,
    namespace: str,
    operator_namespace: str,
    providers: Iterable[SandboxProviderSpec],
) -> TemplateProblem | None:
    """None where runs may use the template: of the shared catalogue, or allowed by a provider."""
    if namespace == operator_namespace:
        return None
    if any(spec.template_id in provider.allowed_template_ids for provider in providers):
        return None
    return TemplateProblem(
        "TemplateNotAllowed",
        f"No SandboxProvider lists templateID {spec.template_id!r} in spec.allowedTemplateIDs, and"
        f" the template is outside the shared catalogue in namespace {operator_namespace!r}. Ask"
        " the provider's administrator to add it.",
    )


def template_status(
    previous: SandboxTemplateStatus,
    spec: SandboxTemplateSpec | None,
    problem: TemplateProblem | None,
    *,
    generation: int,
    now: datetime,
) -> SandboxTemplateStatus:
    """The whole status; ``spec`` is None where it could not be read."""
    if spec is None or problem is not None:
        problem = problem or TemplateProblem("InvalidSpec", "The spec could not be read.")
        findings = stalled_findings(problem.reason, problem.message)
    else:
        findings = ready_findings("Available", f"Runs get the template {spec.template_id}.")
    return SandboxTemplateStatus(
        observed_generation=generation,
        conditions=derive_conditions(previous.conditions, findings, generation=generation, now=now),
        template_id=spec.template_id if spec else None,
        spec_hash=spec_hash(spec) if spec else None,
    )
