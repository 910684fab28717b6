"""SandboxRun: code or a command, executed once in a sandbox."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field, StringConstraints

from capibara_operator.api.common import (
    ATOMIC_LIST,
    ATOMIC_MAP,
    MAX_NAME_LENGTH,
    Argument,
    Conditions,
    Language,
    NameRef,
    ObservedGeneration,
    SpecModel,
    StatusModel,
    TaskType,
    Timestamp,
    exactly_one_of,
    map_list,
    rule,
    to_wire_name,
    validations,
)
from capibara_operator.api.run_inputs import MAX_INLINE_BYTES, RunArtifact, RunEnvVar, RunFile

MAX_TAIL_BYTES: Final = 2 * 1024
MAX_TEXT_BYTES: Final = 4 * 1024
MAX_ATTEMPTS: Final = 10
MAX_OUTPUTS: Final = 32
MAX_STATUS_BYTES: Final = 16 * 1024
MUTABLE_RUN_FIELDS: Final = frozenset({"cancel", "ttl_seconds_after_finished"})


class RunPhase(StrEnum):
    """One word for people and selectors; derived, never an input of a decision."""

    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class RunReason(StrEnum):
    """Why a run ended or does not go on: a closed list."""

    INVALID_SPEC = "InvalidSpec"
    TEMPLATE_NOT_FOUND = "TemplateNotFound"
    TEMPLATE_NOT_READY = "TemplateNotReady"
    PROVIDER_NOT_FOUND = "ProviderNotFound"
    PROVIDER_UNREACHABLE = "ProviderUnreachable"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    QUOTA_EXCEEDED = "QuotaExceeded"
    QUEUE_DEADLINE_EXCEEDED = "QueueDeadlineExceeded"
    START_DEADLINE_EXCEEDED = "StartDeadlineExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    CODE_ERROR = "CodeError"
    NON_ZERO_EXIT = "NonZeroExit"
    OUT_OF_MEMORY = "OutOfMemory"
    SANDBOX_LOST = "SandboxLost"
    OUTPUT_TOO_LARGE = "OutputTooLarge"
    CANCELLED = "Cancelled"
    COMPLETED = "Completed"


def _immutable(fields: frozenset[str]) -> str:
    names = sorted(to_wire_name(name) for name in fields)
    return " && ".join(
        f"has(self.{n}) == has(oldSelf.{n}) && (!has(self.{n}) || self.{n} == oldSelf.{n})"
        for n in names
    )


def _spec_rules(schema: dict[str, object], model: type[SpecModel]) -> None:
    frozen = frozenset(model.model_fields) - MUTABLE_RUN_FIELDS
    schema |= validations(
        rule(
            exactly_one_of("code", "command"), "exactly one of `code` and `command` must be given"
        ),
        rule(
            "(has(self.code) ? size(bytes(self.code)) : 0)"
            " + (has(self.files) ? self.files.map(f, has(f.content) ? size(bytes(f.content)) : 0)"
            f".sum() : 0) <= {MAX_INLINE_BYTES}",
            f"`code` and the `content` of all `files` together must not exceed {MAX_INLINE_BYTES}"
            " bytes; put more into a ConfigMap and refer to it",
        ),
        rule(_immutable(frozen), "may not change, but for `cancel` and `ttlSecondsAfterFinished`"),
        rule(
            "!oldSelf.cancel || self.cancel",
            "`cancel` may not be taken back; create a new run instead",
        ),
    )


class SandboxRunSpec(SpecModel):
    """What to run, in which sandbox, for how long."""

    model_config = ConfigDict(json_schema_extra=_spec_rules)  # type: ignore[typeddict-item]

    code: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_INLINE_BYTES,
        description="Source code to run in `language`. Exactly one of `code` and `command`.",
    )
    command: tuple[Argument, ...] = Field(
        default=(),
        min_length=1,
        max_length=64,
        json_schema_extra=ATOMIC_LIST,
        validate_default=False,
        description="Program and first arguments, started without a shell."
        " Exactly one of `code` and `command`.",
    )
    args: tuple[Argument, ...] = Field(
        default=(),
        max_length=64,
        json_schema_extra=ATOMIC_LIST,
        description="Arguments of the code or further arguments of the command.",
    )
    language: Language = Field(
        default=Language.PYTHON, description="Language of `code`; without meaning for `command`."
    )
    env: tuple[RunEnvVar, ...] = Field(
        default=(),
        max_length=64,
        json_schema_extra=map_list("name"),
        description="Environment variables of the code; they win over the template's.",
    )
    files: tuple[RunFile, ...] = Field(
        default=(),
        max_length=32,
        json_schema_extra=map_list("path"),
        description="Files written before the code starts.",
    )
    description: str = Field(
        default="",
        max_length=1024,
        description="What the run is for, in words; helps to detect the task type.",
    )
    task_type: TaskType | None = Field(
        default=None,
        description="What the run is about; selects the template. Absent: detected from the code.",
    )
    template_ref: NameRef | None = Field(
        default=None,
        description="The SandboxTemplate to use, of the run's namespace or else of the operator's."
        " Absent: selected by the task type.",
    )
    provider_ref: NameRef | None = Field(
        default=None,
        description="The SandboxProvider to use. Absent: the one annotated"
        " capibara6.dev/is-default-provider.",
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=86400,
        json_schema_extra={"format": "int32"},
        description="How long the code may run. Absent: the template's `timeoutSeconds`.",
    )
    artifacts: tuple[RunArtifact, ...] = Field(
        default=(),
        max_length=16,
        json_schema_extra=map_list("path"),
        description="Files collected when the code has ended.",
    )
    cancel: bool = Field(
        default=False, description="Set to true to end the run; it cannot be taken back."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=31536000,
        json_schema_extra={"format": "int32"},
        description="Delete the run this long after its end. Absent: it is kept.",
    )


RUN_NAME_RULE: Final = rule(
    f"size(self.metadata.name) <= {MAX_NAME_LENGTH}",
    f"the name of a SandboxRun must not be longer than {MAX_NAME_LENGTH} characters",
)

_Short = Annotated[str, StringConstraints(max_length=253)]


class Detection(StatusModel):
    """What the run was found to be about, and why."""

    task_type: TaskType = Field(description="The task type that selected the template.")
    confidence: int = Field(
        ge=0, le=100, description="In percent; 100 when the task type was given."
    )
    evidence: tuple[_Short, ...] = Field(
        default=(), max_length=8, json_schema_extra=ATOMIC_LIST, description="What led to it."
    )


class TemplatePin(StatusModel):
    """The template of the attempt under way, as it was when the attempt began."""

    name: _Short = Field(description="Name of the SandboxTemplate.")
    namespace: _Short = Field(default="", description="Its namespace.")
    template_id: _Short = Field(default="", description="The provider's template.")
    timeout_seconds: int = Field(
        default=0,
        ge=0,
        json_schema_extra={"format": "int32"},
        description="How long the code may run unless the run says otherwise; 0 where unknown.",
    )


class GrantedResources(StatusModel):
    """CPU and memory of the sandbox as the provider reports them."""

    cpu: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None, description="Processor cores."
    )
    memory: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None, description="Memory, such as 1024Mi."
    )


class RunQueue(StatusModel):
    """Why the run waits for a sandbox."""

    since: Timestamp = Field(description="When the run began to wait.")
    reason: _Short = Field(description="What it waits for.")


class RunStages(StatusModel):
    """How long each stage took, in milliseconds."""

    queued: int | None = Field(default=None, ge=0, description="Waiting for a sandbox.")
    create: int | None = Field(default=None, ge=0, description="Creating the sandbox.")
    upload: int | None = Field(default=None, ge=0, description="Writing the files.")
    execute: int | None = Field(default=None, ge=0, description="Running the code.")
    collect: int | None = Field(default=None, ge=0, description="Collecting the outputs.")


class CodeFailure(StatusModel):
    """The exception that ended the code."""

    name: _Short = Field(default="", description="Type of the exception.")
    value: str = Field(default="", max_length=1024, description="Its message.")
    traceback: str = Field(default="", max_length=MAX_TEXT_BYTES, description="The end of it.")


class StreamTail(StatusModel):
    """The end of an output stream."""

    tail: str = Field(default="", max_length=MAX_TAIL_BYTES, description="The last of its text.")
    bytes: int = Field(
        default=0, ge=0, json_schema_extra={"format": "int64"}, description="Its whole length."
    )
    truncated: bool = Field(default=False, description="Whether `tail` is less than the whole.")


class RunResult(StatusModel):
    """What the code gave back."""

    text: str | None = Field(
        default=None, max_length=MAX_TEXT_BYTES, description="Value of the last expression."
    )
    error: CodeFailure | None = Field(default=None, description="The exception, if there was one.")
    stdout: StreamTail | None = Field(default=None, description="Standard output.")
    stderr: StreamTail | None = Field(default=None, description="Standard error.")


class OutputRef(StatusModel):
    """Where the bytes of an output are."""

    model_config = ConfigDict(json_schema_extra=ATOMIC_MAP)

    kind: _Short = Field(default="ConfigMap", description="ConfigMap or Secret.")
    name: _Short = Field(description="Name of the object in the run's namespace.")
    key: _Short = Field(description="Key in its binaryData.")


class RunOutput(StatusModel):
    """One rich result or artifact."""

    name: _Short = Field(description="Name of the output, unique in the run.")
    mime_type: Annotated[str, StringConstraints(max_length=127)] = Field(
        default="application/octet-stream", description="Its media type."
    )
    size_bytes: int = Field(
        default=0, ge=0, json_schema_extra={"format": "int64"}, description="Its length."
    )
    sha256: Annotated[str, StringConstraints(max_length=64)] = Field(
        default="", description="Its SHA-256 in hexadecimal."
    )
    ref: OutputRef | None = Field(default=None, description="Where it is; absent: not kept.")


class RunAttempt(StatusModel):
    """One sandbox that the run had."""

    number: int = Field(ge=1, json_schema_extra={"format": "int32"}, description="From 1.")
    sandbox_id: _Short = Field(default="", description="The sandbox.")
    start_time: Timestamp | None = Field(default=None, description="When it began.")
    end_time: Timestamp | None = Field(default=None, description="When it ended.")
    reason: RunReason | None = Field(default=None, description="Why it ended.")
    message: str = Field(default="", max_length=512, description="The same, for people.")


class SandboxRunStatus(StatusModel):
    """What became of the run."""

    phase: RunPhase | None = Field(
        default=None, description="One word for people; programs use `conditions`."
    )
    observed_generation: ObservedGeneration = -1
    conditions: Conditions = ()
    reason: RunReason | None = Field(default=None, description="Why the run is where it is.")
    message: str | None = Field(
        default=None, max_length=2048, description="What happened, why, and what to do next."
    )
    detection: Detection | None = Field(default=None, description="The task type, and why.")
    template: TemplatePin | None = Field(default=None, description="The template in use.")
    provider: _Short | None = Field(default=None, description="The SandboxProvider in use.")
    resources: GrantedResources | None = Field(
        default=None, description="What the provider really gave the sandbox."
    )
    attempt: int | None = Field(
        default=None,
        ge=1,
        le=MAX_ATTEMPTS,
        json_schema_extra={"format": "int32"},
        description="The attempt under way, or the last one.",
    )
    sandbox_id: _Short | None = Field(default=None, description="The sandbox of the attempt.")
    queue: RunQueue | None = Field(default=None, description="Why the run waits.")
    start_time: Timestamp | None = Field(default=None, description="When the code started.")
    completion_time: Timestamp | None = Field(default=None, description="When the run ended.")
    duration: Annotated[str, StringConstraints(max_length=32)] | None = Field(
        default=None, description="From start to end, such as 1.9s."
    )
    stages: RunStages | None = Field(default=None, description="How long each stage took.")
    exit_code: int | None = Field(
        default=None, json_schema_extra={"format": "int32"}, description="Of the code's process."
    )
    result: RunResult | None = Field(default=None, description="What the code gave back.")
    outputs: tuple[RunOutput, ...] = Field(
        default=(),
        max_length=MAX_OUTPUTS,
        json_schema_extra=map_list("name"),
        description="Rich results and artifacts.",
    )
    attempts: tuple[RunAttempt, ...] = Field(
        default=(),
        max_length=MAX_ATTEMPTS,
        json_schema_extra=map_list("number"),
        description="The sandboxes that the run had.",
    )
