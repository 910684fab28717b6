"""The devcluster command line on one state folder, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TIMEOUT_SECONDS = 240
_COMMAND = [sys.executable, "-c", "from capibara_devcluster.cli import main; main()"]


@dataclass(frozen=True)
class Devcluster:
    """One cluster of one state folder."""

    state_dir: Path
    name: str = "it"

    @property
    def root(self) -> Path:
        return self.state_dir / self.name

    def argv(self, command: str, *args: str) -> list[str]:
        return [*_COMMAND, command, f"--name={self.name}", f"--state-dir={self.state_dir}", *args]

    def run(self, command: str, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(command, *args),
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def up(self, *args: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.run("up", "--json", *args).stdout)
        return shown

    def up_killed_after(self, seconds: float, *args: str) -> None:
        """Start `up` and kill it in the middle."""
        with subprocess.Popen(
            self.argv("up", *args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(seconds)
            process.kill()

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [self.root / "bin" / "kubectl", f"--kubeconfig={self.root}/kubeconfig", *args],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def supervisor(self) -> int:
        record = json.loads((self.root / "cluster.json").read_text())
        pid: int = record["supervisor"]["pid"]
        return pid

    def component(self, name: str) -> dict[str, Any]:
        health = json.loads((self.root / "supervisor.json").read_text())
        component: dict[str, Any] = health["components"][name]
        return component

    def processes(self) -> list[str]:
        """Command lines of all other processes that mention the state folder."""
        return [line for line in _command_lines() if str(self.state_dir) in line]

    def wait_until_gone(self) -> None:
        eventually(lambda: not self.processes(), "every process is gone", seconds=10)


def _command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if path.parent.name != str(os.getpid()):
            yield line


def eventually(holds: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
