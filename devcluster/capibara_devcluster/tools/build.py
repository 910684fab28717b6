"""Builds the pinned programs from their Go modules into the cache, showing how long it takes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from capibara_devcluster import files
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.tools import catalogue, locate
from capibara_devcluster.tools.catalogue import Tool
from capibara_devcluster.tools.golang import go
from capibara_devcluster.tools.progress import BuildProgress

_LOCK_TIMEOUT_SECONDS: Final = 3600.0
_LIST_TIMEOUT_SECONDS: Final = 1800
_LOG_LINES: Final = 400


def build(names: Sequence[str]) -> None:
    """Build programs that the cache lacks; one builder at a time, the others wait and find them."""
    with BuildProgress() as progress, _locked(progress):
        missing = [name for name in names if not locate.cached(catalogue.TOOLS[name]).is_file()]
        if not missing:
            return
        progress.describe("looking for Go")
        program = go()
        groups = catalogue.by_folder(missing)
        progress.describe("reading the modules (downloaded the first time)")
        packages = {folder: _count(program, folder, tools) for folder, tools in groups.items()}
        progress.total(sum(packages.values()))
        for folder, tools in groups.items():
            progress.describe(f"building {', '.join(tool.name for tool in tools)}")
            _build(program, folder, tools, progress)
            progress.finish_group(packages[folder])


@contextlib.contextmanager
def _locked(progress: BuildProgress) -> Iterator[None]:
    lock = locate.cache_dir() / ".lock"

    def waiting() -> None:
        progress.describe("waiting for another build")

    with files.locked(lock, timeout=_LOCK_TIMEOUT_SECONDS, waiting=waiting):
        yield


def _environment() -> Mapping[str, str]:
    # A go.work file above the checkout would replace the pinned versions.
    return {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}


def _count(program: Path, folder: str, tools: Sequence[Tool]) -> int:
    listed = subprocess.run(
        [program, "list", "-deps", *(tool.package for tool in tools)],
        cwd=catalogue.GOTOOLS / folder,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIST_TIMEOUT_SECONDS,
    )
    if listed.returncode != 0:
        raise _failed(tools, listed.stderr.splitlines())
    return len(listed.stdout.splitlines())


def _build(program: Path, folder: str, tools: Sequence[Tool], progress: BuildProgress) -> None:
    with tempfile.TemporaryDirectory(dir=locate.cache_dir(), prefix=".build-") as scratch:
        argv = [str(program), "build", "-v", "-trimpath", "-ldflags", catalogue.link_flags(folder)]
        packages = [tool.package for tool in tools]
        said: deque[str] = deque(maxlen=_LOG_LINES)
        with subprocess.Popen(
            [*argv, "-o", f"{scratch}/", *packages],
            cwd=catalogue.GOTOOLS / folder,
            env=_environment(),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None  # noqa: S101 - it was asked for
            for line in process.stderr:
                said.append(line.rstrip())
                progress.compiled(line)
        if process.returncode != 0:
            raise _failed(tools, list(said))
        for tool in tools:
            target = locate.cached(tool)
            target.parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / go_file_name(tool.package)).replace(target)


def go_file_name(package: str) -> str:
    """The file name that `go build -o folder/` gives a package's program."""
    *_, parent, last = package.split("/")
    return parent if last.startswith("v") and last[1:].isdigit() else last


def _failed(tools: Sequence[Tool], said: Sequence[str]) -> DevclusterError:
    log = locate.cache_dir() / "build.log"
    files.write(log, "\n".join(said) + "\n")
    return DevclusterError(
        f"building {', '.join(tool.name for tool in tools)} failed",
        log=log,
        hint="check that the Go module proxy is reachable and the disk has 15 GB, then repeat",
    )
