"""SandboxTemplate: a kind of sandbox that runs can ask for."""

from typing import Annotated

from pydantic import Field, StringConstraints

from capibara_operator.api.common import (
    SET_LIST,
    Conditions,
    EnvName,
    Language,
    ObservedGeneration,
    SandboxResources,
    SpecModel,
    StatusModel,
    TaskType,
    map_list,
)

TemplateID = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][-A-Za-z0-9._:/]*$"),
]


class TemplateEnvVar(SpecModel):
    """One environment variable of every run of the template."""

    name: EnvName = Field(description="Name of the variable.")
    value: str = Field(default="", max_length=32768, description="Its value.")


class TemplateDetect(SpecModel):
    """What in a run's code speaks for this template."""

    imports: tuple[Annotated[str, StringConstraints(min_length=1, max_length=128)], ...] = Field(
        default=(),
        max_length=64,
        json_schema_extra=SET_LIST,
        description="Python modules, such as `torch` or `sklearn.cluster`;"
        " a module stands for its submodules too.",
    )
    patterns: tuple[Annotated[str, StringConstraints(min_length=2, max_length=128)], ...] = Field(
        default=(),
        max_length=64,
        json_schema_extra=SET_LIST,
        description="Texts that occur in the code; `*` stands for anything within a line.",
    )


class SandboxTemplateSpec(SpecModel):
    """Which template of the provider to use, for what, and for how long."""

    template_id: TemplateID = Field(
        description="The template at the provider: its ID or its name there."
    )
    resources: SandboxResources | None = Field(
        default=None,
        description="CPU and memory that the provider gives the template."
        " They are fixed there when the template is built; here they are said to users.",
    )
    languages: tuple[Language, ...] = Field(
        default=(),
        max_length=8,
        json_schema_extra=SET_LIST,
        description="Languages that the template can run. Absent: all.",
    )
    task_types: tuple[TaskType, ...] = Field(
        default=(),
        max_length=8,
        json_schema_extra=SET_LIST,
        description="Task types that select this template.",
    )
    detect: TemplateDetect | None = Field(
        default=None, description="What in a run's code speaks for this template."
    )
    timeout_seconds: int = Field(
        default=300,
        ge=1,
        le=86400,
        json_schema_extra={"format": "int32"},
        description="How long the code of a run may run that names no `activeDeadlineSeconds`.",
    )
    env: tuple[TemplateEnvVar, ...] = Field(
        default=(),
        max_length=64,
        json_schema_extra=map_list("name"),
        description="Environment variables of every run of this template.",
    )


class SandboxTemplateStatus(StatusModel):
    """Whether the template can be used."""

    observed_generation: ObservedGeneration = -1
    conditions: Conditions = ()
    template_id: TemplateID | None = Field(
        default=None, description="The provider's template that runs get."
    )
    spec_hash: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None, description="Short hash of the spec that this status was derived from."
    )
