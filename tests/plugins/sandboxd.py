"""Fixture: a real sandboxd for the whole test session."""

from collections.abc import Iterator

import pytest

from support.sandboxd_process import SandboxdProcess


@pytest.fixture(scope="session")
def sandboxd() -> Iterator[SandboxdProcess]:
    """A running daemon with the five shipped templates, ``base`` and ``code-interpreter-v1``."""
    process = SandboxdProcess()
    try:
        process.start()
        yield process
        process.check_running()
    finally:
        process.close()
