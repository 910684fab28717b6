"""CapibaraService: a service of the system and the endpoints that make it useful."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, StringConstraints, WithJsonSchema

from capibara_operator.api.common import (
    ATOMIC_LIST,
    MAX_NAME_LENGTH,
    SET_LIST,
    Argument,
    Conditions,
    ObservedGeneration,
    SpecModel,
    StatusModel,
    Timestamp,
    map_list,
    rule,
    validations,
)
from capibara_operator.api.container import ContainerResources, EnvFrom, ServiceEnvVar, ServicePort


class ServicePhase(StrEnum):
    """One word for people; derived, never an input of a decision."""

    STOPPED = "Stopped"
    STARTING = "Starting"
    RUNNING = "Running"
    DEGRADED = "Degraded"
    STOPPING = "Stopping"
    FAILED = "Failed"


class PullPolicy(StrEnum):
    """When the image is pulled."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class HttpMethod(StrEnum):
    """Methods that the prober sends."""

    GET = "GET"
    HEAD = "HEAD"
    POST = "POST"


class DependencyCondition(StrEnum):
    """What must hold of a dependency before the service starts."""

    STARTED = "Started"
    AVAILABLE = "Available"
    ENDPOINTS_HEALTHY = "EndpointsHealthy"


class EndpointState(StrEnum):
    """What the prober found."""

    HEALTHY = "Healthy"
    FAILING = "Failing"
    UNKNOWN = "Unknown"


_EndpointName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
]
ServiceName = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=MAX_NAME_LENGTH, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
    ),
]
PortRef = Annotated[
    int | str,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 15,
            "minimum": 1,
            "maximum": 65535,
        }
    ),
]
"""Name of a port of the service, or a port number of the container."""


class EndpointExpectation(SpecModel):
    """What an answer must be like."""

    statuses: tuple[Annotated[int, Field(ge=100, le=599)], ...] = Field(
        default=(),
        max_length=16,
        json_schema_extra=SET_LIST,
        description="Status codes that are good. Absent: 200 to 399.",
    )
    body_contains: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Text that the first 64 KiB of the body must contain.",
    )


class ServiceEndpoint(SpecModel):
    """One HTTP endpoint that the operator probes on every pod."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self.method != 'HEAD' || !has(self.expect) || !has(self.expect.bodyContains)",
                "`bodyContains` may not be given when `method` is HEAD",
            ),
            rule(
                "self.timeoutSeconds <= self.periodSeconds",
                "`timeoutSeconds` must not exceed `periodSeconds`",
            ),
        )
    )

    name: _EndpointName = Field(description="Name of the endpoint, unique in the service.")
    path: str = Field(
        default="/",
        max_length=1024,
        pattern=r"^/[^\s#]*$",
        description="Path and query of the request.",
    )
    port: PortRef | None = Field(
        default=None, description="Name of a port, or a number. Absent: the first port."
    )
    method: HttpMethod = Field(default=HttpMethod.GET, description="Method of the request.")
    expect: EndpointExpectation | None = Field(
        default=None, description="What the answer must be like. Absent: any status 200 to 399."
    )
    period_seconds: int = Field(
        default=10,
        ge=1,
        le=3600,
        json_schema_extra={"format": "int32"},
        description="Time between two probes.",
    )
    timeout_seconds: int = Field(
        default=2,
        ge=1,
        le=60,
        json_schema_extra={"format": "int32"},
        description="How long an answer may take.",
    )
    failure_threshold: int = Field(
        default=3,
        ge=1,
        le=100,
        json_schema_extra={"format": "int32"},
        description="Failures in a row after which the endpoint is failing.",
    )
    required: bool = Field(
        default=True,
        description="Whether the service is Ready only while this endpoint answers."
        " false: a failure is only reported.",
    )


class ServiceDependency(SpecModel):
    """A CapibaraService of the same namespace that starts first."""

    name: ServiceName = Field(description="Name of the CapibaraService.")
    condition: DependencyCondition = Field(
        default=DependencyCondition.ENDPOINTS_HEALTHY,
        description="What must hold of it before this service starts.",
    )
    optional: bool = Field(
        default=False, description="Whether this service also starts where it does not exist."
    )


_PROBE_FIELDS: Final = ("startupEndpoint", "livenessEndpoint", "readinessEndpoint")


def _spec_rules(schema: dict[str, Any]) -> None:
    probes = [
        rule(
            f"!has(self.{name}) || (has(self.endpoints) && self.endpoints.exists(e,"
            f" e.name == self.{name} && e.method == 'GET'))",
            f"`{name}` must name an endpoint of this service whose method is GET",
            field_path=f".{name}",
        )
        for name in _PROBE_FIELDS
    ]
    schema |= validations(
        rule(
            "self.ports.all(p, self.ports.exists_one(q, q.port == p.port))",
            "each port number must be given once",
            field_path=".ports",
        ),
        rule(
            "!has(self.endpoints) || self.endpoints.all(e, !has(e.port)"
            " || type(e.port) == int || self.ports.exists(p, p.name == e.port))",
            "the `port` of an endpoint must be a number or the name of a port of this service",
            field_path=".endpoints",
        ),
        *probes,
    )


class CapibaraServiceSpec(SpecModel):
    """What to run, how to tell that it works, and what it needs first."""

    model_config = ConfigDict(json_schema_extra=_spec_rules)

    image: str = Field(
        min_length=1, max_length=1024, pattern=r"^[^\s]+$", description="The container's image."
    )
    image_pull_policy: PullPolicy | None = Field(
        default=None, description="When the image is pulled. Absent: Kubernetes' own default."
    )
    command: tuple[Argument, ...] = Field(
        default=(),
        max_length=64,
        json_schema_extra=ATOMIC_LIST,
        description="Instead of the image's entry point.",
    )
    args: tuple[Argument, ...] = Field(
        default=(),
        max_length=64,
        json_schema_extra=ATOMIC_LIST,
        description="Instead of the image's arguments.",
    )
    env: tuple[ServiceEnvVar, ...] = Field(
        default=(),
        max_length=128,
        json_schema_extra=map_list("name"),
        description="Environment variables of the container.",
    )
    env_from: tuple[EnvFrom, ...] = Field(
        default=(),
        max_length=32,
        json_schema_extra=ATOMIC_LIST,
        description="Secrets and ConfigMaps whose keys become environment variables.",
    )
    ports: tuple[ServicePort, ...] = Field(
        min_length=1,
        max_length=16,
        json_schema_extra=map_list("name"),
        description="Ports of the container and the Service. The first is the default.",
    )
    resources: ContainerResources | None = Field(
        default=None, description="What the container needs and may use."
    )
    replicas: int = Field(
        default=1,
        ge=0,
        le=1000,
        json_schema_extra={"format": "int32"},
        description="How many pods run.",
    )
    endpoints: tuple[ServiceEndpoint, ...] = Field(
        default=(),
        max_length=32,
        json_schema_extra=map_list("name"),
        description="HTTP endpoints that the operator probes on every pod.",
    )
    startup_endpoint: _EndpointName | None = Field(
        default=None, description="The endpoint that becomes the kubelet's startup probe."
    )
    liveness_endpoint: _EndpointName | None = Field(
        default=None, description="The endpoint that becomes the kubelet's liveness probe."
    )
    readiness_endpoint: _EndpointName | None = Field(
        default=None, description="The endpoint that becomes the kubelet's readiness probe."
    )
    depends_on: tuple[ServiceDependency, ...] = Field(
        default=(),
        max_length=16,
        json_schema_extra=map_list("name"),
        description="Services of the same namespace that start first.",
    )
    suspend: bool = Field(
        default=False, description="true stops the service and keeps all its objects."
    )
    progress_deadline_seconds: int = Field(
        default=600,
        ge=1,
        le=86400,
        json_schema_extra={"format": "int32"},
        description="How long a roll-out may take before it counts as stalled.",
    )


SERVICE_RULES: Final = (
    rule(
        f"size(self.metadata.name) <= {MAX_NAME_LENGTH}"
        " && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "the name of a CapibaraService must start with a letter, consist of lowercase letters,"
        f" digits and '-', and must not be longer than {MAX_NAME_LENGTH} characters",
    ),
    rule(
        "!has(self.spec.dependsOn) || self.spec.dependsOn.all(d, d.name != self.metadata.name)",
        "a CapibaraService must not depend on itself",
        field_path=".spec.dependsOn",
    ),
)


class EndpointStatus(StatusModel):
    """What the prober found at one endpoint."""

    name: _EndpointName = Field(description="Name of the endpoint.")
    state: EndpointState = Field(description="Whether it answers as expected.")
    reason: str = Field(
        default="", max_length=256, description="Why, such as HTTP 500 or timeout; never a body."
    )
    since: Timestamp | None = Field(default=None, description="When the state last changed.")
    consecutive_failures: int = Field(
        default=0,
        ge=0,
        json_schema_extra={"format": "int32"},
        description="Failures in a row, counted up to `failureThreshold`.",
    )


class CapibaraServiceStatus(StatusModel):
    """How the service is."""

    phase: ServicePhase | None = Field(
        default=None, description="One word for people; programs use `conditions`."
    )
    observed_generation: ObservedGeneration = -1
    conditions: Conditions = ()
    endpoints: tuple[EndpointStatus, ...] = Field(
        default=(),
        max_length=32,
        json_schema_extra=map_list("name"),
        description="How each endpoint is.",
    )
    endpoint_summary: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None, description="Healthy endpoints of all, such as 3/4."
    )
    replica_summary: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None, description="Ready pods of all wanted, such as 1/1."
    )
    replicas: int | None = Field(
        default=None, ge=0, json_schema_extra={"format": "int32"}, description="Pods there are."
    )
    selector: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="Label selector of the pods, for the scale subresource."
    )
    url: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="Where the service answers inside the cluster."
    )
    revision: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None, description="The Deployment's revision."
    )
    last_handled_restart_at: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None, description="The restart request that was handled last."
    )
