"""Starts a job or attaches to it, and prints its event log until the job has ended.

``follow.main([KEY, FROM])``: exit status 0 after the exit record, 75 when another key holds the
start lock, 65 for a FROM past the end of the log, 66 when the job was not uploaded. A follower
may die or lose its reader at any time: the job runs in a process of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time

from .memory import oom_kills

EXIT_BAD_OFFSET = 65
EXIT_NO_JOB = 66
EXIT_LOCKED = 75
CHUNK_BYTES = 1 << 18
SHORTEST_WAIT_SECONDS = 0.002
LONGEST_WAIT_SECONDS = 0.05
EAGER_WAIT_SECONDS = 0.008
EAGER_SECONDS = 1.0


class Paths:
    """Where the state of a job is, all of it in one directory."""

    def __init__(self, directory: str, key: str) -> None:
        self.directory = directory
        self.lock = os.path.join(directory, "lock")
        self.job = os.path.join(directory, "job-" + key + ".json")
        self.log = os.path.join(directory, "log-" + key + ".jsonl")


def main(arguments: list[str]) -> int:
    """Run as the follow command; returns the exit status."""
    key, offset = arguments[0], int(arguments[1])
    package = os.path.dirname(os.path.abspath(__file__))
    paths = Paths(os.path.dirname(package), key)
    if not os.path.exists(paths.lock) and not os.path.exists(paths.job):
        sys.stderr.write("capibara: there is no job " + key + " in this sandbox: upload it first\n")
        return EXIT_NO_JOB
    if not start(paths, key) and _holder(paths) != key:
        sys.stderr.write("capibara: another job holds this sandbox\n")
        return EXIT_LOCKED
    try:
        return follow(paths, key, offset)
    except BrokenPipeError:
        return 0


def start(paths: Paths, key: str) -> bool:
    """Take the lock and fork the worker; False when the lock is taken already.

    The lock appears whole, by ``link``: it holds the key from its first moment, and the worker's
    flock on it tells for ever whether the worker lives, without a pid that could be reused.
    """
    draft = paths.lock + "." + str(os.getpid())
    lock = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(lock, key.encode("ascii"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.link(draft, paths.lock)
    except FileExistsError:
        os.close(lock)
        return False
    finally:
        os.unlink(draft)
    if os.fork() == 0:
        _become_worker(paths)
    os.close(lock)
    return True


def _become_worker(paths: Paths) -> None:
    status = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        errors = os.open(
            os.path.join(paths.directory, "worker.err"), os.O_WRONLY | os.O_CREAT | os.O_APPEND
        )
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(errors, 2)
        from .worker import work  # noqa: PLC0415 - a follower that only attaches needs none of it

        work(paths.job, paths.log)
        status = 0
    finally:
        os._exit(status)


def follow(paths: Paths, key: str, offset: int) -> int:
    """Print complete lines of the log from byte ``offset`` until the exit record."""
    log = _open_log(paths)
    if offset > (os.fstat(log).st_size if log is not None else 0):
        sys.stderr.write("capibara: the log is shorter than the offset\n")
        return EXIT_BAD_OFFSET
    _print(b'{"capibara":1,"key":%s,"from":%d}\n' % (json.dumps(key).encode("ascii"), offset))
    if log is not None:
        os.lseek(log, offset, os.SEEK_SET)
    rest, wait, began = b"", SHORTEST_WAIT_SECONDS, time.monotonic()
    while True:
        # Asked before the log is read: what the worker wrote before it ended is then seen.
        alive = _worker_lives(paths)
        log = log if log is not None else _open_log(paths)
        data = os.read(log, CHUNK_BYTES) if log is not None else b""
        if data:
            complete, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                _print(complete + newline)
                if _is_exit(complete[complete.rfind(b"\n") + 1 :]):
                    return 0
            wait = SHORTEST_WAIT_SECONDS
        elif alive:
            time.sleep(wait)
            eager = time.monotonic() - began < EAGER_SECONDS
            wait = min(2 * wait, EAGER_WAIT_SECONDS if eager else LONGEST_WAIT_SECONDS)
        else:
            return _conclude(paths)


def _conclude(paths: Paths) -> int:
    """The worker is gone: print a record that says so, unless the log ended well before FROM."""
    first, last = _ends(paths)
    if _is_exit(last):
        return 0
    started = json.loads(first) if first else {}
    base, now = started.get("oomKills"), oom_kills()
    oom = base is not None and now is not None and now > base
    record = {
        "type": "exit",
        "seq": json.loads(last)["seq"] + 1 if last else 0,
        "code": 137,
        "reason": "outOfMemory" if oom else "lost",
        "seconds": max(0.0, time.time() - started["time"]) if started else 0.0,
        "oomKilled": oom,
    }
    _print(json.dumps(record).encode("ascii") + b"\n")
    return 0


def _ends(paths: Paths) -> tuple[bytes, bytes]:
    """The first and the last complete line of the log; empty where there is none."""
    try:
        with open(paths.log, "rb") as log:
            lines = log.read().split(b"\n")
    except FileNotFoundError:
        return b"", b""
    complete = lines[:-1] or [b""]
    return complete[0], complete[-1]


def _is_exit(line: bytes) -> bool:
    return line.startswith(b'{"type": "exit"')


def _open_log(paths: Paths) -> int | None:
    try:
        return os.open(paths.log, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _holder(paths: Paths) -> str:
    with open(paths.lock, "rb") as lock:
        return lock.read(256).decode("ascii", "replace")


def _worker_lives(paths: Paths) -> bool:
    lock = os.open(paths.lock, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _print(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
