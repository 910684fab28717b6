"""Runs one job to its end and writes its event log. Lives on without any connection."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from .event_log import EventLog
from .memory import ORDINARY, oom_kills, set_oom_score
from .outcome import Outcome, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def work(job_path: str, log_path: str) -> None:
    """Run the job at ``job_path`` and write its event log to ``log_path``."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A sandbox may have marked the follower that this was forked from as expendable.
    set_oom_score(ORDINARY)
    with open(job_path, encoding="ascii") as file:
        job = json.load(file)
    log = EventLog(log_path, job["limits"])
    base, began = oom_kills(), time.monotonic()
    log.append("started", time=time.time(), pid=os.getpid(), oomKills=base)
    # It may hold secrets, and nothing reads it again.
    os.unlink(job_path)
    stop = Stop(job["deadlineSeconds"], job["graceSeconds"])
    directory = os.path.expanduser(job["workdir"]) or os.path.expanduser("~")
    try:
        outcome = _run(job, os.path.dirname(job_path), directory, log, stop)
        if outcome.failure is not None:
            log.append("error", **outcome.failure.fields())
        for path in job["artifacts"]:
            log.artifact(path, directory)
        now = oom_kills()
        oom = base is not None and now is not None and now > base
        reason, code = _verdict(outcome, stop, oom)
    except Exception:  # noqa: BLE001 - whatever it was, the log must end
        import traceback  # noqa: PLC0415

        text = "capibara: the runner failed\n" + traceback.format_exc()
        sys.stderr.write(text)
        log.output("stderr", text)
        reason, code, oom = "lost", 1, False
    log.close(code=code, reason=reason, seconds=time.monotonic() - began, oomKilled=oom)


def _verdict(outcome: Outcome, stop: Stop, oom: bool) -> tuple[str, int]:
    if stop.reason:
        return stop.reason, outcome.code
    if outcome.killed and oom:
        return "outOfMemory", 137
    if outcome.failure is not None and outcome.failure.name.endswith("MemoryError"):
        return "outOfMemory", outcome.code
    return "completed", outcome.code


def _run(job: dict[str, Any], home: str, directory: str, log: EventLog, stop: Stop) -> Outcome:
    # What a job does not need is not imported: that would be half of a short job's time.
    if job["language"] == "python" and job["code"] is not None:
        from .kernel import interpreter_answers, run_in_kernel  # noqa: PLC0415

        if interpreter_answers():
            settings = os.path.join(home, "settings-" + job["key"] + ".json")
            with open(settings, "w", encoding="ascii", opener=_private) as file:
                json.dump({"env": job["env"], "args": job["args"], "workdir": directory}, file)
            return run_in_kernel(job["code"], settings, log, stop)
    from .process import run_process  # noqa: PLC0415

    environment = dict(os.environ)
    environment.update(job["env"])
    command = _command(job, home, directory, environment)
    return run_process(command, environment, directory, log.output, stop)


def _command(
    job: dict[str, Any], home: str, directory: str, environment: dict[str, str]
) -> list[str]:
    """The command that runs the job as a plain process."""
    if job["code"] is None:
        return [*job["command"], *job["args"]]
    # A directory of its own: Python puts a script's directory first on its module path.
    folder = os.path.join(home, "main-" + job["key"])
    os.makedirs(folder, mode=0o700)
    script = os.path.join(folder, "main.py" if job["language"] == "python" else "main.sh")
    with open(script, "w", encoding="utf-8", errors="replace", opener=_private) as file:
        file.write(job["code"])
    if job["language"] == "python":
        path = [directory, environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
        return ["python3", "-u", script, *job["args"]]
    return ["bash", script, *job["args"]]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
