"""Programs that the demo runs, each with a deadline and with its output at hand when it fails."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class StepError(Exception):
    """A step of the demo failed; the message says what happened and what to do next."""


def run(
    command: Sequence[str],
    *,
    timeout_seconds: float = 60,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
) -> str:
    """Run a program to its end and return its standard output.

    Raises:
        StepError: it failed or took too long; with the end of what it printed.
    """
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            env=env,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StepError(f"{' '.join(command)}\ndid not end in {timeout_seconds:.0f} s") from error
    except OSError as error:
        raise StepError(f"{command[0]} could not be started: {error}") from error
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise StepError(f"{' '.join(command)}\nended with {done.returncode}:\n{tail}")
    return done.stdout


def stream(command: Sequence[str], *, what: str) -> None:
    """Run a program that shows its own progress on the terminal.

    Raises:
        StepError: it failed; what it said is on the terminal.
    """
    code = subprocess.run(command, check=False).returncode
    if code:
        raise StepError(f"{what} failed (exit code {code}); see above")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster by its kubeconfig, and the tools that fit it."""

    kubeconfig: Path
    tools: Path
    namespace: str

    def _environment(self) -> dict[str, str]:
        path = f"{self.tools}{os.pathsep}{os.environ.get('PATH', '')}"
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def kubectl(
        self, *arguments: str, stdin: str | None = None, timeout_seconds: float = 60
    ) -> str:
        """Run kubectl in the demo's namespace unless the arguments name another."""
        return run(
            [self._tool("kubectl"), "--namespace", self.namespace, *arguments],
            stdin=stdin,
            timeout_seconds=timeout_seconds,
            env=self._environment(),
        )

    def helm(self, *arguments: str, timeout_seconds: float = 300) -> str:
        """Run helm."""
        return run(
            [self._tool("helm"), *arguments],
            timeout_seconds=timeout_seconds,
            env=self._environment(),
        )

    def get(self, *arguments: str) -> Any:
        """``kubectl get`` as decoded JSON."""
        return json.loads(self.kubectl("get", "--output=json", *arguments))

    def _tool(self, name: str) -> str:
        found = self.tools / name
        return str(found) if found.exists() else name
