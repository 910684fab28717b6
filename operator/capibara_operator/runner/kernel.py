"""Runs Python through the sandbox's code interpreter, for its rich results."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import threading

from .httpline import BadAnswerError, Exchange
from .outcome import Failure, Outcome, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .event_log import EventLog

HOST, PORT = "127.0.0.1", 49999
HEALTH_SECONDS = 2.0
TICK_SECONDS = 0.05
MIME_TYPES = {
    "text": "text/plain",
    "html": "text/html",
    "markdown": "text/markdown",
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpeg": "image/jpeg",
    "pdf": "application/pdf",
    "latex": "text/latex",
    "json": "application/json",
    "javascript": "application/javascript",
    "data": "e2b/data",
    "chart": "e2b/chart",
}
LOST_NAMES = frozenset({"ContextRestarting", "KernelDied", "UnexpectedEndOfExecution"})

# Reads its settings from a file: code that a kernel executes is logged by the interpreter, and
# values pasted into code would have to be escaped.
PREAMBLE = """
def _capibara(path):
    import json, os, sys, warnings
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    os.unlink(path)
    os.environ.update(job["env"])
    sys.argv[:] = ["main.py", *job["args"]]
    warnings.filterwarnings("ignore", message="To exit: use 'exit'")
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass
    os.chdir(job["workdir"])
    print(os.getpid(), flush=True)
_capibara(%s)
del _capibara
"""


def interpreter_answers() -> bool:
    """Whether a code interpreter listens in this sandbox."""
    try:
        exchange = Exchange((HOST, PORT), "GET /health", b"", HEALTH_SECONDS)
    except socket.timeout:
        # It listens: `/execute` waits until its kernel is up, and the deadline bounds that.
        return True
    except (OSError, BadAnswerError):
        return False
    exchange.close()
    return exchange.status == 200


def run_in_kernel(code: str, settings_path: str, log: EventLog, stop: Stop) -> Outcome:
    """Execute ``code`` after the preamble has applied the settings file (env, args, workdir)."""
    preamble = _Execution(PREAMBLE % json.dumps(settings_path), None, None)
    outcome = preamble.run(stop)
    pid = preamble.text.strip()
    if outcome.code or not pid.isdigit():
        failure = outcome.failure or Failure(
            "InterpreterError", "the code interpreter did not start the job", ""
        )
        return Outcome(outcome.code or 1, failure, outcome.killed)
    return _Execution(code, log, int(pid)).run(stop)


class _Execution:
    """One execution. A thread reads the answer, so that the deadline never waits for it."""

    def __init__(self, code: str, log: EventLog | None, pid: int | None) -> None:
        self._code = code
        self._log = log
        self._pid = pid
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue(maxsize=64)
        self._failure: Failure | None = None
        self._complete = False
        self.text = ""

    def run(self, stop: Stop) -> Outcome:
        """Handle events until the execution ends, and signal the kernel when told to stop."""
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            number = stop.next_signal()
            if number is not None and not self._signal(number):
                return Outcome(137)
            try:
                event = self._events.get(timeout=TICK_SECONDS)
            except queue.Empty:
                if number == signal.SIGKILL:
                    return Outcome(137)
                continue
            if event is None:
                return self._outcome()
            self._handle(event)

    def _read(self) -> None:
        try:
            body = json.dumps({"code": self._code}).encode("ascii")
            exchange = Exchange((HOST, PORT), "POST /execute", body, None)
            if exchange.status != 200:
                text = b"\n".join(exchange.lines()).decode("utf-8", "replace")
                self._events.put(_error("InterpreterError", f"{exchange.status} {text}"))
                self._complete = True
                return
            for line in exchange.lines():
                if line.strip():
                    self._events.put(json.loads(line))
        except (OSError, ValueError, BadAnswerError):
            # An answer that breaks off means a lost kernel: `_outcome` says so.
            return
        finally:
            self._events.put(None)

    def _handle(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind in {"stdout", "stderr"}:
            self._text(str(kind), str(event.get("text", "")))
        elif kind == "result" and self._log is not None:
            self._log.display(_mime_bundle(event), bool(event.get("is_main_result")))
        elif kind == "error":
            name, value = str(event.get("name", "")), str(event.get("value", ""))
            self._failure = Failure(name, value, _joined(event.get("traceback", "")))
        elif kind == "end_of_execution":
            self._complete = True

    def _text(self, stream: str, text: str) -> None:
        if self._log is None:
            self.text += text if stream == "stdout" else ""
        else:
            self._log.output(stream, text)

    def _outcome(self) -> Outcome:
        failure = self._failure
        if failure is None and self._complete:
            return Outcome(0)
        if failure is None or failure.name in LOST_NAMES:
            return Outcome(
                1, Failure("KernelDied", "the Python process ended before the code did", ""), True
            )
        if failure.name == "SystemExit":
            return self._system_exit(failure.value)
        return Outcome(130 if failure.name == "KeyboardInterrupt" else 1, failure)

    def _system_exit(self, value: str) -> Outcome:
        if value in {"", "None"}:
            return Outcome(0)
        try:
            return Outcome(int(value) & 255)
        except ValueError:
            self._text("stderr", value + "\n")
            return Outcome(1)

    def _signal(self, number: int) -> bool:
        """Interrupt the kernel, as Jupyter does it, or kill it; False when there is no pid."""
        if self._pid is None:
            return False
        number = signal.SIGINT if number == signal.SIGTERM else number
        try:
            if os.getpgid(self._pid) == self._pid:
                os.killpg(self._pid, number)
            else:
                os.kill(self._pid, number)
        except ProcessLookupError:
            pass
        return True


def _mime_bundle(event: dict[str, Any]) -> dict[str, str]:
    bundle = {mime: event[key] for key, mime in MIME_TYPES.items() if event.get(key) is not None}
    extra = event.get("extra")
    if isinstance(extra, dict):
        bundle.update({str(mime): value for mime, value in list(extra.items())[:16]})
    return {
        mime: value if isinstance(value, str) else json.dumps(value)
        for mime, value in bundle.items()
    }


def _joined(traceback: Any) -> str:
    return "\n".join(map(str, traceback)) if isinstance(traceback, list) else str(traceback)


def _error(name: str, value: str) -> dict[str, Any]:
    return {"type": "error", "name": name, "value": value, "traceback": ""}
