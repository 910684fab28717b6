"""The E2B adapter against scripted answers: faults, deadlines, cancellation, secrets.

What a real provider does with it is in tests/contract/test_provider.py.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from capibara_operator.adapters import e2b as adapter
from capibara_operator.adapters.e2b import E2BSandboxes
from capibara_operator.ports.sandboxes import CreateRequest, Endpoint, Fault, SandboxError

KEY = "e2b_topsecret0123456789"
REQUEST = CreateRequest("base", {"uid": "u"}, "u-1", 60)
CREATED = {
    "templateID": "base", "sandboxID": "sb1", "clientID": "c", "envdVersion": "0.5.7",
    "envdAccessToken": "t",
}  # fmt: skip

Script = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Provider:
    """Answers every request by the next function of the script, the last one again and again."""

    def __init__(self) -> None:
        self.script: list[Script] = []
        self.seen: list[tuple[str, str, Any]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(
            (request.method, request.path_qs, json.loads(body) if body[:1] == b"{" else None)
        )
        script = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await script(request)

    def api(self) -> E2BSandboxes:
        endpoint = Endpoint(self.url, self.url, "example.test", KEY)
        return E2BSandboxes(endpoint, provider="scripted")


def answer(status: int, body: Any = None, **headers: str) -> Script:
    async def send(_: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        kind = "text/html" if isinstance(body, str) else "application/json"
        return web.Response(
            status=status,
            text=text,
            content_type=kind,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    return send


def error(status: int, message: str = "told so", **headers: str) -> Script:
    return answer(status, {"code": status, "message": message}, **headers)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    scripted = Provider()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", scripted.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    scripted.url = site.name.rstrip("/")
    address = runner.addresses[0]
    scripted.url = f"http://{address[0]}:{address[1]}"
    yield scripted
    await runner.cleanup()


@pytest.mark.parametrize(
    ("script", "fault", "status"),
    [
        (error(400, "bad timeout"), Fault.INVALID, 400),
        (error(400, "template 'x' not found"), Fault.NOT_FOUND, 400),
        (error(401), Fault.UNAUTHENTICATED, 401),
        (error(403), Fault.UNAUTHENTICATED, 403),
        (error(404), Fault.NOT_FOUND, 404),
        (error(405), Fault.INVALID, 405),
        (error(409), Fault.CONFLICT, 409),
        (error(422), Fault.CONFLICT, 422),
        (error(429, "slow down"), Fault.THROTTLED, 429),
        (
            error(429, "you have reached the maximum number of concurrent E2B sandboxes (20)"),
            Fault.CAPACITY,
            429,
        ),
        (error(500), Fault.UNREACHABLE, 500),
        (error(502), Fault.UNREACHABLE, 502),
        (error(503), Fault.UNREACHABLE, 503),
        (error(504), Fault.UNREACHABLE, 504),
        (answer(503, "<html>no upstream</html>"), Fault.UNREACHABLE, 503),
        (answer(504, "<html>no upstream</html>"), Fault.UNREACHABLE, 504),
        (answer(201, "<html>a login page</html>"), Fault.UNREACHABLE, 0),
    ],
)
async def test_fault_of_a_refused_create(
    provider: Provider, script: Script, fault: Fault, status: int
) -> None:
    provider.script = [script]
    with pytest.raises(SandboxError) as caught:
        await provider.api().create(REQUEST)
    assert (caught.value.fault, caught.value.status) == (fault, status)
    assert len(provider.seen) == 1, "the SDK must not retry: a repeated create could duplicate"
    assert "failed to create a sandbox" in str(caught.value)
    assert str(caught.value).endswith(".")


async def test_retry_after_is_kept(provider: Provider) -> None:
    provider.script = [error(429, "slow down", Retry_After="17"), error(500)]
    api = provider.api()
    with pytest.raises(SandboxError) as caught:
        await api.create(REQUEST)
    assert caught.value.retry_after == 17.0
    with pytest.raises(SandboxError) as caught:
        await api.create(REQUEST)
    assert caught.value.retry_after is None


async def test_nobody_listens(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(SandboxError) as caught:
        await E2BSandboxes(Endpoint(url, url, "", KEY), provider="none").ping()
    assert (caught.value.fault, caught.value.status) == (Fault.UNREACHABLE, 0)
    assert "check that the provider runs" in str(caught.value)


@pytest.fixture
def unused_tcp_port() -> int:
    import socket  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def _never(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


async def test_own_deadline(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(adapter._OPERATIONS, "ping", ("answer", 0.2))
    provider.script = [_never]
    with pytest.raises(SandboxError) as caught:
        async with asyncio.timeout(3):
            await provider.api().ping()
    assert caught.value.fault is Fault.UNREACHABLE
    assert "no answer in time" in str(caught.value)


async def test_many_open_connections_do_not_block_a_kill(provider: Provider) -> None:
    hanging = 260
    provider.script = [*[_never] * hanging, answer(204)]
    api = provider.api()
    tasks = [asyncio.create_task(api.get(f"sb{n}")) for n in range(hanging)]
    async with asyncio.timeout(60):
        while len(provider.seen) < hanging:  # noqa: ASYNC110 - what it waits for is far away
            await asyncio.sleep(0.01)
        assert await api.kill("sb1")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_create_sends_what_was_asked(provider: Provider) -> None:
    provider.script = [answer(201, CREATED)]
    info = await provider.api().create(
        CreateRequest("base", {"uid": "u"}, "u-1", 60, pause_on_timeout=True)
    )
    assert (info.sandbox_id, info.state, info.metadata) == ("sb1", "running", {"uid": "u"})
    method, path, body = provider.seen[0]
    assert (method, path) == ("POST", "/v2/sandboxes")
    assert body["timeout"] == 60
    assert body["metadata"] == {"uid": "u"}
    assert body["allow_internet_access"] is False
    assert body["autoPause"] is True
    assert body["autoResume"] == {"enabled": False}
    assert body["envVars"] == {}


async def test_provider_without_pause_is_asked_without(provider: Provider) -> None:
    provider.script = [error(501, "no pause here"), answer(201, CREATED)]
    api = provider.api()
    request = CreateRequest("base", {}, "u-1", 60, pause_on_timeout=True)
    await api.create(request)
    await api.create(request)
    assert [body.get("autoPause") for _, _, body in provider.seen] == [True, None, None]


async def test_cancelled_create_leaves_no_sandbox(provider: Provider) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def create(_: web.Request) -> web.StreamResponse:
        arrived.set()
        await go.wait()
        return web.json_response(CREATED, status=201)

    provider.script = [create, answer(204)]
    api = provider.api()
    task = asyncio.create_task(api.create(REQUEST))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await api.aclose()
    assert provider.seen[-1][:2] == ("DELETE", "/sandboxes/sb1")


async def test_list_reads_all_pages(provider: Provider) -> None:
    def listed(name: str) -> dict[str, Any]:
        return {
            "sandboxID": name, "templateID": "base", "clientID": "c", "envdVersion": "0.5.7",
            "startedAt": "2026-01-01T00:00:00Z", "endAt": "2026-01-01T01:00:00Z",
            "cpuCount": 2, "memoryMB": 512, "diskSizeMB": 1, "state": "paused",
            "metadata": {"a": "b c"},
        }  # fmt: skip

    provider.script = [
        answer(200, [listed("sb1"), listed("sb2")], X_Next_Token="more"),
        answer(200, [listed("sb2"), listed("sb3")]),
    ]
    found = await provider.api().list({"a": "b c"})
    assert [info.sandbox_id for info in found] == ["sb1", "sb2", "sb3"]
    assert (found[0].memory_mib, found[0].state) == (512, "paused")
    assert "nextToken=more" in provider.seen[1][1]


async def test_a_provider_that_ignores_the_filter_gives_us_nothing_of_others(
    provider: Provider,
) -> None:
    def listed(name: str, **metadata: str) -> dict[str, Any]:
        return {
            "sandboxID": name, "templateID": "base", "clientID": "c", "envdVersion": "0.5.7",
            "startedAt": "2026-01-01T00:00:00Z", "endAt": "2026-01-01T01:00:00Z",
            "cpuCount": 2, "memoryMB": 512, "diskSizeMB": 1, "state": "running",
            "metadata": metadata,
        }  # fmt: skip

    theirs = listed("sb2", operator="o", cluster="theirs")
    provider.script = [answer(200, [listed("sb1", operator="o", cluster="ours"), theirs])]
    found = await provider.api().list({"operator": "o", "cluster": "ours"})
    assert [info.sandbox_id for info in found] == ["sb1"]


async def test_gone_is_not_an_error_where_it_is_an_answer(provider: Provider) -> None:
    provider.script = [error(404)]
    api = provider.api()
    assert await api.get("sb1") is None
    assert await api.kill("sb1") is False
    with pytest.raises(SandboxError) as caught:
        await api.resume("sb1", lifetime_seconds=5)
    assert caught.value.fault is Fault.NOT_FOUND


async def test_the_key_is_in_no_message(
    provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    api = provider.api()
    for script in (error(401, f"key {KEY} is wrong"), error(400, KEY), answer(500, KEY)):
        provider.script = [script]
        with pytest.raises(SandboxError) as caught:
            await api.create(REQUEST)
        assert KEY not in str(caught.value)
    assert KEY not in caplog.text
    assert KEY not in repr(Endpoint("", "", "", KEY))


async def test_requests_are_counted(provider: Provider) -> None:
    def count(code: str) -> float:
        labels = {"provider": "scripted", "operation": "kill", "code": code}
        return REGISTRY.get_sample_value("capibara_provider_requests_total", labels) or 0.0

    before = count("ok"), count("Throttled")
    provider.script = [answer(204), error(429)]
    api = provider.api()
    assert await api.kill("sb1")
    with pytest.raises(SandboxError):
        await api.kill("sb1")
    assert (count("ok"), count("Throttled")) == (before[0] + 1, before[1] + 1)
