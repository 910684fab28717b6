"""Just enough HTTP/1.1 for the code interpreter's port, standard library only."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_BODY_BYTES: Final = 64 * 1024 * 1024


class HttpError(Exception):
    """A request that is answered with an error status and a JSON body."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``body`` is whole."""

    method: str
    path: str
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as an object; an empty one counts as {}."""
        try:
            value = json.loads(self.body or b"{}")
        except (ValueError, RecursionError) as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, "the body is not JSON") from error
        if not isinstance(value, dict):
            raise HttpError(HTTPStatus.BAD_REQUEST, "the body is not a JSON object")
        return value


class Responder:
    """Writes the answer to one request: whole, or line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.streaming = False

    async def send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        """Send a whole answer."""
        head = [f"content-type: {content_type}", f"content-length: {len(body)}"]
        self._head(status, head)
        self._writer.write(body)
        await self._writer.drain()

    async def send_json(self, status: HTTPStatus, value: object) -> None:
        """Send a whole JSON answer."""
        await self.send(status, json.dumps(value).encode(), "application/json")

    async def send_line(self, value: object) -> None:
        """Send one line of NDJSON; the first one opens the stream."""
        if not self.streaming:
            self._head(
                HTTPStatus.OK,
                ["content-type: application/x-ndjson", "transfer-encoding: chunked"],
            )
            self.streaming = True
        line = json.dumps(value).encode() + b"\n"
        self._writer.write(b"%x\r\n%s\r\n" % (len(line), line))
        await self._writer.drain()

    async def finish(self) -> None:
        """Close a stream of lines properly."""
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    async def client_gone(self) -> None:
        """Return when the client closes its side."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(1024):
                pass

    def _head(self, status: HTTPStatus, lines: list[str]) -> None:
        head = [f"HTTP/1.1 {status.value} {status.phrase}", *lines, "connection: close", "", ""]
        self._writer.write("\r\n".join(head).encode())


Handler = Callable[[Request, Responder], Awaitable[None]]


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readline()).split(b";")[0] or b"0", 16):
        if len(body) + size > _MAX_BODY_BYTES:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large")
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return bytes(body)


async def _read_request(reader: asyncio.StreamReader) -> Request:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ", 2)
    pairs = (line.partition(":")[::2] for line in lines[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    if "chunked" in headers.get("transfer-encoding", ""):
        return Request(method, path, await _read_chunked(reader))
    length = int(headers.get("content-length") or 0)
    if not 0 <= length <= _MAX_BODY_BYTES:
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large")
    return Request(method, path, await reader.readexactly(length))


async def serve_connection(
    handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer one request and close: every answer says ``connection: close``."""
    responder = Responder(reader, writer)
    try:
        try:
            await handler(await _read_request(reader), responder)
        except HttpError as error:
            body = {"code": error.status.value, "message": str(error)}
            await responder.send_json(error.status, body)
        except (ValueError, asyncio.LimitOverrunError):
            body = {"code": 400, "message": "malformed HTTP request"}
            await responder.send_json(HTTPStatus.BAD_REQUEST, body)
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def listen(handler: Handler, port: int) -> asyncio.Server:
    """Serve a handler on a loopback port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_connection(handler, reader, writer)

    return await asyncio.start_server(connected, "127.0.0.1", port, limit=_MAX_HEAD_BYTES)
