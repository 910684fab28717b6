"""Programs that come from the distribution, because they need its C libraries or the kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from typing import Final

from capibara_devcluster.errors import DevclusterError

SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INSTALL_TIMEOUT_SECONDS: Final = 600
_PACKAGES: Final = {
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "mount": "mount",
    "unshare": "util-linux",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
}


def ensure(programs: Iterable[str]) -> None:
    """Install the packages of programs that are not there; raises with the command to run."""
    missing = [program for program in programs if find(program) is None]
    if not missing:
        return
    packages = sorted({_PACKAGES[program] for program in missing})
    command = install_command(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise DevclusterError(
            f"these programs are not on this machine: {', '.join(missing)}",
            hint=f"run: {' '.join(['sudo', *command])}   (or your distribution's equivalent)",
        )
    _install(command)
    if still := [program for program in missing if find(program) is None]:
        raise DevclusterError(
            f"{', '.join(packages)} was installed, but {', '.join(still)} is not there",
            hint=f"install it by hand so that it is found on {SYSTEM_PATH}",
        )


def find(program: str) -> str | None:
    """A program's path, also where PATH lacks the administrator's folders."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def install_command(packages: Sequence[str]) -> list[str]:
    """The command that installs packages without asking."""
    return ["apt-get", "install", "--yes", "--no-install-recommends", *packages]


def _install(command: Sequence[str]) -> None:
    if _run(command).returncode == 0:
        return
    # A machine that never asked for the package lists knows no package.
    _run(["apt-get", "update"])
    done = _run(command)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DevclusterError(
            f"`{' '.join(command)}` failed: {last}",
            hint="repair the package manager, or use --provider light, which needs none of them",
        )


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=_INSTALL_TIMEOUT_SECONDS,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
