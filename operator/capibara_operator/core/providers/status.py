"""The status of a SandboxProvider."""

from dataclasses import dataclass
from datetime import datetime

from capibara_operator.api.provider import SandboxProviderSpec, SandboxProviderStatus
from capibara_operator.core.conditions import derive_conditions, ready_findings, stalled_findings


@dataclass(frozen=True, slots=True)
class ProviderProblem:
    """Why a provider cannot be used: ProviderUnreachable, AuthenticationFailed or InvalidSpec."""

    reason: str
    message: str


def provider_status(
    previous: SandboxProviderStatus,
    spec: SandboxProviderSpec | None,
    problem: ProviderProblem | None,
    *,
    generation: int,
    now: datetime,
) -> SandboxProviderStatus:
    """The status after a connection test; what the sweep counted is kept."""
    if spec is None or problem is not None:
        problem = problem or ProviderProblem("InvalidSpec", "The spec could not be read.")
        findings = stalled_findings(problem.reason, problem.message)
    else:
        where = spec.api_url or spec.domain or "the E2B cloud"
        findings = ready_findings("Connected", f"{where} answers and takes the API key.")
    conditions = derive_conditions(previous.conditions, findings, generation=generation, now=now)
    return previous.model_copy(update={"observed_generation": generation, "conditions": conditions})


def credentials_missing(name: str, key: str, namespace: str, *, found: bool) -> str:
    """What to do where the Secret (``found``: its key) with the API key is missing."""
    what = f"has no key {key!r}, or an empty one" if found else "does not exist"
    verb = "patch the Secret" if found else "create it"
    return (
        f"Secret {namespace}/{name} {what}; {verb} with the provider's API key: kubectl create"
        f" secret generic {name} --namespace {namespace} --from-literal={key}=..."
        f"{' --dry-run=client -o yaml | kubectl apply -f -' if found else ''}"
    )


def credentials_unreadable(name: str, namespace: str, why: str) -> str:
    """What to do where the API server does not let the operator read the Secret."""
    return (
        f"The operator may not read Secret {name} in namespace {namespace} ({why}); grant it get"
        " on secrets there, as the Role of the Helm chart does (rbac.create=true)"
    )
