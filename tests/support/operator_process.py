"""The real operator as a process, for tests."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_SECONDS = 60.0
STOP_SECONDS = 30.0


@dataclass
class OperatorProcess:
    """``python -m capibara_operator`` with an environment, its log file and its HTTP server."""

    environment: Mapping[str, str]
    log_file: Path
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    starts: int = field(default=0)

    def start(self, *, wait_ready: bool = True, seconds: float = START_SECONDS) -> OperatorProcess:
        assert self.process is None or self.process.poll() is not None, "it runs already"
        self.starts += 1
        offset = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "capibara_operator"],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + seconds
        self.port = self._find_port(offset, deadline)
        if wait_ready:
            self.wait_ready(seconds=deadline - time.monotonic())
        return self

    def wait_ready(self, *, seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        answer = "no answer"
        while time.monotonic() < deadline:
            self._assert_alive()
            status, answer = self.get("/readyz")
            if status == 200:
                return
            time.sleep(0.05)
        raise AssertionError(f"not ready after {seconds:.0f} s: {answer}\n{self.log()}")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page; status 0 when nothing answers."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}{path}", timeout=5
            ) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def stop(self, *, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill9(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def restart(self) -> OperatorProcess:
        self.stop()
        return self.start()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON lines of the log, over all starts."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def _find_port(self, offset: int, deadline: float) -> int:
        while time.monotonic() < deadline:
            with self.log_file.open("rb") as log:
                log.seek(offset)
                text = log.read().decode(errors="replace")
            if found := re.search(r'"msg": "serving metrics and probes".*"port": (\d+)', text):
                return int(found.group(1))
            self._assert_alive()
            time.sleep(0.02)
        raise AssertionError(f"the operator serves no port:\n{self.log()}")

    def _assert_alive(self) -> None:
        assert self.process is not None
        if (code := self.process.poll()) is not None:
            raise AssertionError(f"the operator exited with {code}:\n{self.log()}")
