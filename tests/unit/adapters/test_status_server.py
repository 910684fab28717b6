from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from capibara_operator.adapters.status_server import EventLoopLag, StatusServer


class Pages:
    def __init__(self) -> None:
        self.health: list[str] = []
        self.missing: list[str] = []
        self.server = StatusServer(health=[lambda: self.health], readiness=[lambda: self.missing])

    async def get(self, path: str, **headers: str) -> tuple[int, str, str]:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers=headers) as response,
        ):
            return response.status, await response.text(), response.headers["Content-Type"]


@pytest.fixture
async def pages() -> AsyncIterator[Pages]:
    pages = Pages()
    await pages.server.start("127.0.0.1", 0)
    yield pages
    await pages.server.aclose()


async def test_readiness_says_what_is_missing(pages: Pages) -> None:
    pages.missing = ["the list of pods is missing: 403", "listing"]
    assert (await pages.get("/readyz"))[:2] == (503, "the list of pods is missing: 403\nlisting\n")
    assert (await pages.get("/healthz"))[:2] == (200, "ok\n")
    pages.missing = []
    assert (await pages.get("/readyz"))[:2] == (200, "ok\n")
    pages.health = ["the event loop was late"]
    assert (await pages.get("/healthz"))[0] == 503


async def test_metrics_can_be_parsed_in_both_formats(pages: Pages) -> None:
    status, page, content_type = await pages.get("/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(page)}
    assert {"workqueue_depth", "controller_runtime_reconcile", "capibara_cached_objects"} <= names
    _, page, content_type = await pages.get("/metrics", Accept="application/openmetrics-text")
    assert content_type.startswith("application/openmetrics-text")
    assert page.endswith("# EOF\n")


async def test_other_pages_do_not_exist(pages: Pages) -> None:
    assert (await pages.get("/"))[0] == 404


async def test_a_taken_port_is_an_os_error(pages: Pages) -> None:
    with pytest.raises(OSError, match=str(pages.server.port)):
        await StatusServer(health=[], readiness=[]).start("127.0.0.1", pages.server.port)


async def test_a_blocked_event_loop_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capibara_operator.adapters.status_server._LAG_PERIOD_SECONDS", 0.3)
    monkeypatch.setattr("capibara_operator.adapters.status_server._WORST_LAG_SECONDS", 0.2)
    lag = EventLoopLag()
    assert lag.check() == ()
    task = asyncio.create_task(lag.run())
    await asyncio.sleep(0)
    time.sleep(0.8)  # noqa: ASYNC251 - to block the loop is the point
    for _ in range(5):
        await asyncio.sleep(0)
    assert "the event loop was late by 0." in lag.check()[0]
    task.cancel()
