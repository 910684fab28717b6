"""Worlds to run code in: one that several tests share, or one of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.run_world import World, world
from support.sandboxd_process import SandboxdProcess


@pytest.fixture(scope="module")
def shared_world(
    crds_installed: Any, sandboxd: SandboxdProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A world with a running operator, for tests that do not disturb each other."""
    with world(crds_installed, sandboxd, tmp_path_factory.mktemp("world")) as made:
        made.operator.start()
        yield made


@pytest.fixture
def own_world(crds_installed: Any, sandboxd: SandboxdProcess, tmp_path: Path) -> Iterator[World]:
    """A world of the test's own; its operator is not started yet."""
    with world(crds_installed, sandboxd, tmp_path) as made:
        yield made
