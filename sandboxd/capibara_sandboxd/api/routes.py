"""Routes of the control plane."""

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from capibara_sandboxd import credentials
from capibara_sandboxd.config import Settings
from capibara_sandboxd.errors import ApiError, bad_request, sandbox_not_found
from capibara_sandboxd.registry import CapacityError, Registry
from capibara_sandboxd.sandbox import Sandbox, StartError

from . import bodies
from .idempotency import IdempotentCreates

_MAX_PAGE: Final = 100
_LIMIT: Final = re.compile(r"[0-9]{1,3}")
_STATES: Final = {"running", "paused"}


def check_key(request: web.Request, settings: Settings) -> None:
    """Refuse a request without the API key, in constant time."""
    if not credentials.matches(request.headers.get("X-API-KEY", ""), settings.api_key):
        raise ApiError(
            HTTPStatus.UNAUTHORIZED,
            "the API key is missing or wrong: send the key sandboxd was started with in X-API-KEY",
        )


async def _body(request: web.Request) -> dict[str, Any]:
    text = await request.read()
    try:
        value = json.loads(text or b"{}")
    except (ValueError, RecursionError) as error:
        raise bad_request("the body is not JSON") from error
    if not isinstance(value, dict):
        raise bad_request("the body is not a JSON object")
    return value


class ControlPlane:
    """Handlers over one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._settings = registry.settings
        self._idempotent = IdempotentCreates()

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        add = app.router.add_route
        for prefix, version in (("/v2", 2), ("", 1)):
            add("POST", f"{prefix}/sandboxes", self._create(version))
            add("GET", f"{prefix}/sandboxes", self._keyed(self._list))
            add("POST", f"{prefix}/sandboxes/{{id}}/connect", self._keyed(self._connect))
        add("GET", "/sandboxes/{id}", self._keyed(self._get))
        add("DELETE", "/sandboxes/{id}", self._keyed(self._kill))
        add("POST", "/sandboxes/{id}/timeout", self._keyed(self._timeout))
        add("POST", "/sandboxes/{id}/refreshes", self._keyed(self._refresh))
        add("POST", "/sandboxes/{id}/pause", self._keyed(self._pause))
        add("POST", "/sandboxes/{id}/resume", self._keyed(self._resume))

    def _keyed(
        self, handler: Callable[[web.Request], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def checked(request: web.Request) -> web.Response:
            check_key(request, self._settings)
            return await handler(request)

        return checked

    def _sandbox(self, request: web.Request) -> Sandbox:
        sandbox_id = request.match_info["id"]
        sandbox = self._registry.get(sandbox_id)
        if sandbox is None or sandbox.state == "stopping":
            raise sandbox_not_found(sandbox_id)
        return sandbox

    def _create(self, version: int) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def create(request: web.Request) -> web.Response:
            check_key(request, self._settings)
            body = await _body(request)
            wanted = bodies.create_request(body, self._settings, version=version)
            key = bodies.idempotency_key(request.headers.get("Idempotency-Key"))
            try:
                if key is None:
                    sandbox = await self._registry.create(wanted)
                else:
                    sandbox = await self._idempotent.run(
                        key, body, lambda: self._registry.create(wanted)
                    )
            except CapacityError as error:
                raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, str(error)) from error
            except StartError as error:
                raise ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from error
            return web.json_response(bodies.created(sandbox), status=HTTPStatus.CREATED)

        return create

    async def _list(self, request: web.Request) -> web.Response:
        query = request.query
        states = {name for text in query.getall("state", []) for name in text.split(",")}
        if states - _STATES:
            raise bad_request(f"state must be of {sorted(_STATES)}")
        wanted = bodies.metadata_filter(query.get("metadata", ""))
        found = [
            sandbox
            for sandbox in self._registry.all()
            if sandbox.state in (states or _STATES)
            and wanted.items() <= sandbox.request.metadata.items()
            and query.get("template") in {None, sandbox.request.template.name}
        ]
        found.sort(key=_position, reverse=query.get("order", "desc") != "asc")
        page, following = _page(found, query.get("limit"), query.get("nextToken"))
        running = sum(1 for sandbox in self._registry.all() if sandbox.state == "running")
        headers = {"X-Total-Running": str(running)}
        if following:
            headers["X-Next-Token"] = following
        return web.json_response([bodies.listed(one) for one in page], headers=headers)

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(bodies.detailed(self._sandbox(request)))

    async def _kill(self, request: web.Request) -> web.Response:
        await self._registry.kill(self._sandbox(request), "killed")
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _timeout(self, request: web.Request) -> web.Response:
        sandbox = self._sandbox(request)
        timeout = bodies.seconds(await _body(request), "timeout", self._settings, None)
        sandbox.set_lifetime(timeout)
        self._registry.schedule(sandbox)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _refresh(self, request: web.Request) -> web.Response:
        sandbox = self._sandbox(request)
        self._extend(sandbox, bodies.seconds(await _body(request), "duration", self._settings, 15))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    def _extend(self, sandbox: Sandbox, lifetime: int) -> None:
        before = sandbox.end
        sandbox.set_lifetime(lifetime)
        sandbox.end = max(before, sandbox.end)
        self._registry.schedule(sandbox)

    async def _connect(self, request: web.Request) -> web.Response:
        sandbox = self._sandbox(request)
        lifetime = bodies.seconds(await _body(request), "timeout", self._settings, 300)
        status = HTTPStatus.OK
        if sandbox.state == "paused":
            self._set_paused(sandbox, paused=False)
            sandbox.set_lifetime(lifetime)
            status = HTTPStatus.CREATED
        self._extend(sandbox, lifetime)
        return web.json_response(bodies.created(sandbox), status=status)

    async def _pause(self, request: web.Request) -> web.Response:
        sandbox = self._sandbox(request)
        body = await _body(request)
        if sandbox.state == "paused":
            raise ApiError(HTTPStatus.CONFLICT, f"sandbox '{sandbox.sandbox_id}' is paused already")
        if body.get("memory") is False:
            raise bad_request("memory=false is not supported: a pause keeps memory")
        self._set_paused(sandbox, paused=True)
        self._registry.schedule(sandbox)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _resume(self, request: web.Request) -> web.Response:
        sandbox = self._sandbox(request)
        if sandbox.state != "paused":
            raise ApiError(HTTPStatus.CONFLICT, f"sandbox '{sandbox.sandbox_id}' is running")
        lifetime = bodies.seconds(await _body(request), "timeout", self._settings, 15)
        self._set_paused(sandbox, paused=False)
        sandbox.set_lifetime(lifetime)
        self._registry.schedule(sandbox)
        return web.json_response(bodies.created(sandbox), status=HTTPStatus.CREATED)

    def _set_paused(self, sandbox: Sandbox, *, paused: bool) -> None:
        done = False
        with contextlib.suppress(OSError):
            done = sandbox.set_paused(paused=paused)
        if not done:
            raise ApiError(
                HTTPStatus.NOT_IMPLEMENTED,
                "this host has no cgroup freezer that sandboxd may write: sandboxes cannot pause",
            )


def _position(sandbox: Sandbox) -> tuple[Any, str]:
    return sandbox.started, sandbox.sandbox_id


def _page(
    found: list[Sandbox], limit: str | None, token: str | None
) -> tuple[list[Sandbox], str | None]:
    """One page and the token of the next: the id of the last sandbox shown, encoded."""
    if limit is not None and not (_LIMIT.fullmatch(limit) and 1 <= int(limit) <= _MAX_PAGE):
        raise bad_request(f"limit must be 1 to {_MAX_PAGE}")
    size = int(limit or _MAX_PAGE)
    begin = 0
    if token:
        try:
            begin = int(base64.urlsafe_b64decode(token))
        except (ValueError, binascii.Error):
            begin = -1
        if begin < 0:
            raise bad_request("nextToken is not one that this server gave")
    page = found[begin : begin + size]
    end = begin + size
    following = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(found) else None
    return page, following
