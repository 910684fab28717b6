"""The code interpreter's port: contexts and executions over HTTP.

Kernels start when they are first needed. Nothing outside the standard library is imported
before that, so that a sandbox that runs only commands stays small.
"""

import asyncio
import contextlib
import sys
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from .faults import OpError
from .httpd import HttpError, Request, Responder, listen
from .session import Session

if TYPE_CHECKING:
    from .kernels import Kernel

PORT: Final = 49999
KEEPALIVE_SECONDS: Final = 5.0
_LANGUAGES: Final = {"python": "python", "python3": "python"}
_KNOWN: Final = {"javascript", "js", "typescript", "ts", "r", "java", "bash"}


class Interpreter:
    """Contexts by id; the default one of a language is made by its first execution."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._contexts: dict[str, Kernel] = {}
        self._defaults: dict[str, str] = {}
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Open the port inside the sandbox."""
        self._server = await listen(self._handle, PORT)

    async def _handle(self, request: Request, responder: Responder) -> None:
        path = request.path.partition("?")[0].rstrip("/")
        match request.method, path.split("/")[1:]:
            case "GET", ["health"]:
                await responder.send(HTTPStatus.OK, b"OK", "text/plain")
            case "POST", ["execute"]:
                await self._execute(request.json(), responder)
            case "POST", ["contexts"]:
                kernel = self._create(request.json())
                await responder.send_json(HTTPStatus.OK, kernel.describe())
            case "GET", ["contexts"]:
                found = [kernel.describe() for kernel in self._contexts.values()]
                await responder.send_json(HTTPStatus.OK, found)
            case "DELETE", ["contexts", context_id]:
                await self._remove(context_id)
                await responder.send(HTTPStatus.NO_CONTENT, b"", "text/plain")
            case "POST", ["contexts", context_id, "restart"]:
                await self._context(context_id).restart()
                await responder.send(HTTPStatus.NO_CONTENT, b"", "text/plain")
            case _:
                raise HttpError(HTTPStatus.NOT_FOUND, f"no {request.method} {path} here")

    def _context(self, context_id: str) -> "Kernel":
        kernel = self._contexts.get(context_id)
        if kernel is None:
            raise HttpError(HTTPStatus.NOT_FOUND, f"Context {context_id} not found")
        return kernel

    def _language(self, asked: object) -> str:
        name = str(asked or "python").lower()
        if name in _LANGUAGES:
            return _LANGUAGES[name]
        reason = "has no kernel in this sandbox" if name in _KNOWN else "is unknown"
        raise HttpError(HTTPStatus.BAD_REQUEST, f"language '{name}' {reason}; use 'python'")

    def _create(self, body: dict[str, Any]) -> "Kernel":
        language = self._language(body.get("language"))
        try:
            cwd = self._session.directory(body.get("cwd"))
        except OpError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
        kernel = self._new_kernel(language, cwd)
        self._contexts[kernel.context_id] = kernel
        return kernel

    def _new_kernel(self, language: str, cwd: str) -> "Kernel":
        for path in self._session.site_packages:
            if path not in sys.path:
                sys.path.append(path)
        from .kernels import Kernel  # noqa: PLC0415  stays out of sandboxes that run no code

        return Kernel(self._session, str(uuid.uuid4()), language, cwd)

    async def _remove(self, context_id: str) -> None:
        kernel = self._context(context_id)
        del self._contexts[context_id]
        self._defaults = {k: v for k, v in self._defaults.items() if v != context_id}
        await kernel.stop()

    def _chosen(self, body: dict[str, Any]) -> "Kernel":
        context_id, language = body.get("context_id"), body.get("language")
        if context_id and language:
            raise HttpError(
                HTTPStatus.BAD_REQUEST, "only one of context_id or language can be provided"
            )
        if context_id:
            return self._context(str(context_id))
        name = self._language(language)
        if name not in self._defaults:
            self._defaults[name] = self._create({"language": name}).context_id
        return self._contexts[self._defaults[name]]

    async def _execute(self, body: dict[str, Any], responder: Responder) -> None:
        code, env_vars = body.get("code"), body.get("env_vars") or {}
        if not isinstance(code, str) or not isinstance(env_vars, dict):
            raise HttpError(HTTPStatus.BAD_REQUEST, "code must be a string and env_vars an object")
        kernel = self._chosen(body)
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(256)
        work = asyncio.create_task(kernel.execute(code, env_vars, events))
        gone = asyncio.create_task(responder.client_gone())
        try:
            await _relay(events, work, gone, responder)
        finally:
            gone.cancel()
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work


async def _relay(
    events: asyncio.Queue[dict[str, Any] | None],
    work: asyncio.Task[None],
    gone: asyncio.Task[None],
    responder: Responder,
) -> None:
    """Send events until the execution ends or the client goes."""
    pending = asyncio.ensure_future(events.get())
    try:
        while True:
            done, _ = await asyncio.wait(
                (pending, gone), timeout=KEEPALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if gone in done:
                return
            if pending not in done:
                await responder.send_line({"type": "keepalive"})
                continue
            event = pending.result()
            if event is None:
                break
            await responder.send_line(event)
            pending = asyncio.ensure_future(events.get())
        await work
        await responder.send_line({"type": "end_of_execution"})
        await responder.finish()
    finally:
        pending.cancel()
