"""What is kept of a job's log while it arrives: bounded, whatever the job prints."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from capibara_operator.core.runs.records import (
    Artifact,
    CodeError,
    Display,
    Exit,
    Output,
    Record,
    Started,
)

TAIL_BYTES: Final = 2 * 1024
TEXT_BYTES: Final = 4 * 1024
STREAM_BYTES: Final = 96 * 1024
BLOB_BYTES: Final = 300 * 1024
MAX_BLOBS: Final = 30
_MAX_NAME_CHARS: Final = 100
_MAX_NOTES: Final = 8

# MIME type -> (file suffix, is base64). Of one display the first that it has is kept.
_RICH_TYPES: Final[Mapping[str, tuple[str, bool]]] = {
    "image/png": ("png", True),
    "image/jpeg": ("jpg", True),
    "image/svg+xml": ("svg", False),
    "application/pdf": ("pdf", True),
    "text/html": ("html", False),
    "text/markdown": ("md", False),
    "text/latex": ("tex", False),
    "application/json": ("json", False),
}


@dataclass(frozen=True, slots=True)
class Blob:
    """A rich result or an artifact: a file with a name that a ConfigMap takes as key."""

    name: str
    mime_type: str
    data: bytes


@dataclass(slots=True)
class Stream:
    """One output stream: its first ``STREAM_BYTES``, its tail and how much there was."""

    size: int = 0
    tail: str = ""
    skipped: bool = False
    kept: int = 0
    _head: list[str] = field(default_factory=list)

    def add(self, text: str, skipped: int) -> None:
        """Take in what the job printed, after ``skipped`` bytes that are not there."""
        encoded = text.encode("utf-8", "replace")
        self.size += skipped + len(encoded)
        self.skipped = self.skipped or skipped > 0
        self.tail = cut_tail(self.tail + text)
        room = STREAM_BYTES - self.kept
        if room > 0:
            piece = encoded[:room].decode("utf-8", "ignore")
            self._head.append(piece)
            self.kept += len(piece.encode("utf-8", "replace"))

    @property
    def head(self) -> str:
        """The beginning of the stream: all of it unless ``kept`` is less than ``size``."""
        return "".join(self._head)


@dataclass(slots=True)
class Transcript:
    """One attempt's log so far, read up to byte ``offset``.

    ``notes`` say in words what was left out and why.
    """

    started: Started | None = None
    exit: Exit | None = None
    error: CodeError | None = None
    text: str = ""
    stdout: Stream = field(default_factory=Stream)
    stderr: Stream = field(default_factory=Stream)
    blobs: list[Blob] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: int = 0
    offset: int = 0
    _room: int = BLOB_BYTES
    _displays: int = 0

    def add(self, record: Record) -> None:
        """Take in the next record of the log."""
        self.records += 1
        match record:
            case Started():
                self.started = record
            case Output():
                stream = self.stdout if record.stream == "stdout" else self.stderr
                stream.add(record.text, record.skipped)
            case Display():
                self._add_display(record)
            case CodeError():
                self.error = record
            case Artifact():
                self._add_artifact(record)
            case Exit():
                self.exit = record

    @property
    def rich(self) -> bool:
        """Whether there is anything that does not fit into a status."""
        tails = (self.stdout, self.stderr)
        return bool(self.blobs) or any(each.size > TAIL_BYTES for each in tails)

    def _add_display(self, display: Display) -> None:
        if display.main and (text := display.data.get("text/plain")):
            self.text = cut(text, TEXT_BYTES)
        self._displays += 1
        for mime, (suffix, encoded) in _RICH_TYPES.items():
            if mime in display.data:
                data = _decoded(display.data[mime], encoded=encoded)
                if data is None:
                    self._note(f"rich result {self._displays} is not valid base64")
                else:
                    self._keep(f"display-{self._displays}.{suffix}", mime, data)
                return
        for mime in display.omitted:
            self._note(f"rich result {self._displays} ({mime[:60]}) is over the sandbox's limit")

    def _add_artifact(self, artifact: Artifact) -> None:
        if artifact.data is None:
            self._note(f"artifact {artifact.path[:120]}: {artifact.problem[:200]}")
        else:
            name = _file_name(artifact.path)
            self._keep(name, _mime_of(name), artifact.data)

    def _keep(self, name: str, mime: str, data: bytes) -> None:
        if len(data) > self._room or len(self.blobs) >= MAX_BLOBS:
            self._note(f"{name} ({len(data)} bytes) does not fit into the output object")
            return
        self._room -= len(data)
        self.blobs.append(Blob(self._unique(name), mime, data))

    def _unique(self, name: str) -> str:
        taken = {blob.name for blob in self.blobs} | {"stdout", "stderr"}
        candidate, number = name, 1
        while candidate in taken:
            number += 1
            candidate = f"{number}-{name}"
        return candidate

    def _note(self, note: str) -> None:
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(note)


def cut(text: str, limit: int) -> str:
    """The first ``limit`` bytes of a text, in whole characters."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def cut_tail(text: str, limit: int = TAIL_BYTES) -> str:
    """The last ``limit`` bytes of a text, in whole characters."""
    return text[-limit:].encode("utf-8", "replace")[-limit:].decode("utf-8", "ignore")


def _decoded(text: str, *, encoded: bool) -> bytes | None:
    if not encoded:
        return text.encode("utf-8", "replace")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _file_name(path: str) -> str:
    """The last part of a path, in the letters that a ConfigMap's key may have."""
    name = re.sub(r"[^-._a-zA-Z0-9]", "-", PurePosixPath(path).name)[-_MAX_NAME_CHARS:]
    # A key of a ConfigMap must not begin with two dots.
    name = name.lstrip(".") if name.startswith("..") else name
    return name if name.strip(".") else "artifact"


_SUFFIX_TYPES: Final[Mapping[str, str]] = {
    ".csv": "text/csv",
    ".txt": "text/plain",
    ".log": "text/plain",
    **{f".{suffix}": mime for mime, (suffix, _) in _RICH_TYPES.items()},
}


def _mime_of(name: str) -> str:
    return _SUFFIX_TYPES.get(PurePosixPath(name).suffix.lower(), "application/octet-stream")
