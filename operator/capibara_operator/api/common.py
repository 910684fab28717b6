"""What all kinds share: names, bounds, conditions, references and quantities."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

GROUP: Final = "capibara6.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
FIELD_MANAGER: Final = "capibara-operator"
OPERATOR_NAME: Final = "capibara-operator"

FINALIZER: Final = f"{GROUP}/finalizer"
CLOSED_LABEL: Final = f"{GROUP}/closed"
EXPIRES_AT_LABEL: Final = f"{GROUP}/expires-at"
OPEN_SELECTOR: Final = f"!{CLOSED_LABEL}"
SERVICE_LABEL: Final = f"{GROUP}/service"
RUN_LABEL: Final = f"{GROUP}/run"
DEFAULT_PROVIDER_ANNOTATION: Final = f"{GROUP}/is-default-provider"
RESTARTED_AT_ANNOTATION: Final = "kubectl.kubernetes.io/restartedAt"
PART_OF: Final = "capibara6"

MAX_NAME_LENGTH: Final = 52
"""Of a SandboxRun or CapibaraService: leaves room for suffixes on the children's names."""


class SandboxMetadata(StrEnum):
    """Keys of the metadata that every sandbox of ours carries at its provider."""

    OPERATOR = "operator"
    CLUSTER = "cluster"
    NAMESPACE = "namespace"
    NAME = "name"
    UID = "uid"
    ATTEMPT = "attempt"


_INITIALISMS: Final[Mapping[str, str]] = {"id": "ID", "ids": "IDs", "url": "URL"}


def to_wire_name(name: str) -> str:
    """The camelCase name of a field as Kubernetes writes it: ``sandbox_id`` -> ``sandboxID``."""
    head, *rest = name.split("_")
    return head + "".join(_INITIALISMS.get(part, part.capitalize()) for part in rest)


def rule(expression: str, message: str, *, field_path: str = "") -> dict[str, str]:
    """One CEL rule (``x-kubernetes-validations``) of a schema node."""
    found = {"rule": expression, "message": message}
    return found | {"fieldPath": field_path} if field_path else found


def validations(*rules: dict[str, str]) -> dict[str, Any]:
    """CEL rules in the form that ``json_schema_extra`` takes."""
    return {"x-kubernetes-validations": list(rules)}


def exactly_one_of(*fields: str) -> str:
    """A CEL expression: one of the fields, by their names on the wire, is there."""
    return " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in fields) + " == 1"


def map_list(*keys: str) -> dict[str, Any]:
    """A list whose items are unique by ``keys`` and merged by them."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


SET_LIST: Final[dict[str, Any]] = {"x-kubernetes-list-type": "set"}
ATOMIC_LIST: Final[dict[str, Any]] = {"x-kubernetes-list-type": "atomic"}
ATOMIC_MAP: Final[dict[str, Any]] = {"x-kubernetes-map-type": "atomic"}


class SpecModel(BaseModel):
    """A part of a spec: frozen, camelCase on the wire, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_wire_name, populate_by_name=True, extra="forbid", frozen=True
    )


class StatusModel(BaseModel):
    """A part of a status: frozen, camelCase on the wire, fields of other versions ignored."""

    model_config = ConfigDict(
        alias_generator=to_wire_name, populate_by_name=True, extra="ignore", frozen=True
    )

    def dump(self) -> dict[str, Any]:
        """As the JSON object that the API server stores; absent fields are left out."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


def _wire_time(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Timestamp = Annotated[
    AwareDatetime,
    PlainSerializer(_wire_time, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 64}),
]
"""RFC 3339 in UTC with whole seconds, as metav1.Time."""


class ConditionStatus(StrEnum):
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StatusModel):
    """One aspect of the object's state (metav1.Condition)."""

    type: str = Field(
        max_length=316,
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        description="Type of the condition, in CamelCase.",
    )
    status: ConditionStatus = Field(description="Whether the condition holds.")
    reason: str = Field(
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        description="Why the condition has this status, in CamelCase, for programs.",
    )
    message: str = Field(
        default="",
        max_length=2048,
        description="What happened, why, and what to do next, for people.",
    )
    last_transition_time: Timestamp = Field(description="When the status last changed.")
    observed_generation: int = Field(
        default=0,
        ge=0,
        json_schema_extra={"format": "int64"},
        description="The metadata.generation that this condition was derived from.",
    )


Conditions = Annotated[
    tuple[Condition, ...],
    Field(
        max_length=16,
        json_schema_extra=map_list("type"),
        description="The state of the object, aspect by aspect. Ready is the summary.",
    ),
]

ObservedGeneration = Annotated[
    int,
    Field(
        ge=-1,
        json_schema_extra={"format": "int64"},
        description="The metadata.generation that this status was derived from;"
        " -1 before the operator has seen the object.",
    ),
]

_SUBDOMAIN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_SUBDOMAIN)]
Argument = Annotated[str, StringConstraints(max_length=32768)]
DataKey = Annotated[
    str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")
]
EnvName = Annotated[
    str, StringConstraints(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
]


class NameRef(SpecModel):
    """Names another object."""

    model_config = ConfigDict(json_schema_extra=ATOMIC_MAP)

    name: ObjectName = Field(description="Name of the object.")


class KeyRef(SpecModel):
    """Names one key of a Secret or ConfigMap."""

    model_config = ConfigDict(json_schema_extra=ATOMIC_MAP)

    name: ObjectName = Field(description="Name of the Secret or ConfigMap.")
    key: DataKey = Field(description="Key in its data.")


class LabelOperator(StrEnum):
    """How a requirement of a label selector compares."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


_LABEL_KEY = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=317,
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
    ),
]
_LABEL_VALUE = Annotated[
    str,
    StringConstraints(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"),
]


class LabelRequirement(SpecModel):
    """One requirement of a label selector."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0"
                " : !has(self.values) || size(self.values) == 0",
                "`values` must be given with In and NotIn, and must not be given with Exists"
                " and DoesNotExist",
            )
        )
    )

    key: _LABEL_KEY = Field(description="Label key.")
    operator: LabelOperator = Field(description="How the label is compared.")
    values: tuple[_LABEL_VALUE, ...] = Field(
        default=(),
        max_length=64,
        json_schema_extra=ATOMIC_LIST,
        description="Values for In and NotIn.",
    )


class LabelSelector(SpecModel):
    """Selects objects by label (metav1.LabelSelector); an empty one selects everything."""

    model_config = ConfigDict(json_schema_extra=ATOMIC_MAP)

    match_labels: dict[str, _LABEL_VALUE] = Field(
        default_factory=dict,
        max_length=64,
        description="Labels that must be there with these values.",
    )
    match_expressions: tuple[LabelRequirement, ...] = Field(
        default=(),
        max_length=32,
        json_schema_extra=ATOMIC_LIST,
        description="Further requirements; all must hold.",
    )


QUANTITY_PATTERN: Final = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)(m|k|[KMGTPE]i|[MGTPE]|[eE][+-]?[0-9]+)?$"
_SUFFIXES: Final[Mapping[str, Decimal]] = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    **{f"{unit}i": Decimal(1024**n) for n, unit in enumerate("KMGTPE", start=1)},
    **{unit: Decimal(1000**n) for n, unit in enumerate("MGTPE", start=2)},
}
_POSITIVE_QUANTITY: Final = rule(
    "isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0'))",
    "must be a quantity above 0, such as 500m, 2 or 1Gi",
)

Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    StringConstraints(max_length=32, pattern=QUANTITY_PATTERN),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 32,
            "pattern": QUANTITY_PATTERN,
            **validations(_POSITIVE_QUANTITY),
        }
    ),
]
"""A Kubernetes quantity (``500m``, ``2``, ``1Gi``); integers become text."""


def quantity_value(text: str) -> Decimal:
    """The number that a quantity stands for (bytes, cores); ``ValueError`` when it is none."""
    match = re.fullmatch(r"([0-9.]+)(?:([mkKMGTPEi]+)|([eE][+-]?[0-9]+))?", text)
    if not match or (match[2] or "") not in _SUFFIXES or match[1].count(".") > 1 or match[1] == ".":
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 1Gi")
    if match[3]:
        return Decimal(match[1] + match[3])
    return Decimal(match[1]) * _SUFFIXES[match[2] or ""]


class SandboxResources(SpecModel):
    """CPU and memory of a sandbox."""

    cpu: Quantity | None = Field(default=None, description="Processor cores, such as 1 or 500m.")
    memory: Quantity | None = Field(default=None, description="Memory, such as 512Mi or 2Gi.")


class TaskType(StrEnum):
    """What a run is about; decides the template where none is named."""

    GENERAL = "General"
    DATA_ANALYSIS = "DataAnalysis"
    MACHINE_LEARNING = "MachineLearning"
    QUICK_SCRIPT = "QuickScript"
    VISUALIZATION = "Visualization"


class Language(StrEnum):
    """Languages that the runner executes."""

    PYTHON = "python"
    BASH = "bash"
