"""The container of a CapibaraService: variables, ports and resources, as in a pod."""

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from capibara_operator.api.common import (
    ATOMIC_MAP,
    DataKey,
    EnvName,
    ObjectName,
    Quantity,
    SpecModel,
    exactly_one_of,
    rule,
    validations,
)

_PortName = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=15,
        pattern=r"^([a-z0-9]+-)*[a-z0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*$",
    ),
]


class OptionalKeyRef(SpecModel):
    """Names one key of a Secret or ConfigMap of the service's namespace."""

    model_config = ConfigDict(json_schema_extra=ATOMIC_MAP)

    name: ObjectName = Field(description="Name of the Secret or ConfigMap.")
    key: DataKey = Field(description="Key in its data.")
    optional: bool | None = Field(default=None, description="Whether it may be missing.")


class FieldRef(SpecModel):
    """Names a field of the pod."""

    model_config = ConfigDict(json_schema_extra=ATOMIC_MAP)

    field_path: str = Field(max_length=256, description="Such as metadata.name or status.podIP.")


class ServiceEnvSource(SpecModel):
    """Where the value of a variable comes from."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                exactly_one_of("secretKeyRef", "configMapKeyRef", "fieldRef"),
                "exactly one of `secretKeyRef`, `configMapKeyRef` and `fieldRef` must be given",
            )
        )
    )

    secret_key_ref: OptionalKeyRef | None = Field(default=None, description="A key of a Secret.")
    config_map_key_ref: OptionalKeyRef | None = Field(
        default=None, description="A key of a ConfigMap."
    )
    field_ref: FieldRef | None = Field(default=None, description="A field of the pod.")


class ServiceEnvVar(SpecModel):
    """One environment variable of the container."""

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
    value_from: ServiceEnvSource | None = Field(
        default=None, description="Where its value comes from, instead of `value`."
    )


class OptionalNameRef(SpecModel):
    """Names a Secret or ConfigMap of the service's namespace."""

    model_config = ConfigDict(json_schema_extra=ATOMIC_MAP)

    name: ObjectName = Field(description="Name of the Secret or ConfigMap.")
    optional: bool | None = Field(default=None, description="Whether it may be missing.")


class EnvFrom(SpecModel):
    """All keys of a Secret or ConfigMap as environment variables."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                exactly_one_of("configMapRef", "secretRef"),
                "exactly one of `configMapRef` and `secretRef` must be given",
            )
        )
    )

    prefix: str | None = Field(
        default=None, max_length=128, description="Put before the name of each variable."
    )
    config_map_ref: OptionalNameRef | None = Field(default=None, description="A ConfigMap.")
    secret_ref: OptionalNameRef | None = Field(default=None, description="A Secret.")


class ServicePort(SpecModel):
    """One port of the container, which the Service has too."""

    name: _PortName = Field(description="Name of the port, unique in the service.")
    port: int = Field(
        ge=1, le=65535, json_schema_extra={"format": "int32"}, description="Its number."
    )


_Quantities = Annotated[dict[str, Quantity], Field(max_length=16)]


class ContainerResources(SpecModel):
    """What the container needs and may use."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "!has(self.requests) || !has(self.limits) || self.requests.all(name,"
                " !(name in self.limits) || quantity(string(self.requests[name]))"
                ".compareTo(quantity(string(self.limits[name]))) <= 0)",
                "`requests` must not exceed `limits`",
            )
        )
    )

    requests: _Quantities = Field(
        default_factory=dict, description="What is kept free for the container."
    )
    limits: _Quantities = Field(
        default_factory=dict, description="What the container may not exceed."
    )
