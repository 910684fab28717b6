"""Processes by identity: a pid alone may have been given to somebody else."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

_KILL_TIMEOUT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be mistaken for a later one with the same pid.

    Args:
        pid: process id as seen by us.
        started: start time; clock ticks since boot on Linux, a date elsewhere.
        boot: id of the boot that `started` counts from.
    """

    pid: int
    started: str
    boot: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The identity of a running process; None when there is none (a zombie is none)."""
        started = _start_time(pid)
        return None if started is None else cls(pid=pid, started=started, boot=_boot_id())

    @classmethod
    def load(cls, stored: dict[str, Any] | None) -> Self | None:
        """The inverse of `dump`; None when nothing was stored."""
        return None if stored is None else cls(**stored)

    def dump(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        return Identity.of(self.pid) == self

    def kill(self, timeout: float = _KILL_TIMEOUT_SECONDS) -> bool:
        """Kill the process and wait until it is gone.

        Args:
            timeout: seconds.

        Returns:
            False when it still runs after the timeout.
        """
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        deadline = time.monotonic() + timeout
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _start_time(pid: int) -> str | None:
    if not Path("/proc/self/stat").exists():
        return _start_time_by_ps(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command's name, in parentheses, may hold spaces; fields are counted after it.
    fields = stat.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started


def _start_time_by_ps(pid: int) -> str | None:
    shown = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=5,
    ).stdout.split(maxsplit=1)
    return shown[1].strip() if len(shown) == 2 and "Z" not in shown[0] else None
