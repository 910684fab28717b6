"""Fixtures: a real sandboxd for the whole test session, and sandboxes in it."""

from collections.abc import AsyncIterator, Iterator

import e2b_code_interpreter as ci
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


@pytest.fixture(scope="module")
def account(sandboxd: SandboxdProcess) -> dict[str, str]:
    """Arguments that send an SDK call to the daemon."""
    return sandboxd.account


@pytest.fixture(scope="module")
def sdk_sandbox(account: dict[str, str]) -> Iterator[ci.Sandbox]:
    """One sandbox for the tests of a module that leave no trace in it."""
    made = ci.Sandbox.create("default", envs={"GREETING": "hello"}, timeout=600, **account)
    yield made
    made.kill()


@pytest.fixture
async def async_sandbox(account: dict[str, str]) -> AsyncIterator[ci.AsyncSandbox]:
    """A sandbox of the test's own."""
    made = await ci.AsyncSandbox.create("default", timeout=120, **account)
    yield made
    await made.kill()
