"""Makes a folder that holds exactly the programs that a cluster needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from capibara_devcluster.tools import build, locate


def provide(names: Sequence[str], folder: Path) -> Path:
    """Find or build the programs and link them into `folder`, which is returned."""
    found, missing = locate.find(names)
    if missing:
        build.build(missing)
        found, missing = locate.find(names)
    if missing:
        raise LookupError(f"built, but not found: {', '.join(missing)}")
    link(found, folder)
    return folder


def link(programs: Mapping[str, Path], folder: Path) -> None:
    """Make the folder's links lead to these programs; a reader sees the old or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, program in programs.items():
        link = folder / name
        if link.is_symlink() and link.readlink() == program:
            continue
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.symlink_to(program)
        with contextlib.suppress(FileNotFoundError):
            temporary.replace(link)
