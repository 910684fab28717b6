"""Fixtures: the adapter on a real, running provider."""

import uuid
from collections.abc import AsyncIterator

import pytest

from capibara_operator.adapters.e2b import E2BSandboxes
from capibara_operator.ports.sandboxes import CreateRequest, Endpoint
from support.provider_run import ProviderRun
from support.sandboxd_process import SandboxdProcess


@pytest.fixture
def api(sandboxd: SandboxdProcess) -> E2BSandboxes:
    endpoint = Endpoint(sandboxd.url, sandboxd.url, "", sandboxd.api_key)
    return E2BSandboxes(endpoint, provider="sandboxd")


@pytest.fixture
def request_of() -> CreateRequest:
    """A request that no other test makes."""
    uid = str(uuid.uuid4())
    return CreateRequest("quick-script", {"uid": uid}, f"{uid}-1", 120)


@pytest.fixture
async def sandbox(api: E2BSandboxes, request_of: CreateRequest) -> AsyncIterator[str]:
    """The id of a fresh sandbox of 256 MiB."""
    info = await api.create(request_of)
    yield info.sandbox_id
    await api.kill(info.sandbox_id)


@pytest.fixture
async def run(api: E2BSandboxes) -> AsyncIterator[ProviderRun]:
    """Runs jobs, each in a sandbox of its own."""
    runs = ProviderRun(api)
    yield runs
    await runs.aclose()
