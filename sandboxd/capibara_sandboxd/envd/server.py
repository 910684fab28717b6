"""One sandbox's envd: who may call, and which handler answers."""

import base64
import binascii
import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from capibara_sandboxd import credentials
from capibara_sandboxd.errors import ApiError
from capibara_sandboxd.isolation.rootfs import USER
from capibara_sandboxd.link import GuestError, GuestLink, LinkError
from capibara_sandboxd.sandbox import Sandbox

from . import connect, files, filesystem, process

_RPC: Final = re.compile(r"/(process\.Process|filesystem\.Filesystem)/(\w+)")
_NANOSECONDS: Final = 1_000_000_000


def check_token(request: web.Request, sandbox: Sandbox) -> None:
    """Refuse a request without the sandbox's access token, in constant time."""
    sent = request.headers.get("X-Access-Token", "")
    if sandbox.token and not credentials.matches(sent, sandbox.token):
        raise ApiError(
            HTTPStatus.UNAUTHORIZED,
            "the access token of this sandbox is missing or wrong (header X-Access-Token)",
        )


def check_user(name: str) -> None:
    """Refuse any user but the one that the sandbox has."""
    if name and name != USER:
        raise GuestError(
            "unauthenticated",
            f"user '{name}' cannot be used: sandboxd runs everything as '{USER}'",
        )


def _basic_user(request: web.Request) -> str:
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(text, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError) as error:
        raise GuestError("unauthenticated", "the Authorization header is malformed") from error


async def handle(request: web.Request, sandbox: Sandbox) -> web.StreamResponse:
    """Answer one request for port 49983 of a sandbox."""
    if request.path == "/health":
        return web.Response(status=HTTPStatus.NO_CONTENT)
    check_token(request, sandbox)
    match = _RPC.fullmatch(request.path)
    if match and request.method == "POST":
        return await _rpc(request, sandbox, match[1], match[2])
    match request.method, request.path:
        case "GET" | "POST", "/files":
            return await _files(request, sandbox)
        case "GET", "/envs":
            return web.json_response(dict(sandbox.request.envs))
        case "GET", "/metrics":
            return web.json_response(await usage(sandbox))
    raise ApiError(HTTPStatus.NOT_FOUND, f"no {request.method} {request.path} here")


async def _files(request: web.Request, sandbox: Sandbox) -> web.StreamResponse:
    try:
        check_user(request.query.get("username", ""))
    except GuestError as error:
        raise files.http_error(error) from error
    if request.method == "GET":
        return await files.read(request, sandbox.link)
    return await files.write(request, sandbox.link)


async def _rpc(
    request: web.Request, sandbox: Sandbox, service: str, method: str
) -> web.StreamResponse:
    streaming = request.content_type == connect.STREAM_TYPE
    try:
        check_user(_basic_user(request))
        if service == "process.Process":
            if method in {"Start", "Connect"}:
                return await process.stream(request, sandbox.link, method.lower())
            if method == "StreamInput":
                return await process.stream_input(request, sandbox.link)
        table = process.UNARY if service == "process.Process" else filesystem.UNARY
        handler = table.get(method, _unimplemented)
        answer = await handler(sandbox.link, connect.parse(await request.read()))
        return web.json_response(answer)
    except GuestError as error:
        return (
            await connect.ServerStream(request).end(error)
            if streaming
            else (connect.unary_error(error))
        )


async def _unimplemented(_link: GuestLink, _: Mapping[str, Any]) -> dict[str, Any]:
    raise GuestError("unimplemented", "this method is not in this version of sandboxd")


async def usage(sandbox: Sandbox) -> dict[str, Any]:
    """Memory (bytes), cpu time (s) and disk of a sandbox, from its cgroups."""
    template = sandbox.request.template
    group = sandbox.group
    used = group.read("memory", "memory.current", "memory.usage_in_bytes")
    try:
        disk = await sandbox.link.call("disk", timeout_seconds=5.0)
    except (LinkError, GuestError):
        disk = {}
    return {
        "ts": int(time.time()),
        "cpu_count": template.cpus,
        "cpu_used_pct": 0.0,
        "mem_total": template.memory_mib * 1024 * 1024,
        "mem_used": int(used or 0),
        "mem_cache": 0,
        "disk_used": int(disk.get("disk_used", 0)),
        "disk_total": int(disk.get("disk_total", 0)),
    }
