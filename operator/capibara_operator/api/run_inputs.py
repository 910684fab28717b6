"""What goes into a run's sandbox beside the code, and what comes out: variables and files."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field, StringConstraints

from capibara_operator.api.common import (
    EnvName,
    KeyRef,
    SpecModel,
    exactly_one_of,
    rule,
    validations,
)

MAX_INLINE_BYTES: Final = 128 * 1024
"""Code and inline files of one run together."""

_SAFE_PATH = rule(
    "!self.split('/').exists(part, part in ['.', '..', '.capibara'])",
    "must not contain the parts `.`, `..` or `.capibara`",
)
SandboxPath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512, pattern=r"^/?([^/\x00]+/)*[^/\x00]+$"),
    Field(json_schema_extra=validations(_SAFE_PATH)),
]
"""A file in the sandbox: absolute, or relative to the user's home."""


class RunEnvSource(SpecModel):
    """Where the value of a variable comes from."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                exactly_one_of("secretKeyRef", "configMapKeyRef"),
                "exactly one of `secretKeyRef` and `configMapKeyRef` must be given",
            )
        )
    )

    secret_key_ref: KeyRef | None = Field(
        default=None, description="A key of a Secret in the run's namespace."
    )
    config_map_key_ref: KeyRef | None = Field(
        default=None, description="A key of a ConfigMap in the run's namespace."
    )


class RunEnvVar(SpecModel):
    """One environment variable of the run."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                exactly_one_of("value", "valueFrom"),
                "exactly one of `value` and `valueFrom` must be given",
            )
        )
    )

    name: EnvName = Field(description="Name of the variable.")
    value: str | None = Field(default=None, max_length=32768, description="Its value.")
    value_from: RunEnvSource | None = Field(
        default=None, description="Where its value comes from, instead of `value`."
    )


class RunFile(SpecModel):
    """One file written into the sandbox before the code starts."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                exactly_one_of("content", "configMapKeyRef", "secretKeyRef"),
                "exactly one of `content`, `configMapKeyRef` and `secretKeyRef` must be given",
            )
        )
    )

    path: SandboxPath = Field(
        description="Where the file goes: absolute, or relative to the user's home."
    )
    content: str | None = Field(
        default=None, max_length=MAX_INLINE_BYTES, description="The file's text."
    )
    config_map_key_ref: KeyRef | None = Field(
        default=None, description="A key of a ConfigMap in the run's namespace (also binaryData)."
    )
    secret_key_ref: KeyRef | None = Field(
        default=None, description="A key of a Secret in the run's namespace."
    )


class RunArtifact(SpecModel):
    """One file collected from the sandbox when the code has ended."""

    path: SandboxPath = Field(
        description="Where the file is: absolute, or relative to the user's home."
    )
