"""Files that are whole or absent, and locks that die with their holder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from capibara_devcluster.errors import DevclusterError

_LOCK_POLL_SECONDS: Final = 0.2


def write(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Replace a file in one step; a reader sees the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace a file by the JSON form of `value`."""
    write(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in a file; None when it is absent or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def locked(
    path: Path, *, timeout: float, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold an exclusive lock that the kernel releases when we die.

    Args:
        path: lock file; created when absent, never removed (removal would let two holders in).
        timeout: seconds to wait for another holder.
        waiting: called once when there is another holder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    told = False
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pass
            if not told:
                told = True
                waiting()
            if time.monotonic() > deadline:
                raise DevclusterError(
                    f"another command still holds {path} after {timeout:.0f} s",
                    hint="let it finish, or end it, then repeat this command",
                )
            time.sleep(_LOCK_POLL_SECONDS)
        yield
