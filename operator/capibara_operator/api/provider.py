"""SandboxProvider: an E2B-compatible service that gives sandboxes."""

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from capibara_operator.api.common import (
    ATOMIC_MAP,
    SET_LIST,
    Conditions,
    DataKey,
    LabelSelector,
    ObjectName,
    ObservedGeneration,
    SpecModel,
    StatusModel,
    Timestamp,
)
from capibara_operator.api.template import TemplateID

# No user info, query or fragment: a URL is shown in tables and messages, so it holds no secret.
HttpURL = Annotated[
    str,
    StringConstraints(
        max_length=2048, pattern=r"^https?://[-A-Za-z0-9.\[\]:]+(/[-A-Za-z0-9._~%/]*)?$"
    ),
]


class CredentialsRef(SpecModel):
    """Names the key of the Secret that holds the API key."""

    model_config = ConfigDict(json_schema_extra=ATOMIC_MAP)

    name: ObjectName = Field(description="Name of the Secret, in the operator's namespace.")
    key: DataKey = Field(default="apiKey", description="Key in its data.")


class ProviderLimits(SpecModel):
    """How much the operator asks of the provider."""

    max_concurrent_sandboxes: int = Field(
        default=20,
        ge=1,
        le=100000,
        json_schema_extra={"format": "int32"},
        description="Sandboxes at the same time; further runs wait.",
    )
    creates_per_second: int = Field(
        default=5,
        ge=1,
        le=1000,
        json_schema_extra={"format": "int32"},
        description="Sandboxes created in a second.",
    )
    max_lifetime_seconds: int = Field(
        default=3600,
        ge=60,
        le=604800,
        json_schema_extra={"format": "int32"},
        description="The longest life that the provider grants a sandbox.",
    )


class ProviderSweep(SpecModel):
    """How leftovers are looked for."""

    interval_seconds: int = Field(
        default=60,
        ge=5,
        le=86400,
        json_schema_extra={"format": "int32"},
        description="Time between two sweeps.",
    )
    grace_seconds: int = Field(
        default=60,
        ge=5,
        le=86400,
        json_schema_extra={"format": "int32"},
        description="Age that a sandbox must have before it can be a leftover.",
    )


class SandboxProviderSpec(SpecModel):
    """Where the provider is, the key to it, and who may use how much of it."""

    api_url: HttpURL | None = Field(
        default=None,
        description="URL of the provider's API. Absent: derived from `domain`.",
    )
    sandbox_url: HttpURL | None = Field(
        default=None,
        description="URL that reaches all sandboxes. Absent: each has a host under `domain`.",
    )
    domain: (
        Annotated[
            str,
            StringConstraints(
                max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]+)?$"
            ),
        ]
        | None
    ) = Field(default=None, description="Domain of the provider. Absent: E2B's own.")
    credentials_secret_ref: CredentialsRef = Field(
        description="The Secret with the API key, in the operator's namespace."
    )
    limits: ProviderLimits = Field(
        default=ProviderLimits(), description="How much the operator asks of the provider."
    )
    allowed_template_ids: tuple[TemplateID, ...] = Field(
        default=(),
        max_length=256,
        json_schema_extra=SET_LIST,
        description="Templates that SandboxTemplates outside the operator's namespace may name.",
    )
    namespace_selector: LabelSelector | None = Field(
        default=None,
        description="Namespaces whose runs may use the provider. Absent: none; {}: all.",
    )
    sweep: ProviderSweep = Field(
        default=ProviderSweep(), description="How leftover sandboxes are looked for."
    )


class SweepSummary(StatusModel):
    """The last sweep that destroyed something."""

    time: Timestamp = Field(description="When it ran.")
    killed: int = Field(ge=0, description="Sandboxes that it destroyed.")


class SandboxProviderStatus(StatusModel):
    """Whether the provider answers."""

    observed_generation: ObservedGeneration = -1
    conditions: Conditions = ()
    reaped: int | None = Field(
        default=None,
        ge=0,
        json_schema_extra={"format": "int64"},
        description="Leftover sandboxes destroyed so far.",
    )
    last_sweep: SweepSummary | None = Field(
        default=None, description="The last sweep that destroyed something."
    )
