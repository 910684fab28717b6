"""The four kinds as the API server knows them: names, columns, subresources."""

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from capibara_operator.api.provider import SandboxProviderSpec, SandboxProviderStatus
from capibara_operator.api.run import RUN_NAME_RULE, SandboxRunSpec, SandboxRunStatus
from capibara_operator.api.service import (
    SERVICE_RULES,
    CapibaraServiceSpec,
    CapibaraServiceStatus,
)
from capibara_operator.api.template import SandboxTemplateSpec, SandboxTemplateStatus


@dataclass(frozen=True, slots=True)
class Column:
    """One column of ``kubectl get``; ``wide`` ones are shown by ``-o wide`` only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of the API group. ``rules`` are CEL rules on the whole object."""

    kind: str
    plural: str
    short_name: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[Column, ...]
    namespaced: bool = True
    categories: tuple[str, ...] = ("capibara",)
    rules: tuple[dict[str, str], ...] = ()
    selectable: tuple[str, ...] = ()
    scale: dict[str, Any] | None = None

    @property
    def singular(self) -> str:
        """The name of one object in URLs and messages."""
        return self.kind.lower()


def _condition(type_: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{field}'


_AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")
_READY: Final = Column("Ready", _condition("Ready", "status"))
_STATUS: Final = Column("Status", _condition("Ready", "reason"))
_MESSAGE: Final = Column("Message", _condition("Ready", "message"), wide=True)

SANDBOX_RUN: Final = Kind(
    kind="SandboxRun",
    plural="sandboxruns",
    short_name="sbr",
    description="A SandboxRun executes code or a command once, in a sandbox of its own, and keeps"
    " the result in its status.",
    spec=SandboxRunSpec,
    status=SandboxRunStatus,
    rules=(RUN_NAME_RULE,),
    selectable=(".status.phase", ".status.sandboxID", ".spec.templateRef.name"),
    columns=(
        Column("Phase", ".status.phase"),
        Column("Task", ".status.detection.taskType"),
        Column("Template", ".status.template.name"),
        Column("Exit", ".status.exitCode", "integer"),
        Column("Duration", ".status.duration"),
        _AGE,
        Column("Sandbox", ".status.sandboxID", wide=True),
        Column("Provider", ".status.provider", wide=True),
        Column("Reason", ".status.reason", wide=True),
        Column("Message", ".status.message", wide=True),
    ),
)

SANDBOX_TEMPLATE: Final = Kind(
    kind="SandboxTemplate",
    plural="sandboxtemplates",
    short_name="sbxt",
    description="A SandboxTemplate is a kind of sandbox that runs ask for by name, by task type,"
    " or by what their code looks like.",
    spec=SandboxTemplateSpec,
    status=SandboxTemplateStatus,
    selectable=(".spec.templateID",),
    columns=(
        _READY,
        _STATUS,
        Column("Template-ID", ".spec.templateID"),
        Column("CPU", ".spec.resources.cpu"),
        Column("Memory", ".spec.resources.memory"),
        Column("Timeout", ".spec.timeoutSeconds", "integer"),
        _AGE,
        _MESSAGE,
    ),
)

SANDBOX_PROVIDER: Final = Kind(
    kind="SandboxProvider",
    plural="sandboxproviders",
    short_name="sbxp",
    description="A SandboxProvider is an E2B-compatible service that gives sandboxes, with the"
    " limits under which the operator uses it.",
    spec=SandboxProviderSpec,
    status=SandboxProviderStatus,
    namespaced=False,
    columns=(
        _READY,
        _STATUS,
        Column("Default", r".metadata.annotations.capibara6\.dev/is-default-provider", "string"),
        Column("API-URL", ".spec.apiURL"),
        Column("Max", ".spec.limits.maxConcurrentSandboxes", "integer"),
        _AGE,
        _MESSAGE,
    ),
)

CAPIBARA_SERVICE: Final = Kind(
    kind="CapibaraService",
    plural="capibaraservices",
    short_name="csvc",
    description="A CapibaraService runs one service and is Ready only while the endpoints that"
    " make it useful answer.",
    spec=CapibaraServiceSpec,
    status=CapibaraServiceStatus,
    categories=("all", "capibara"),
    rules=SERVICE_RULES,
    selectable=(".status.phase",),
    scale={
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
    columns=(
        _READY,
        _STATUS,
        Column("Endpoints", ".status.endpointSummary"),
        Column("Replicas", ".status.replicaSummary"),
        _AGE,
        Column("URL", ".status.url", wide=True),
        Column("Image", ".spec.image", wide=True),
        Column("Revision", ".status.revision", wide=True),
        _MESSAGE,
    ),
)

KINDS: Final = (CAPIBARA_SERVICE, SANDBOX_PROVIDER, SANDBOX_RUN, SANDBOX_TEMPLATE)
