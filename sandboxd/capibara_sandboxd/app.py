"""The HTTP application: one port for the control plane and for the sandboxes."""

import logging
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import prometheus_client
from aiohttp import web
from aiohttp.hdrs import METH_ALL

from . import metrics, proxy
from .api.routes import ControlPlane
from .errors import ApiError
from .link import GuestError, LinkError
from .registry import Registry

_MAX_BODY_BYTES: Final = 64 * 1024 * 1024
_log = logging.getLogger("capibara_sandboxd.access")
_PROBED: Final = {"/health", "/metrics"}  # asked every few seconds by machines
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_REGISTRY: Final = web.AppKey("registry", Registry)


async def _answer(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Route to a sandbox or the control plane; every failure becomes JSON."""
    try:
        wanted = proxy.target(request)
        if wanted:
            return await proxy.handle(request, request.app[_REGISTRY], *wanted)
        return await handler(request)
    except ApiError as error:
        return error.response()
    except web.HTTPException as error:
        body = {"code": error.status, "message": error.reason}
        return web.json_response(body, status=error.status)
    except GuestError as error:
        body = {"code": 500, "message": str(error)}
        return web.json_response(body, status=HTTPStatus.INTERNAL_SERVER_ERROR)
    except LinkError as error:
        body = {"code": 503, "message": f"{error}; try again or create another sandbox"}
        return web.json_response(body, status=HTTPStatus.SERVICE_UNAVAILABLE)


@web.middleware
async def _observe(request: web.Request, handler: _Handler) -> web.StreamResponse:
    began = time.perf_counter()
    surface = "sandbox" if "E2b-Sandbox-Id" in request.headers else "control"
    status = 499  # the client went away
    try:
        response = await _answer(request, handler)
        status = response.status
    except Exception:  # noqa: BLE001  the last resort: logged, and still JSON for the client
        status = 500
        _log.exception("request failed", extra={"method": request.method, "path": request.path})
        body = {"code": 500, "message": "internal error of sandboxd; its log says more"}
        return web.json_response(body, status=HTTPStatus.INTERNAL_SERVER_ERROR)
    else:
        return response
    finally:
        seconds = time.perf_counter() - began
        method = request.method if request.method in METH_ALL else "other"
        metrics.REQUESTS.labels(surface, method, str(status)).inc()
        metrics.REQUEST_SECONDS.labels(surface).observe(seconds)
        fields = {
            "method": request.method,
            "path": request.path,
            "status": status,
            "milliseconds": round(seconds * 1000, 1),
            "sandbox": request.headers.get("E2b-Sandbox-Id", "-"),
        }
        quiet = surface == "control" and request.path in _PROBED and status < 400
        _log.log(logging.DEBUG if quiet else logging.INFO, "request", extra=fields)


async def _health(_: web.Request) -> web.Response:
    return web.Response(status=HTTPStatus.NO_CONTENT)


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(
        body=prometheus_client.generate_latest(),
        headers={"content-type": prometheus_client.CONTENT_TYPE_LATEST},
    )


def application(registry: Registry) -> web.Application:
    """Build the application over a registry."""
    app = web.Application(middlewares=[_observe], client_max_size=_MAX_BODY_BYTES)
    app[_REGISTRY] = registry
    app.router.add_get("/health", _health)
    app.router.add_get("/metrics", _metrics)
    ControlPlane(registry).add_to(app)
    return app
