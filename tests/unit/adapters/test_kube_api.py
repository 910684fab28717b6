"""The client of the API server against scripted answers: retries, deadlines, errors, tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import REGISTRY

from capibara_operator.adapters import kube_api
from capibara_operator.adapters.kube_api import KubeClient
from capibara_operator.adapters.kube_session import LoginError, connect
from capibara_operator.ports.kube import Key, KubeError
from capibara_operator.ports.resources import CONFIG_MAPS, EVENTS, SANDBOX_PROVIDERS, SANDBOX_RUNS

KEY = Key("ns", "a")
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def status(code: int, reason: str, *, headers: Any = None, **fields: Any) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        body = {"kind": "Status", "code": code, "reason": reason, "message": f"{reason}!"} | fields
        return web.json_response(body, status=code, headers=headers)

    return answer


def good(body: dict[str, Any]) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(body)

    return answer


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


class Script:
    """Answers requests one after the other; remembers them with their bodies."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        assert self.answers, f"unexpected {request.method} {request.path_qs}"
        return await self.answers.pop(0)(request)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    return tmp_path / "kubeconfig"


@pytest.fixture
async def client(
    script: Script, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[KubeClient]:
    monkeypatch.setattr(kube_api, "_BACKOFFS", (0.01, 0.02))
    monkeypatch.setattr(kube_api, "_LIST_SECONDS", 2.0)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.handle)
    server = TestServer(app)
    await server.start_server()
    write_kubeconfig(kubeconfig, str(server.make_url("")), {"token": "secret-token"})
    session = await connect(kubeconfig=str(kubeconfig))
    client = KubeClient(session)
    yield client
    await client.aclose()
    await session.aclose()
    await server.close()


def write_kubeconfig(path: Path, server: str, user: dict[str, Any]) -> None:
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )


async def test_urls_selectors_and_headers(client: KubeClient, script: Script) -> None:
    script.answers = [good({"items": []}), good({"items": []}), good({"x": 1}), good({})]
    await client.list(SANDBOX_RUNS, namespace="ns", label_selector="!a/b,c in (d)")
    await client.list(SANDBOX_PROVIDERS, namespace="ignored", metadata_only=True)
    await client.get(CONFIG_MAPS, KEY)
    await client.patch(SANDBOX_RUNS, KEY, {"status": {"x": 1}}, subresource="status")
    first, second, third, fourth = script.requests
    assert first.path == "/apis/capibara6.dev/v1alpha1/namespaces/ns/sandboxruns"
    assert first.query["labelSelector"] == "!a/b,c in (d)"
    assert first.headers["Authorization"] == "Bearer secret-token"
    assert first.headers["User-Agent"].startswith("capibara-operator/")
    assert second.path == "/apis/capibara6.dev/v1alpha1/sandboxproviders"
    assert "as=PartialObjectMetadataList" in second.headers["Accept"]
    assert third.path == "/api/v1/namespaces/ns/configmaps/a"
    assert fourth.path == "/apis/capibara6.dev/v1alpha1/namespaces/ns/sandboxruns/a/status"
    assert fourth.headers["Content-Type"] == "application/merge-patch+json"
    assert fourth.query["fieldManager"] == "capibara-operator"


async def test_apply_is_forced_with_our_field_manager(client: KubeClient, script: Script) -> None:
    script.answers = [good({})]
    await client.apply(CONFIG_MAPS, {"metadata": {"namespace": "ns", "name": "a"}, "data": {}})
    request = script.requests[0]
    assert request.method == "PATCH"
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert dict(request.query) == {"fieldManager": "capibara-operator", "force": "true"}


async def test_all_pages_are_read_and_items_get_their_kind(
    client: KubeClient, script: Script
) -> None:
    script.answers = [
        good({"metadata": {"continue": "t1"}, "items": [{"metadata": {"name": "a"}}]}),
        good({"metadata": {}, "items": [{"metadata": {"name": "b"}, "kind": "Partial"}]}),
    ]
    items = await client.list(SANDBOX_RUNS)
    assert [item["metadata"]["name"] for item in items] == ["a", "b"]
    assert {item["kind"] for item in items} == {"SandboxRun"}
    assert {item["apiVersion"] for item in items} == {"capibara6.dev/v1alpha1"}
    assert script.requests[1].query["continue"] == "t1"


async def test_a_list_whose_token_expired_begins_again(client: KubeClient, script: Script) -> None:
    script.answers = [
        good({"metadata": {"continue": "old"}, "items": [{"metadata": {"name": "a"}}]}),
        status(410, "Expired"),
        good({"metadata": {}, "items": [{"metadata": {"name": "a"}}]}),
    ]
    assert len(await client.list(SANDBOX_RUNS)) == 1
    assert "continue" not in script.requests[2].query


@pytest.mark.parametrize("first", [status(500, "InternalError"), status(503, "Busy"), hangs_up])
async def test_repeatable_requests_survive_a_bad_moment(
    client: KubeClient, script: Script, first: Answer
) -> None:
    script.answers = [first, good({"metadata": {"name": "a"}})]
    assert await client.get(SANDBOX_RUNS, KEY) == {"metadata": {"name": "a"}}


@pytest.mark.parametrize("first", [status(500, "InternalError"), hangs_up])
async def test_a_create_is_never_sent_twice_when_it_may_have_happened(
    client: KubeClient, script: Script, first: Answer
) -> None:
    script.answers = [first, good({})]
    with pytest.raises(KubeError) as caught:
        await client.create(EVENTS, {"metadata": {"namespace": "ns", "name": "a"}})
    assert caught.value.transient
    assert len(script.requests) == 1


async def test_a_throttled_create_is_sent_again_after_retry_after(
    client: KubeClient, script: Script
) -> None:
    script.answers = [status(429, "TooManyRequests", headers={"Retry-After": "1"}), good({"a": 1})]
    loop = asyncio.get_running_loop()
    started = loop.time()
    obj = {"metadata": {"namespace": "ns", "name": "a"}}
    assert await client.create(EVENTS, obj) == {"a": 1}
    assert loop.time() - started >= 1
    assert script.bodies[0] == script.bodies[1] != b""


async def test_a_long_retry_after_is_left_to_the_caller(client: KubeClient, script: Script) -> None:
    script.answers = [status(429, "TooManyRequests", details={"retryAfterSeconds": 60})]
    with pytest.raises(KubeError) as caught:
        await client.get(SANDBOX_RUNS, KEY)
    assert caught.value.retry_after == 60
    assert caught.value.transient


async def test_retries_end(client: KubeClient, script: Script) -> None:
    script.answers = [status(500, "InternalError")] * 3
    with pytest.raises(KubeError, match="500 InternalError: InternalError!"):
        await client.get(SANDBOX_RUNS, KEY)
    assert script.answers == []


@pytest.mark.parametrize(
    ("code", "reason", "conflict"),
    [(409, "Conflict", True), (409, "AlreadyExists", False), (422, "Invalid", False)],
)
async def test_refusals_are_told_at_once_with_the_servers_words(
    client: KubeClient, script: Script, code: int, reason: str, conflict: bool
) -> None:
    script.answers = [status(code, reason, details={"name": "a", "causes": []})]
    with pytest.raises(KubeError) as caught:
        await client.patch(SANDBOX_RUNS, KEY, {"spec": {}})
    error = caught.value
    assert (error.status, error.reason, error.message) == (code, reason, f"{reason}!")
    assert error.conflict is conflict
    assert not error.transient


async def test_not_found_is_none_but_a_missing_kind_is_an_error(
    client: KubeClient, script: Script
) -> None:
    gone = status(404, "NotFound", details={"name": "a"})
    script.answers = [gone, gone, gone]
    assert await client.get(SANDBOX_RUNS, KEY) is None
    assert await client.patch(SANDBOX_RUNS, KEY, {}) is None
    assert await client.delete(SANDBOX_RUNS, KEY) is False
    script.answers = [status(404, "NotFound")]
    with pytest.raises(KubeError):
        await client.get(SANDBOX_RUNS, KEY)


async def test_delete_is_conditional_on_the_uid(client: KubeClient, script: Script) -> None:
    script.answers = [good({}), status(409, "Conflict")]
    assert await client.delete(SANDBOX_RUNS, KEY, uid="u1") is True
    assert json.loads(script.bodies[0])["preconditions"] == {"uid": "u1"}
    assert json.loads(script.bodies[0])["propagationPolicy"] == "Background"
    assert await client.delete(SANDBOX_RUNS, KEY, uid="u1") is False


async def test_no_answer_ends_at_the_deadline(
    client: KubeClient, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_api, "_LIST_SECONDS", 0.1)
    monkeypatch.setattr(kube_api, "_BACKOFFS", ())
    script.answers = [never]
    with pytest.raises(KubeError, match=r"no answer within 0 s") as caught:
        await client.list(SANDBOX_RUNS)
    assert (caught.value.status, caught.value.transient) == (0, True)


async def test_an_answer_that_is_no_json_is_explained(client: KubeClient, script: Script) -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>Welcome</html>", content_type="text/html")

    script.answers = [page] * 3
    with pytest.raises(KubeError, match="is this a Kubernetes API server"):
        await client.get(SANDBOX_RUNS, KEY)


async def test_an_error_page_of_a_proxy_keeps_its_status(
    client: KubeClient, script: Script
) -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(status=403, text="blocked by the gateway")

    script.answers = [page]
    with pytest.raises(KubeError, match="403 Forbidden: blocked by the gateway"):
        await client.get(SANDBOX_RUNS, KEY)


async def test_after_a_401_the_credentials_are_read_anew_once(
    client: KubeClient, script: Script, kubeconfig: Path
) -> None:
    url = str(client.server)
    write_kubeconfig(kubeconfig, url, {"token": "rotated"})
    script.answers = [status(401, "Unauthorized"), good({"metadata": {}})]
    body = {"metadata": {"labels": {"x": "y"}}}
    assert await client.patch(SANDBOX_RUNS, KEY, body) is not None
    assert [request.headers["Authorization"] for request in script.requests] == [
        "Bearer secret-token",
        "Bearer rotated",
    ]
    assert json.loads(script.bodies[1]) == body
    script.answers = [status(401, "Unauthorized"), status(401, "Unauthorized")]
    with pytest.raises(KubeError, match="401 Unauthorized"):
        await client.get(SANDBOX_RUNS, KEY)
    assert script.answers == []


async def test_a_token_never_stands_in_an_error(client: KubeClient, script: Script) -> None:
    script.answers = [hangs_up] * 3
    with pytest.raises(KubeError) as caught:
        await client.get(SANDBOX_RUNS, KEY)
    assert "secret-token" not in repr(caught.value) + str(caught.value)


async def test_requests_are_counted(client: KubeClient, script: Script) -> None:
    host = client.server.removeprefix("http://")
    script.answers = [status(503, "Busy"), good({})]
    await client.get(SANDBOX_RUNS, KEY)
    for code in ("503", "200"):
        labels = {"code": code, "method": "GET", "host": host}
        assert REGISTRY.get_sample_value("rest_client_requests_total", labels) == 1
    labels = {"verb": "GET", "host": host}
    assert REGISTRY.get_sample_value("rest_client_request_duration_seconds_count", labels) == 2


async def test_the_watch_of_a_path_is_noted(client: KubeClient, script: Script) -> None:
    session = client._http
    script.answers = [good({}), status(403, "Forbidden"), good({})]
    for path in ("/apis/x/v1/a?watch=true", "/apis/x/v1/b?watch=true", "/apis/x/v1/c"):
        async with session.get(client.server + path) as response:
            await response.read()
    owner = session._middlewares[0].__self__  # type: ignore[attr-defined]
    assert list(owner.watches) == ["/apis/x/v1/a"]


async def test_an_exec_plugin_gives_the_token(
    script: Script, client: KubeClient, tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin"
    calls = tmp_path / "calls"
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "from-plugin", "expirationTimestamp": "2099-01-01T00:00:00Z"},
    }
    plugin.write_text(f"#!/bin/sh\necho x >> {calls}\necho '{json.dumps(credential)}'\n")
    plugin.chmod(0o755)
    config = tmp_path / "exec-config"
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}}
    write_kubeconfig(config, client.server, user)
    session = await connect(kubeconfig=str(config))
    other = KubeClient(session)
    script.answers = [good({}), good({})]
    await other.get(SANDBOX_RUNS, KEY)
    await other.get(SANDBOX_RUNS, KEY)
    assert script.requests[-1].headers["Authorization"] == "Bearer from-plugin"
    assert calls.read_text().count("x") == 1, "the plugin is not started for each request"
    await other.aclose()
    await session.aclose()


@pytest.mark.parametrize("text", ["", "[]", "not: [yaml", "clusters: []"])
async def test_a_broken_kubeconfig_is_a_clear_error(tmp_path: Path, text: str) -> None:
    config = tmp_path / "broken"
    config.write_text(text)
    with pytest.raises(LoginError) as caught:
        await connect(kubeconfig=str(config))
    assert "log in" in str(caught.value) or "not valid" in str(caught.value)
