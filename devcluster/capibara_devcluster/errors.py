"""The one error that the command line shows: what happened, where the log is, what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

_TAIL_LINES: Final = 15
_TAIL_BYTES: Final = 16_384


class DevclusterError(Exception):
    """A failure that the user can act on.

    Args:
        what: one sentence on what happened and why.
        hint: what to do next.
        log: the log file whose last lines belong to the failure.
    """

    def __init__(self, what: str, *, hint: str = "", log: Path | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.log = log

    def lines(self) -> Sequence[str]:
        """The message as lines: what, the log's last lines and its path, what to do next."""
        lines = [self.what]
        if self.log is not None:
            lines += [f"  | {line}" for line in tail(self.log)]
            lines.append(f"  log: {self.log}")
        if self.hint:
            lines.append(f"  next: {self.hint}")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


def tail(log: Path, count: int = _TAIL_LINES) -> list[str]:
    """The last `count` lines of a log file; empty when it cannot be read."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-count:]
