"""Starts a supervisor that outlives us, in namespaces of its own where asked.

The launcher forks, prints the supervisor's pid as the host sees it, and ends. The supervisor waits
for a line on standard input: if whoever started it died before it had noted the pid, the line never
comes and the supervisor ends, so that no process is ever without a record. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from capibara_devcluster import files, namespaces
from capibara_devcluster.component import Component
from capibara_devcluster.process import Identity
from capibara_devcluster.supervisor import Supervisor

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUTS: Final = 0x04000000
_CLONE_NEWIPC: Final = 0x08000000
_CLONE_NEWPID: Final = 0x20000000
_CLONE_NEWNET: Final = 0x40000000
_OWN_NAMESPACES: Final = (
    _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET
)
GO: Final = b"go\n"


def main() -> None:
    """Launch the supervisor of the spec file named by the only argument."""
    spec: dict[str, Any] = files.read_json(Path(sys.argv[1]))
    owner_gone = watch(Identity.load(spec["owner"]))
    if spec["namespaces"] is not None:
        unshare()
    pid = os.fork()
    if pid:
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        os._exit(0)
    os.setsid()
    if os.read(0, len(GO)) != GO:
        os._exit(1)
    _redirect(Path(spec["logs"]) / "supervisor.log")
    _supervise(spec, owner_gone)
    os._exit(0)


def unshare() -> None:
    """Leave the host's mount, network, pid, ipc and uts namespaces (pid: for children)."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_OWN_NAMESPACES) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"unshare: {os.strerror(code)}")


def watch(owner: Identity | None) -> Callable[[], bool]:
    """A function that says whether the owner's process ended; never, when there is no owner."""
    if owner is None:
        return lambda: False
    if not hasattr(os, "pidfd_open"):
        return lambda: not owner.alive()
    try:
        # In a pid namespace of our own we could not see the owner by its pid any more.
        handle = os.pidfd_open(owner.pid)
    except ProcessLookupError:
        return lambda: True
    if not owner.alive():
        return lambda: True
    return lambda: bool(select.select([handle], [], [], 0)[0])


def _supervise(spec: dict[str, Any], owner_gone: Callable[[], bool]) -> None:
    if spec["namespaces"] is not None:
        namespaces.enter(namespaces.Namespaces(**spec["namespaces"]))
    Supervisor(
        [Component.load(stored) for stored in spec["components"]],
        logs=Path(spec["logs"]),
        health=Path(spec["health"]),
        owner_gone=owner_gone,
    ).run()


def _redirect(log: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.write(1, time.strftime("%Y-%m-%dT%H:%M:%SZ supervisor starts\n", time.gmtime()).encode())


if __name__ == "__main__":
    main()
