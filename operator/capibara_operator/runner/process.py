"""Runs a command as a child process and copies what it prints into the log."""

from __future__ import annotations

import codecs
import os
import re
import selectors
import signal
import subprocess
import time

from .memory import EXPENDABLE, ORDINARY, set_oom_score
from .outcome import Failure, Outcome, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

READ_BYTES = 1 << 16
TICK_SECONDS = 0.05
COALESCE_SECONDS = 0.01
DRAIN_SECONDS = 0.5
TAIL_CHARS = 1 << 14
_LAST_LINE = re.compile(r"^([A-Za-z_][\w.]*)(?:: (.*))?\Z", re.DOTALL | re.MULTILINE)


def run_process(
    command: list[str],
    environment: dict[str, str],
    directory: str,
    output: Callable[[str, str], None],
    stop: Stop,
) -> Outcome:
    """Run to the end or until stopped. ``output`` gets a stream's name and text."""
    try:
        process = _spawn(command, environment, directory)
    except OSError as error:
        what = os.strerror(error.errno) if error.errno else str(error)
        output("stderr", f"capibara: cannot start {command[0]!r}: {what}\n")
        return Outcome(127 if isinstance(error, FileNotFoundError) else 126)
    pump = _Pump(process, output)
    drain_until: float | None = None
    while drain_until is None or (pump.open and time.monotonic() < drain_until):
        number = stop.next_signal()
        if number is not None:
            _signal_group(process, number)
        # Asked before the pipes are read: what it wrote before it ended is then seen.
        ended = process.poll() is not None
        pump.turn()
        if ended and drain_until is None:
            # Children left in the background may hold the pipes open for ever.
            drain_until = time.monotonic() + DRAIN_SECONDS
    if stop.reason:
        _signal_group(process, signal.SIGKILL)
    pump.close()
    status = process.returncode
    code = 128 - status if status < 0 else status
    return Outcome(code, pump.failure() if code == 1 else None, killed=code == 137)


def _spawn(
    command: list[str], environment: dict[str, str], directory: str
) -> subprocess.Popen[bytes]:
    """Start the command, so that the out-of-memory killer prefers it to the worker."""
    set_oom_score(EXPENDABLE)
    try:
        return subprocess.Popen(
            command,
            env=environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    finally:
        set_oom_score(ORDINARY)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


class _Pump:
    """Copies the two pipes of a process, decoding and coalescing what comes in small pieces."""

    def __init__(
        self, process: subprocess.Popen[bytes], output: Callable[[str, str], None]
    ) -> None:
        self._output = output
        self._selector = selectors.DefaultSelector()
        self._decoders: dict[str, Any] = {}
        self._tail = ""
        for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
            self._decoders[name] = codecs.getincrementaldecoder("utf-8")(errors="replace")
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self._selector.register(pipe, selectors.EVENT_READ, name)

    @property
    def open(self) -> bool:
        """Whether any pipe may still give something."""
        return bool(self._selector.get_map())

    def turn(self) -> None:
        """Wait a little and copy what there is."""
        if not self.open:
            time.sleep(TICK_SECONDS / 10)
            return
        most = 0
        for key, _ in self._selector.select(TICK_SECONDS):
            data = os.read(key.fd, READ_BYTES)
            most = max(most, len(data))
            self._emit(key.data, data, final=not data)
            if not data:
                self._selector.unregister(key.fileobj)
        if 0 < most < READ_BYTES // 2:
            time.sleep(COALESCE_SECONDS)

    def close(self) -> None:
        """Give out what the decoders still hold."""
        for key in list(self._selector.get_map().values()):
            self._emit(key.data, b"", final=True)
        self._selector.close()

    def failure(self) -> Failure | None:
        """The exception whose Python traceback ends stderr, if there is one."""
        start = self._tail.rfind("Traceback (most recent call last):")
        traceback = self._tail[start:].rstrip() if start >= 0 else ""
        unindented = [line for line in traceback.split("\n")[1:] if line[:1] not in {"", " "}]
        match = _LAST_LINE.match(unindented[0]) if unindented else None
        if match is None:
            return None
        value = traceback[traceback.index(unindented[0]) + len(match.group(1)) :]
        return Failure(match.group(1), value[2:], traceback)

    def _emit(self, stream: str, data: bytes, final: bool) -> None:
        text = self._decoders[stream].decode(data, final)
        if text:
            self._output(stream, text)
        if stream == "stderr":
            self._tail = (self._tail + text)[-TAIL_CHARS:]
