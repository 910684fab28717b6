"""How a job ended, and when it must."""

from __future__ import annotations

import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TRACEBACK_CHARS = 1 << 16


class Failure:
    """The exception that ended the code."""

    def __init__(self, name: str, value: str, traceback: str) -> None:
        self.name = name
        self.value = value
        self.traceback = traceback

    def fields(self) -> dict[str, str]:
        """As fields of an error record, bounded."""
        return {
            "name": self.name[:256],
            "value": self.value[:TRACEBACK_CHARS],
            "traceback": self.traceback[-TRACEBACK_CHARS:],
        }


class Outcome:
    """``killed`` means: ended from outside, as the out-of-memory killer does it."""

    def __init__(self, code: int, failure: Failure | None = None, killed: bool = False) -> None:
        self.code = code
        self.failure = failure
        self.killed = killed


class Stop:
    """Tells a job to end: at its deadline, or when the worker gets SIGTERM."""

    def __init__(self, deadline_seconds: float, grace_seconds: float) -> None:
        self._deadline = time.monotonic() + deadline_seconds
        self._grace_seconds = grace_seconds
        self._kill_at: float | None = None
        self._told = False
        self.reason = ""
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, *_: Any) -> None:
        self._told = True

    def next_signal(self) -> int | None:
        """SIGTERM once when it is time to end, SIGKILL once the grace is over, else None."""
        now = time.monotonic()
        if not self.reason and (self._told or now >= self._deadline):
            self.reason = "cancelled" if self._told else "deadline"
            self._kill_at = now + self._grace_seconds
            return signal.SIGTERM
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = now + 1.0
            return signal.SIGKILL
        return None
