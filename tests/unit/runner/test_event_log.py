"""The log on a full disk."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from capibara_operator.core.runs.protocol import (
    Artifact,
    CodeError,
    Exit,
    Output,
    Record,
    parse_record,
)
from capibara_operator.runner.event_log import EventLog

LIMITS = {
    "line": 10**6,
    "output": 10**6,
    "display": 10**5,
    "displays": 10**6,
    "artifact": 10**5,
    "artifacts": 10**6,
    "tail": 100,
}


class Disk:
    """Writes fail with ENOSPC, as long as the reserve is there, once ``full`` is set."""

    def __init__(self, reserve: Path, patch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._reserve = reserve
        self._write = os.write
        patch.setattr(os, "write", self.write)

    def write(self, file: int, data: bytes) -> int:
        if self.full and self._reserve.exists():
            self._write(file, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "full")
        return self._write(file, data)


def records(path: Path) -> list[Record | None]:
    return [parse_record(line) for line in path.read_text("ascii").splitlines()]


def test_full_disk_keeps_room_for_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    log = EventLog(str(path), LIMITS)
    disk = Disk(tmp_path / "log.reserve", monkeypatch)
    (tmp_path / "plot.png").write_bytes(b"x" * 1000)
    log.output("stdout", "before\n")
    disk.full = True
    log.output("stdout", "while it is full\n")
    log.display({"text/plain": "1"}, main=True)
    log.artifact("plot.png", str(tmp_path))
    log.append("error", name="E", value="", traceback="")
    log.close(code=1, reason="completed", seconds=0.5, oomKilled=False)
    kept: list[Any] = records(path)
    assert [record.seq for record in kept] == list(range(len(kept)))
    assert [type(record) for record in kept][-2:] == [Output, Exit]
    assert CodeError in [type(record) for record in kept]
    assert [record.problem != "" for record in kept if isinstance(record, Artifact)] == [True]
    assert (kept[0].text, kept[-2].text) == ("before\n", "while it is full\n")
    assert kept[-1].truncated


def test_other_errors_of_the_disk_are_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog(str(tmp_path / "log"), LIMITS)

    def fail(file: int, data: bytes) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OSError, match="broken"):
        log.output("stdout", "x")


def test_display_over_its_limit_loses_its_largest_type(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path / "log"), LIMITS)
    log.display({"text/plain": "small", "image/png": "x" * 200_000}, main=True)
    (kept,) = records(tmp_path / "log")
    assert kept is not None
    assert (kept.data, kept.omitted) == ({"text/plain": "small"}, ("image/png",))  # type: ignore[union-attr]
