"""Finds each program in the right version: in KUBEBUILDER_ASSETS, on PATH or in the cache."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from capibara_devcluster.tools import catalogue
from capibara_devcluster.tools.catalogue import Tool

_VERSION_TIMEOUT_SECONDS: Final = 10
_NUMBER: Final = re.compile(r"\d+\.\d+")


def cache_dir() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/capibara/tools`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "capibara" / "tools"


def cached(tool: Tool) -> Path:
    """Where a program of the pinned version is kept, once it is built."""
    return cache_dir() / f"{tool.folder}-{catalogue.digest(tool.folder)}" / "bin" / tool.name


def find(names: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """The programs that are there, and the names of those that have to be built."""
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name in names:
        path = _first(catalogue.TOOLS[name])
        if path is None:
            missing.append(name)
        else:
            found[name] = path
    return found, missing


def _first(tool: Tool) -> Path | None:
    for candidate in _candidates(tool.name):
        if tool.version_args and matches(candidate, tool):
            return candidate
    built = cached(tool)
    return built if built.is_file() else None


def _candidates(name: str) -> Iterator[Path]:
    # Only the cache is trusted to hold what no version can be asked of.
    for folder in (os.environ.get("KUBEBUILDER_ASSETS"), os.environ.get("PATH")):
        if folder and (path := shutil.which(name, path=folder)):
            yield Path(path).absolute()


@functools.cache
def matches(program: Path, tool: Tool) -> bool:
    """Whether the program reports the pinned major and minor version."""
    try:
        shown = subprocess.run(
            [program, *tool.version_args],
            capture_output=True,
            text=True,
            check=False,
            timeout=_VERSION_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    reported = _NUMBER.search(shown.stdout)
    wanted = ".".join(tool.version().split(".")[:2])
    return shown.returncode == 0 and reported is not None and reported[0] == wanted
