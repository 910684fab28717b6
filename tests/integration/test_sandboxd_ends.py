"""Sandboxes whose end is made hard: nothing waits for ever, nothing is left."""

import asyncio
import contextlib
import uuid

import e2b
import httpx
import pytest

from support.sandboxd_process import SandboxdProcess

DEEP_TREE = "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')"


@pytest.fixture
def deep(sandboxd: SandboxdProcess) -> e2b.Sandbox:
    """A sandbox whose home has more levels than any recursion stands, some of them closed."""
    made = e2b.Sandbox.create("quick-script", **sandboxd.account)
    made.commands.run(f'python3 -c "{DEEP_TREE}"; chmod 000 d')
    return made


def test_deep_tree_does_not_keep_a_sandbox(deep: e2b.Sandbox, sandboxd: SandboxdProcess) -> None:
    assert deep.kill(request_timeout=10)
    assert not (sandboxd.state_dir / "sandboxes" / deep.sandbox_id).exists()
    assert deep.sandbox_id not in {one["sandboxID"] for one in sandboxd.sandboxes()}


def test_deep_tree_does_not_keep_the_daemon_from_starting() -> None:
    daemon = SandboxdProcess()
    daemon.start()
    try:
        made = e2b.Sandbox.create("quick-script", **daemon.account)
        made.commands.run(f'python3 -c "{DEEP_TREE}"')
        daemon.kill9()
        daemon.restart()
        assert not list((daemon.state_dir / "sandboxes").iterdir())
    finally:
        daemon.close()


def test_answer_that_breaks_off_is_followed_by_nothing(sandboxd: SandboxdProcess) -> None:
    made = e2b.Sandbox.create("quick-script", **sandboxd.account)
    made.commands.run("head -c 300000000 /dev/zero > big")
    headers = {
        "E2b-Sandbox-Id": made.sandbox_id,
        "X-Access-Token": made.connection_config.sandbox_headers["X-Access-Token"],
    }
    url = f"{sandboxd.url}/files?path=big"
    with (
        pytest.raises(httpx.TransportError, match=r"peer closed connection|Connection reset"),
        httpx.stream("GET", url, headers=headers, timeout=30) as answer,
    ):
        for number, _ in enumerate(answer.iter_raw()):
            if number == 0:
                made.kill()


def test_stop_takes_sandboxes_that_are_starting_along() -> None:
    daemon = SandboxdProcess()
    daemon.start()

    async def create(client: httpx.AsyncClient) -> None:
        headers = {"X-API-KEY": daemon.api_key, "Idempotency-Key": str(uuid.uuid4())}
        with contextlib.suppress(httpx.HTTPError):
            await client.post("/v2/sandboxes", headers=headers, json={"templateID": "base"})

    async def stop_within_creates() -> None:
        async with httpx.AsyncClient(base_url=daemon.url, timeout=30) as client:
            creates = asyncio.gather(*(create(client) for _ in range(4)))
            await asyncio.sleep(0.1)
            assert await asyncio.to_thread(daemon.stop) == 0
            await creates

    try:
        asyncio.run(stop_within_creates())
        assert not list((daemon.state_dir / "sandboxes").iterdir())
        assert '"reason": "SIGTERM"' in daemon.log
    finally:
        daemon.close()
