"""Errors that become JSON answers ``{"code", "message"}``."""

import contextlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from aiohttp import web


class ApiError(Exception):
    """A request that is answered with an error status; headers may hold Retry-After."""

    def __init__(self, status: HTTPStatus, message: str, *, error_code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code

    def response(self) -> web.Response:
        """The answer of the control plane and of envd's HTTP part."""
        body: dict[str, Any] = {"code": self.status.value, "message": str(self)}
        if self.error_code:
            body["error_code"] = self.error_code
        return web.json_response(body, status=self.status.value)


@contextlib.contextmanager
def cut_off_on_error(request: web.Request) -> Iterator[None]:
    """Close the connection when a started answer fails: a second one must not follow in it."""
    try:
        yield
    except Exception:
        if request.transport:
            request.transport.close()
        raise


def bad_request(message: str) -> ApiError:
    """400 with a reason."""
    return ApiError(HTTPStatus.BAD_REQUEST, message)


def sandbox_not_found(sandbox_id: str) -> ApiError:
    """404 of the control plane."""
    return ApiError(HTTPStatus.NOT_FOUND, f"sandbox '{sandbox_id}' was not found")
