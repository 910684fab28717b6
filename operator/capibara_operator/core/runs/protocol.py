"""What the operator and the runner inside a sandbox say to each other.

The operator uploads ``job_files`` and runs ``follow_command`` in the background: it starts the
job, or attaches to it, and prints its event log from a byte offset on. ``LogReader`` turns what
arrives into records. The same command with the reader's ``offset`` continues after a lost
connection.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Final

from capibara_operator.core.runs.records import (
    Artifact,
    CodeError,
    Display,
    Exit,
    ExitReason,
    Output,
    ProtocolError,
    Record,
    Started,
    parse_object,
    parse_record,
)

__all__ = [
    "EXIT_LOCKED",
    "Artifact",
    "CodeError",
    "Display",
    "Exit",
    "ExitReason",
    "Job",
    "LogReader",
    "Output",
    "ProtocolError",
    "Record",
    "Started",
    "follow_command",
    "job_files",
    "parse_record",
]

DIRECTORY: Final = "/home/user/.capibara"
EXIT_LOCKED: Final = 75
"""Exit code of the follow command when another key holds the sandbox's start lock."""

# In bytes of the log, where binary data is base64; an artifact's own limit is the file's size.
MAX_LINE_BYTES: Final = 1_500_000
MAX_LOG_BYTES: Final = 24 * 2**20
MAX_OUTPUT_BYTES: Final = 8 * 2**20
MAX_DISPLAY_BYTES: Final = 2**20
MAX_DISPLAYS_BYTES: Final = 8 * 2**20
MAX_ARTIFACT_BYTES: Final = 512 * 2**10
MAX_ARTIFACTS_BYTES: Final = 6 * 2**20
TAIL_BYTES: Final = 4 * 2**10
_BOOTSTRAP: Final = (
    f'import sys; sys.path.insert(0, "{DIRECTORY}"); '
    "from runner.follow import main; sys.exit(main(sys.argv[1:]))"
)
_MAX_PREFACE_BYTES: Final = 64 * 2**10
_KEY: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,126}")


@dataclass(frozen=True, slots=True)
class Job:
    """What to run: ``code`` in a ``language``, or a ``command``; exactly one of the two.

    ``key`` is the run's uid and attempt. ``workdir`` is the user's home when empty. After
    ``deadline_seconds`` the job is told to end, and killed ``grace_seconds`` later.
    """

    key: str
    deadline_seconds: float
    language: str = "python"
    code: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    workdir: str = ""
    grace_seconds: float = 5.0

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ValueError("a job's key is made of lower-case letters, digits, dots and dashes")
        if (self.code is None) == (not self.command):
            raise ValueError("a job has either code or a command")


def job_files(job: Job) -> tuple[tuple[str, bytes], ...]:
    """Paths and contents to upload before the job is started: the runner and the job."""
    document = {
        "key": job.key,
        "language": job.language,
        "code": job.code,
        "command": list(job.command),
        "args": list(job.args),
        "env": dict(job.env),
        "workdir": job.workdir,
        "deadlineSeconds": job.deadline_seconds,
        "graceSeconds": job.grace_seconds,
        "artifacts": list(job.artifacts),
        "limits": {
            "line": MAX_LINE_BYTES,
            "output": MAX_OUTPUT_BYTES,
            "display": MAX_DISPLAY_BYTES,
            "displays": MAX_DISPLAYS_BYTES,
            "artifact": MAX_ARTIFACT_BYTES,
            "artifacts": MAX_ARTIFACTS_BYTES,
            "tail": TAIL_BYTES,
        },
    }
    path = f"{DIRECTORY}/job-{job.key}.json"
    return (*runner_program(), (path, json.dumps(document).encode("ascii")))


@cache
def runner_program() -> tuple[tuple[str, bytes], ...]:
    """The files of the program that runs inside the sandbox, as shipped in this package."""
    package = resources.files("capibara_operator.runner")
    return tuple(
        (f"{DIRECTORY}/runner/{file.name}", file.read_bytes())
        for file in sorted(package.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".py")
    )


def follow_command(key: str, offset: int = 0) -> str:
    """Shell command that starts the job or attaches to it, and prints its log from ``offset``.

    Exits with 0 after the Exit record, with ``EXIT_LOCKED`` when another key holds the lock.
    """
    if not _KEY.fullmatch(key) or offset < 0:
        raise ValueError("not a job's key, or not an offset in its log")
    return f"exec python3 -I -S -c '{_BOOTSTRAP}' {key} {offset}"


class LogReader:
    """Turns the output of one follow command into records; one reader for each connection.

    ``offset`` counts the bytes of the log that were read as complete lines: where the next
    follow command goes on.
    """

    def __init__(self, key: str, offset: int = 0) -> None:
        self.offset = offset
        self._key = key
        self._rest = ""
        self._preface = 0
        self._greeted = False
        self._next_seq: int | None = 0 if offset == 0 else None

    def feed(self, piece: str) -> list[Record]:
        """The records that ``piece`` completes. Raises ``ProtocolError`` on anything else."""
        *lines, self._rest = (self._rest + piece).split("\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise ProtocolError("a log line is longer than its limit")
        records = []
        for line in lines:
            if len(line) > MAX_LINE_BYTES:
                raise ProtocolError("a log line is longer than its limit")
            if not self._greeted:
                self._greet(line)
            elif (record := self._record(line)) is not None:
                records.append(record)
        return records

    def _greet(self, line: str) -> None:
        # A login shell's profile may print before the runner does.
        if line.startswith('{"capibara":'):
            header = parse_object(line)
            if header.get("key") != self._key or header.get("from") != self.offset:
                raise ProtocolError("the runner answered for another job or another offset")
            self._greeted = True
            return
        self._preface += len(line) + 1
        if self._preface > _MAX_PREFACE_BYTES:
            raise ProtocolError("the sandbox printed something other than a job's log")

    def _record(self, line: str) -> Record | None:
        self.offset += len(line) + 1
        if self.offset > MAX_LOG_BYTES:
            raise ProtocolError("the job's log is larger than its limit")
        record = parse_record(line)
        if record is None:
            self._next_seq = None
            return None
        if self._next_seq is not None and record.seq != self._next_seq:
            raise ProtocolError("a record of the job's log is missing or repeated")
        self._next_seq = record.seq + 1
        return record
