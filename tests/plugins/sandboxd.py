"""Fixtures: a real sandboxd for the whole test session, and sandboxes in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

from support.sandboxd_process import SandboxdProcess

# The operator's adapter tunes the SDK before its import: a plugin must not be first.
if TYPE_CHECKING:
    import e2b_code_interpreter as ci


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


@pytest.fixture(scope="module")
def account(sandboxd: SandboxdProcess) -> dict[str, str]:
    """Arguments that send an SDK call to the daemon."""
    return sandboxd.account


@pytest.fixture(scope="module")
def sdk_sandbox(account: dict[str, str]) -> Iterator[ci.Sandbox]:
    """One sandbox for the tests of a module that leave no trace in it."""
    import e2b_code_interpreter as ci  # noqa: PLC0415

    made = ci.Sandbox.create("default", envs={"GREETING": "hello"}, timeout=600, **account)
    yield made
    made.kill()


@pytest.fixture
async def async_sandbox(account: dict[str, str]) -> AsyncIterator[ci.AsyncSandbox]:
    """A sandbox of the test's own."""
    import e2b_code_interpreter as ci  # noqa: PLC0415

    made = await ci.AsyncSandbox.create("default", timeout=120, **account)
    yield made
    await made.kill()
