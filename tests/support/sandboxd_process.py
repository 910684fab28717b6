"""A real sandboxd as a process of its own, with a key and a state folder of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    import e2b

TEMPLATES = (
    "default:cpu=1,memory=512",
    "data-analysis:cpu=1,memory=1024",
    "machine-learning:cpu=2,memory=2048",
    "quick-script:cpu=1,memory=256",
    "visualization:cpu=1,memory=1024",
)
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def envd_headers(sandbox: e2b.Sandbox) -> dict[str, str]:
    return {
        "E2b-Sandbox-Id": sandbox.sandbox_id,
        "E2b-Sandbox-Port": "49983",
        "X-Access-Token": sandbox._envd_access_token or "",
    }


class SandboxdProcess:
    """Start it with ``start()``; ``url`` and ``api_key`` are what an SDK needs.

    ``prefix`` is a command that runs the daemon in another way, ``owner`` the uid it gets there.
    """

    def __init__(
        self,
        *flags: str,
        templates: Sequence[str] = TEMPLATES,
        prefix: Sequence[str] = (),
        owner: int | None = None,
    ) -> None:
        self.api_key = f"e2b_{secrets.token_hex(20)}"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # Not pytest's own folder: a unix socket's path must stay short.
        self.state_dir = Path(tempfile.mkdtemp(prefix="sbx-", dir="/tmp"))
        self.state_dir.chmod(0o711)
        if owner is not None:
            os.chown(self.state_dir, owner, -1)
        self._prefix = prefix
        self._flags = (*flags, *(flag for name in templates for flag in ("--template", name)))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The daemon's pid."""
        assert self._process
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything the daemon logged."""
        return (self.state_dir / "daemon.log").read_text(encoding="utf-8")

    @property
    def account(self) -> dict[str, str]:
        """Arguments that send a call of the e2b SDK here."""
        return {"api_key": self.api_key, "api_url": self.url, "sandbox_url": self.url}

    @property
    def environment(self) -> dict[str, str]:
        """The E2B variables for a process that uses an SDK."""
        return {
            "E2B_API_URL": self.url,
            "E2B_SANDBOX_URL": self.url,
            "E2B_API_KEY": self.api_key,
        }

    def start(self) -> None:
        """Start the daemon and wait until it serves."""
        command = [
            *self._prefix,
            *(sys.executable, "-m", "capibara_sandboxd", "serve", "--port", str(self.port)),
            *("--state-dir", str(self.state_dir), *self._flags),
        ]
        environment = os.environ | {"CAPIBARA_SANDBOXD_API_KEY": self.api_key}
        with (self.state_dir / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        until = time.monotonic() + _START_SECONDS
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"sandboxd does not come up:\n{self.log}")
            time.sleep(0.05)

    def stop(self) -> int:
        """Stop it gracefully; returns the exit code."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_STOP_SECONDS)

    def kill9(self) -> None:
        """Kill the daemon as a crash would."""
        assert self._process
        self._process.kill()
        self._process.wait(_STOP_SECONDS)

    def restart(self) -> None:
        """Start again on the same port, key and state folder."""
        if self._process and self._process.poll() is None:
            self.stop()
        self.start()

    def check_running(self) -> None:
        """Fail with the exit code and the log's end when the daemon is gone."""
        assert self._process
        code = self._process.poll()
        assert code is None, f"sandboxd ended (exit code {code}); its log ends:\n{self.log[-4000:]}"

    def close(self) -> None:
        """Stop it if it runs and remove its folder."""
        if self._process and self._process.poll() is None:
            self.stop()
        shutil.rmtree(self.state_dir, ignore_errors=True)

    def sandboxes(self, metadata: Mapping[str, str] | None = None) -> list[dict[str, object]]:
        """Running and paused sandboxes as the API lists them, with these pairs of metadata."""
        answer = httpx.get(f"{self.url}/v2/sandboxes", headers={"X-API-KEY": self.api_key})
        answer.raise_for_status()
        wanted = (metadata or {}).items()
        return [found for found in answer.json() if wanted <= found["metadata"].items()]

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return bool(answer.status == 204)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
