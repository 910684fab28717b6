"""Requests for a port of a sandbox: envd is answered here, other ports through a tunnel."""

import asyncio
import re
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from aiohttp import web

from . import credentials, tunnel
from .envd import server as envd
from .errors import ApiError, cut_off_on_error
from .link import GuestError, LinkError
from .registry import Registry
from .sandbox import Sandbox

ENVD_PORT: Final = 49983
_NOTICE_SECONDS: Final = 0.1
_HOST: Final = re.compile(r"(\d{1,5})-([a-z0-9]+)\.")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
    }
)
# Credentials of the way to the sandbox are no business of the code inside.
_PRIVATE: Final = frozenset({"x-access-token", "x-api-key", "e2b-traffic-access-token"})


def target(request: web.Request) -> tuple[str, str] | None:
    """Sandbox id and port that a request is for; None = it is for the control plane."""
    sandbox_id = request.headers.get("E2b-Sandbox-Id")
    if sandbox_id:
        return sandbox_id, request.headers.get("E2b-Sandbox-Port", str(ENVD_PORT))
    match = _HOST.match(request.headers.get("Host", ""))
    return (match[2], match[1]) if match else None


def _gone(sandbox_id: str) -> web.Response:
    body = {"sandboxId": sandbox_id, "message": "The sandbox was not found", "code": 502}
    return web.json_response(body, status=HTTPStatus.BAD_GATEWAY)


def _closed(sandbox_id: str, port: int) -> web.Response:
    body = {
        "sandboxId": sandbox_id,
        "message": "The sandbox is running but port is not open",
        "port": port,
        "code": 502,
    }
    return web.json_response(body, status=HTTPStatus.BAD_GATEWAY)


async def handle(
    request: web.Request, registry: Registry, sandbox_id: str, port_text: str
) -> web.StreamResponse:
    """Answer a request for a sandbox."""
    sandbox = registry.get(sandbox_id)
    if sandbox is None or not sandbox.alive:
        return _gone(sandbox_id)
    if not _PORT.fullmatch(port_text) or not 0 < int(port_text) < 65536:
        body = {"code": 400, "message": "E2b-Sandbox-Port must be a port number"}
        return web.json_response(body, status=HTTPStatus.BAD_REQUEST)
    port = int(port_text)
    try:
        if port == ENVD_PORT:
            return await envd.handle(request, sandbox)
        _check_traffic(request, sandbox)
        return await _forward(request, tunnel.Tunnel(sandbox.link, port))
    except GuestError:
        return _closed(sandbox_id, port)
    except (LinkError, aiohttp.ClientError) as error:
        # The agent goes a moment before the end of the sandbox is noticed.
        await asyncio.sleep(_NOTICE_SECONDS)
        if not sandbox.alive:
            return _gone(sandbox_id)
        raise LinkError(f"the sandbox did not answer: {error}") from error


def _check_traffic(request: web.Request, sandbox: Sandbox) -> None:
    sent = request.headers.get("E2B-Traffic-Access-Token", "")
    if sandbox.request.public_traffic:
        return
    if not credentials.matches(sent, sandbox.traffic_token):
        raise ApiError(
            HTTPStatus.FORBIDDEN,
            "this sandbox allows no public traffic: send its traffic access token "
            "(header E2B-Traffic-Access-Token)",
        )


async def _forward(request: web.Request, connector: tunnel.Tunnel) -> web.StreamResponse:
    headers = [
        (name, value)
        for name, value in request.headers.items()
        if name.lower() not in _HOP_BY_HOP | _PRIVATE
    ]
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    body: Any = request.content if request.can_read_body else None
    async with (
        aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False
        ) as session,
        session.request(
            request.method,
            f"http://sandbox{request.rel_url}",
            headers=headers,
            data=body,
            allow_redirects=False,
        ) as upstream,
    ):
        response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
        for name, value in upstream.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                response.headers.add(name, value)
        await response.prepare(request)
        with cut_off_on_error(request):
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
        await response.write_eof()
        return response
