"""The event log of a job: one JSON object a line, appended whole, bounded in size."""

from __future__ import annotations

import binascii
import errno
import json
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PIECE_CHARS = 1 << 16
RESERVE_BYTES = 1 << 16


class EventLog:
    """Appends records; ``limits`` are the job's, in bytes."""

    def __init__(self, path: str, limits: dict[str, int]) -> None:
        self._limits = limits
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self._reserve = path + ".reserve"
        with open(self._reserve, "wb") as reserve:
            reserve.write(b"\0" * RESERVE_BYTES)
        self._seq = 0
        self._left: dict[str | None, int] = {
            budget: limits[budget] for budget in ("output", "displays", "artifacts")
        }
        self._bytes = {"stdout": 0, "stderr": 0}
        self._skipped = {"stdout": 0, "stderr": 0}
        self._tail = {"stdout": "", "stderr": ""}
        self._omitted = False

    def append(self, kind: str, **fields: Any) -> None:
        """Append one record, whatever its size."""
        self._write(kind, fields, None)

    def output(self, stream: str, text: str) -> None:
        """Append text that the job printed, or keep only its end once the log is full."""
        for start in range(0, len(text), PIECE_CHARS):
            piece = text[start : start + PIECE_CHARS]
            size = len(piece.encode("utf-8", "replace"))
            self._bytes[stream] += size
            fields = {"stream": stream, "text": piece}
            if self._skipped[stream] or not self._write("output", fields, "output"):
                self._skipped[stream] += size
                self._tail[stream] = (self._tail[stream] + piece)[-self._limits["tail"] :]

    def display(self, data: dict[str, str], main: bool) -> None:
        """Append one rich result, without the types that make it too large."""
        omitted = []
        for mime in sorted(data, key=lambda mime: len(data[mime]), reverse=True):
            if len(json.dumps(data)) <= self._limits["display"]:
                break
            del data[mime]
            omitted.append(mime)
        if not self._write("display", _display(data, main, omitted), "displays"):
            omitted += sorted(data)
            self.append("display", **_display({}, main, omitted))
        self._omitted = self._omitted or bool(omitted)

    def artifact(self, path: str, directory: str) -> None:
        """Append one file, or the reason why it cannot be had."""
        where = os.path.join(directory, os.path.expanduser(path))
        try:
            data, size = _read_file(where, self._limits["artifact"])
        except OSError as error:
            problem = os.strerror(error.errno) if error.errno else str(error)
            self.append("artifact", path=path, size=0, sha256="", problem=problem)
            return
        problem = f"larger than the limit of {self._limits['artifact']} bytes"
        if data is not None:
            import hashlib  # noqa: PLC0415 - slow to import, and seldom needed

            digest = hashlib.sha256(data).hexdigest()
            text = binascii.b2a_base64(data, newline=False).decode("ascii")
            fields = {"path": path, "size": size, "sha256": digest, "data": text}
            if self._write("artifact", fields, "artifacts"):
                return
            problem = f"the artifacts together are over {self._limits['artifacts']} bytes in base64"
        self.append("artifact", path=path, size=size, sha256="", problem=problem)

    def close(self, **fields: Any) -> None:
        """Append what was kept of skipped output, then the exit record."""
        for stream in ("stdout", "stderr"):
            if self._skipped[stream]:
                tail = self._tail[stream]
                gap = max(0, self._skipped[stream] - len(tail.encode("utf-8", "replace")))
                self.append("output", stream=stream, text=tail, skipped=gap)
        self.append(
            "exit",
            stdoutBytes=self._bytes["stdout"],
            stderrBytes=self._bytes["stderr"],
            truncated=self._omitted or any(self._skipped.values()),
            **fields,
        )

    def _write(self, kind: str, fields: dict[str, Any], budget: str | None) -> bool:
        """Append a record; False when its budget or the disk has no room for it.

        A record without a budget may use the reserve: it says how the job ended.
        """
        record = {"type": kind, "seq": self._seq}
        record.update(fields)
        line = json.dumps(record).encode("ascii") + b"\n"
        if len(line) > min(self._limits["line"], self._left.get(budget, len(line))):
            return False
        try:
            self._append_line(line)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._left = dict.fromkeys(self._left, 0)
            if budget is not None:
                return False
            os.unlink(self._reserve)
            self._append_line(line)
        if budget is not None:
            self._left[budget] -= len(line)
        self._seq += 1
        return True

    def _append_line(self, line: bytes) -> None:
        start = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError:
            os.ftruncate(self._file, start)
            raise


def _display(data: dict[str, str], main: bool, omitted: list[str]) -> dict[str, Any]:
    return {"data": data, "main": main, "omitted": omitted}


def _read_file(path: str, limit: int) -> tuple[bytes | None, int]:
    """The content (None over the limit) and size of a regular file."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb", closefd=True) as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL, path)
        if status.st_size > limit:
            return None, status.st_size
        data = stream.read(limit + 1)
    return (data, len(data)) if len(data) <= limit else (None, len(data))
