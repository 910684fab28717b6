"""The demo's own cluster, brought up by the demo itself, for tests that go on from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from capibara_devcluster.native import host
from support.devcluster import Devcluster

ROOT = Path(__file__).parents[2]
NAMESPACE = "capibara6"
_COLD_DEMO_SECONDS = 1800


@dataclass(frozen=True)
class Demo:
    """What the demo printed, how it ended, and the cluster that it left behind."""

    exit_code: int
    output: str
    state_dir: Path
    cluster: Devcluster

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", NAMESPACE, *args, stdin=stdin)

    def apply(self, manifest: dict[str, Any]) -> None:
        self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(manifest))

    def get(self, *args: str) -> Any:
        return json.loads(self.kubectl("get", "--output=json", *args))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The whole demo, on a cluster that stays up for the tests that follow."""
    if why := host.why_impossible():
        pytest.skip(f"no node can run on this machine: {why}")
    yield from _told(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def light_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo as it is where no node can run."""
    yield from _told(tmp_path_factory.mktemp("light"), "--provider=light")


def _told(state: Path, *arguments: str) -> Iterator[Demo]:
    cluster = Devcluster(state, "capibara")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "capibara_devcluster.demo", *arguments],
            cwd=ROOT,
            env={**os.environ, "CAPIBARA_STATE_DIR": str(state), "COLUMNS": "160"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_COLD_DEMO_SECONDS,
        )
        yield Demo(done.returncode, done.stdout, state, cluster)
    finally:
        cluster.run("down", "--purge")
