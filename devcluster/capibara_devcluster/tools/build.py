"""Builds the pinned programs from their Go modules into the cache, showing how long it takes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from capibara_devcluster import files
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.tools import catalogue, locate
from capibara_devcluster.tools.catalogue import Tool
from capibara_devcluster.tools.golang import go
from capibara_devcluster.tools.progress import BuildProgress

_LOCK_TIMEOUT_SECONDS: Final = 3600.0
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
        packages = {
            folder: _count(program, folder, tools, progress) for folder, tools in groups.items()
        }
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


def _count(program: Path, folder: str, tools: Sequence[Tool], progress: BuildProgress) -> int:
    """How many packages the programs consist of; downloads their modules the first time."""
    argv = [str(program), "list", "-deps", *(tool.package for tool in tools)]
    with tempfile.TemporaryFile("w+") as listed:
        _go(argv, folder, tools, stdout=listed, each_line=progress.note)
        listed.seek(0)
        return len(listed.readlines())


def _build(program: Path, folder: str, tools: Sequence[Tool], progress: BuildProgress) -> None:
    with tempfile.TemporaryDirectory(dir=locate.cache_dir(), prefix=".build-") as scratch:
        flags = ["-v", "-trimpath", "-ldflags", catalogue.link_flags(folder)]
        packages = [tool.package for tool in tools]
        argv = [str(program), "build", *flags, "-o", f"{scratch}/", *packages]
        _go(argv, folder, tools, stdout=None, each_line=progress.compiled)
        for tool in tools:
            target = locate.cached(tool)
            target.parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / go_file_name(tool.package)).replace(target)


def _go(
    argv: Sequence[str],
    folder: str,
    tools: Sequence[Tool],
    *,
    stdout: IO[str] | None,
    each_line: Callable[[str], None],
) -> None:
    """Run Go in a tool folder; `each_line` gets what it says on standard error."""
    said: deque[str] = deque(maxlen=_LOG_LINES)
    with subprocess.Popen(
        argv,
        cwd=catalogue.GOTOOLS / folder,
        env=_environment(),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # A build has no fair deadline; the user sees its progress and may interrupt it.
        for line in process.stderr or ():
            said.append(line.rstrip())
            each_line(line)
    if process.returncode != 0:
        raise _failed(tools, list(said))


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
