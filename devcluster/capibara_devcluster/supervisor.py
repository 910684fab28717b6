"""Starts a cluster's components in order, restarts those that end, and says how they are.

It runs as a process of its own that outlives `up`. Killing it, in whatever way, ends every
component: in namespaces it is PID 1; elsewhere each component asks the kernel to die with it.
Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from capibara_devcluster import files
from capibara_devcluster.component import Component
from capibara_devcluster.process import Identity

_TICK_SECONDS: Final = 0.05
_SETTLED_TICK_SECONDS: Final = 0.25
_RECHECK_SECONDS: Final = 3.0
_OWNER_CHECK_SECONDS: Final = 0.5
_FIRST_BACKOFF_SECONDS: Final = 0.5
_LAST_BACKOFF_SECONDS: Final = 10.0
_STABLE_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0
_PR_SET_PDEATHSIG: Final = 1
_PROXIES: Final = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


@dataclass(slots=True)
class _Running:
    """What is known of one component; times are of the monotonic clock, in seconds."""

    component: Component
    process: subprocess.Popen[bytes] | None = None
    identity: Identity | None = None
    ready: bool = False
    restarts: int = 0
    exit_code: int | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    check_at: float = 0.0
    backoff: float = _FIRST_BACKOFF_SECONDS

    def health(self) -> dict[str, Any]:
        return {
            "process": self.identity.dump() if self.identity else None,
            "ready": self.ready,
            "restarts": self.restarts,
            "exitCode": self.exit_code,
        }


class Supervisor:
    """Runs components until it is told to stop or its owner is gone.

    Args:
        components: what to run.
        logs: folder of the components' log files.
        health: file that is rewritten whenever something changed.
        owner_gone: says whether the process ended whose end ends the cluster.
    """

    def __init__(
        self,
        components: Sequence[Component],
        *,
        logs: Path,
        health: Path,
        owner_gone: Callable[[], bool],
    ) -> None:
        self._running = {component.name: _Running(component) for component in components}
        self._logs = logs
        self._health = health
        self._owner_gone = owner_gone
        self._stopping = False
        self._written: Mapping[str, Any] = {}
        self._owner_check_at = 0.0

    def run(self) -> None:
        """Supervise until SIGTERM, SIGINT or the owner's end; then stop every component."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        while not self._stopping:
            now = time.monotonic()
            self._reap(now)
            for running in self._running.values():
                self._advance(running, now)
            self._write_health()
            self._check_owner(now)
            settled = all(running.ready for running in self._running.values())
            time.sleep(_SETTLED_TICK_SECONDS if settled else _TICK_SECONDS)
        self._end_components()
        self._write_health()

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _check_owner(self, now: float) -> None:
        if now >= self._owner_check_at:
            self._owner_check_at = now + _OWNER_CHECK_SECONDS
            self._stopping = self._stopping or self._owner_gone()

    def _advance(self, running: _Running, now: float) -> None:
        if running.process is None:
            if now >= running.start_at and self._may_start(running.component):
                self._start(running, now)
        elif now >= running.check_at:
            probe = running.component.ready
            running.ready = probe is None or probe.passes()
            running.check_at = now + (_RECHECK_SECONDS if running.ready else _TICK_SECONDS)

    def _may_start(self, component: Component) -> bool:
        return all(self._running[name].ready for name in component.after)

    def _start(self, running: _Running, now: float) -> None:
        component = running.component
        with (self._logs / f"{component.name}.log").open("ab") as log:
            try:
                running.process = subprocess.Popen(
                    component.argv,
                    env={**_environment(), **component.env},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # Only this thread exists, so code between fork and exec is safe.
                    preexec_fn=_die_with_parent,  # noqa: PLW1509
                )
            except OSError as error:
                log.write(f"cannot start {component.argv[0]}: {error}\n".encode())
                self._ended(running, 127, now)
                return
        running.identity = Identity.of(running.process.pid)
        running.started_at = now
        running.exit_code = None

    def _reap(self, now: float) -> None:
        # As PID 1 we also inherit processes that are not components.
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                for running in self._running.values():
                    if running.process is not None and running.process.pid == pid:
                        code = os.waitstatus_to_exitcode(status)
                        running.process.returncode = code
                        self._ended(running, code, now)

    def _ended(self, running: _Running, code: int, now: float) -> None:
        if running.process is not None and now - running.started_at > _STABLE_SECONDS:
            running.backoff = _FIRST_BACKOFF_SECONDS
        running.process, running.identity, running.ready = None, None, False
        running.exit_code = code
        running.restarts += 1
        running.start_at = now + running.backoff
        running.backoff = min(2 * running.backoff, _LAST_BACKOFF_SECONDS)

    def _write_health(self) -> None:
        health = {name: running.health() for name, running in self._running.items()}
        if health != self._written:
            self._written = health
            files.write_json(self._health, {"components": health})

    def _end_components(self) -> None:
        deadline = time.monotonic() + _STOP_SECONDS
        for running in reversed(self._running.values()):
            if running.process is not None:
                running.process.terminate()
        while time.monotonic() < deadline and any(r.process for r in self._running.values()):
            self._reap(time.monotonic())
            time.sleep(_TICK_SECONDS)
        for running in self._running.values():
            if running.process is not None:
                running.process.kill()


def _environment() -> dict[str, str]:
    """Our environment without proxies: components speak to each other only."""
    return {key: value for key, value in os.environ.items() if key.lower() not in _PROXIES}


def _die_with_parent() -> None:
    os.setsid()
    with contextlib.suppress(AttributeError, OSError):  # Linux only
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
