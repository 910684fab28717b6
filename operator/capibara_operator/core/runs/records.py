"""Records of a job's event log, and how one line of it becomes one.

The log is written inside the sandbox by whoever controls the sandbox: untrusted input. Every
line is bounded and validated before anything is made of it.
"""

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, NoReturn

MAX_TEXT_CHARS: Final = 1_000_000
MAX_PATH_CHARS: Final = 4_096
MAX_MIME_TYPES: Final = 32
_MAX_COUNT: Final = 2**53


class ProtocolError(Exception):
    """The sandbox sent something that is not a job's log."""


class ExitReason(StrEnum):
    """Why a job ended."""

    COMPLETED = "completed"  # by itself, with whatever exit code
    DEADLINE = "deadline"
    OUT_OF_MEMORY = "outOfMemory"
    CANCELLED = "cancelled"  # the runner was told to stop
    LOST = "lost"  # the runner itself died; its result is not known


@dataclass(frozen=True, slots=True)
class Started:
    """The job runs. ``time`` is the sandbox's clock in Unix seconds."""

    seq: int
    time: float
    pid: int


@dataclass(frozen=True, slots=True)
class Output:
    """Text that the job printed, after ``skipped`` bytes that the log's limit left out."""

    seq: int
    stream: Literal["stdout", "stderr"]
    text: str
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Display:
    """One rich result: MIME type to text, base64 for binary types, JSON text for JSON types.

    ``main`` marks the value of the last expression. ``omitted`` names types over the limit.
    """

    seq: int
    data: Mapping[str, str]
    main: bool = False
    omitted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CodeError:
    """The exception that ended the code."""

    seq: int
    name: str
    value: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file collected at the end. ``data`` is None where ``problem`` says why there is none."""

    seq: int
    path: str
    size: int
    sha256: str
    data: bytes | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Exit:
    """The last record. ``code`` is 0 to 255; the byte counts include what was left out."""

    seq: int
    code: int
    reason: ExitReason
    seconds: float
    oom_killed: bool = False
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    truncated: bool = False


Record = Started | Output | Display | CodeError | Artifact | Exit


def parse_record(line: str) -> Record | None:
    """The record in one line, None for a type that is not known (a newer runner's)."""
    fields = parse_object(line)
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise ProtocolError("a log line names no record type")
    parse = _PARSERS.get(kind)
    return parse(_integer(fields, "seq"), fields) if parse else None


def parse_object(line: str) -> dict[str, Any]:
    """One line of JSON that must be an object."""
    if not line.isascii():
        raise ProtocolError("a log line holds characters that are not ASCII")
    try:
        value = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a log line is not valid JSON") from error
    if not isinstance(value, dict):
        raise ProtocolError("a log line is not a JSON object")
    return value


def _started(seq: int, fields: Mapping[str, Any]) -> Started:
    return Started(seq, _number(fields, "time"), _integer(fields, "pid"))


def _output(seq: int, fields: Mapping[str, Any]) -> Output:
    stream = fields.get("stream")
    if stream not in ("stdout", "stderr"):
        raise ProtocolError("an output record names no stream")
    return Output(seq, stream, _text(fields, "text"), _integer(fields, "skipped", default=0))


def _display(seq: int, fields: Mapping[str, Any]) -> Display:
    data = fields.get("data")
    if not isinstance(data, dict) or len(data) > MAX_MIME_TYPES:
        raise ProtocolError("a display record has no map of MIME types")
    omitted = fields.get("omitted", [])
    if not isinstance(omitted, list) or len(omitted) > MAX_MIME_TYPES:
        raise ProtocolError("a display record's omitted types are not a list")
    return Display(
        seq,
        {_clean(mime): _text(data, mime) for mime in data},
        _boolean(fields, "main"),
        tuple(_clean(mime) for mime in omitted),
    )


def _error(seq: int, fields: Mapping[str, Any]) -> CodeError:
    return CodeError(seq, _text(fields, "name"), _text(fields, "value"), _text(fields, "traceback"))


def _artifact(seq: int, fields: Mapping[str, Any]) -> Artifact:
    path = _text(fields, "path")
    if not path or len(path) > MAX_PATH_CHARS:
        raise ProtocolError("an artifact record has no usable path")
    size, digest = _integer(fields, "size"), _text(fields, "sha256")
    problem = _text(fields, "problem", default="")
    if problem:
        return Artifact(seq, path, size, "", None, problem)
    try:
        data = base64.b64decode(_text(fields, "data"), validate=True)
    except binascii.Error as error:
        raise ProtocolError("an artifact's data is not base64") from error
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise ProtocolError("an artifact's data does not match its size and digest")
    return Artifact(seq, path, size, digest, data)


def _exit(seq: int, fields: Mapping[str, Any]) -> Exit:
    code = _integer(fields, "code")
    if code > 255:
        raise ProtocolError("an exit code is out of range")
    try:
        reason = ExitReason(_text(fields, "reason"))
    except ValueError as error:
        raise ProtocolError("an exit record gives an unknown reason") from error
    return Exit(
        seq,
        code,
        reason,
        _number(fields, "seconds"),
        _boolean(fields, "oomKilled"),
        _integer(fields, "stdoutBytes", default=0),
        _integer(fields, "stderrBytes", default=0),
        _boolean(fields, "truncated"),
    )


_PARSERS: Final[Mapping[str, Callable[[int, Mapping[str, Any]], Record]]] = {
    "started": _started,
    "output": _output,
    "display": _display,
    "error": _error,
    "artifact": _artifact,
    "exit": _exit,
}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _clean(text: object) -> str:
    """Text that can be encoded as UTF-8: JSON may spell half of a surrogate pair."""
    if not isinstance(text, str) or len(text) > MAX_TEXT_CHARS:
        raise ProtocolError("a log line holds a text that is too long, or none")
    return text.encode("utf-8", "replace").decode("utf-8")


def _text(fields: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    return _clean(fields.get(name, default))


def _integer(fields: Mapping[str, Any], name: str, *, default: int | None = None) -> int:
    value = fields.get(name, default)
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        raise ProtocolError("a log line lacks a whole number that it needs")
    return value


def _number(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProtocolError("a log line lacks a number that it needs")
    if not math.isfinite(value) or not 0 <= value <= _MAX_COUNT:
        raise ProtocolError("a number in a log line is out of range")
    return float(value)


def _boolean(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise ProtocolError("a log line lacks a truth value that it needs")
    return value
