"""The Connect protocol with JSON messages, as far as envd's services need it.

Written by hand: the generated stubs need protobuf and cost half a second at import.
"""

import json
import re
import struct
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any, Final

from aiohttp import StreamReader, web

from capibara_sandboxd.guest.frames import FrameError
from capibara_sandboxd.link import GuestError, LinkError

STREAM_TYPE: Final = "application/connect+json"
_ENVELOPE: Final = struct.Struct(">BI")
_END_STREAM: Final = 2
_DIGITS: Final = re.compile(r"[0-9]{1,10}")
_MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
_STATUS: Final = {
    "canceled": 499,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "unimplemented": 501,
    "unavailable": 503,
    "unauthenticated": 401,
}


def unary_error(error: GuestError) -> web.Response:
    """An error as the answer to a unary call."""
    body = {"code": error.code, "message": str(error)}
    return web.json_response(body, status=_STATUS.get(error.code, 500))


def timeout_ms(request: web.Request) -> int | None:
    """The deadline a client asks for; None = none."""
    return _number(request, "Connect-Timeout-Ms") or None


def keepalive_seconds(request: web.Request, default: float = 90.0) -> float:
    """How often a client wants a sign of life on a stream."""
    return float(_number(request, "Keepalive-Ping-Interval")) or default


def _number(request: web.Request, header: str) -> int:
    """A header's number; 0 = none. The protocol allows ten digits."""
    text = request.headers.get(header, "")
    return int(text) if _DIGITS.fullmatch(text) else 0


def parse(text: bytes) -> dict[str, Any]:
    """One JSON message."""
    try:
        value = json.loads(text or b"{}")
    except (ValueError, RecursionError) as error:
        raise GuestError("invalid_argument", "the message is not JSON") from error
    if not isinstance(value, dict):
        raise GuestError("invalid_argument", "the message is not a JSON object")
    return value


async def messages(content: StreamReader) -> AsyncIterator[dict[str, Any]]:
    """The messages of a request stream."""
    while not content.at_eof():
        try:
            flags, length = _ENVELOPE.unpack(await content.readexactly(_ENVELOPE.size))
        except EOFError:
            return
        if length > _MAX_MESSAGE_BYTES or flags & 1:
            raise GuestError("invalid_argument", "the message is too large or compressed")
        try:
            payload = await content.readexactly(length)
        except EOFError as error:
            raise GuestError("invalid_argument", "the message ends too early") from error
        if flags & _END_STREAM:
            return
        yield parse(payload)


async def only_message(request: web.Request) -> dict[str, Any]:
    """The one message of a request to a server stream."""
    async for message in messages(request.content):
        return message
    raise GuestError("invalid_argument", "the request has no message")


class ServerStream:
    """The answer to a streaming call; it always ends with an end-of-stream message."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response = web.StreamResponse(
            status=HTTPStatus.OK, headers={"content-type": STREAM_TYPE}
        )

    async def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        await self._write(0, message)

    async def end(self, error: Exception | None = None) -> web.StreamResponse:
        """Close the stream, with the reason when it failed."""
        trailer: dict[str, Any] = {}
        if isinstance(error, GuestError):
            trailer = {"error": {"code": error.code, "message": str(error)}}
        elif isinstance(error, (LinkError, FrameError)):
            trailer = {"error": {"code": "unavailable", "message": str(error)}}
        await self._write(_END_STREAM, trailer)
        await self.response.write_eof()
        return self.response

    async def _write(self, flags: int, message: dict[str, Any]) -> None:
        if not self.response.prepared:
            await self.response.prepare(self._request)
        payload = json.dumps(message, separators=(",", ":")).encode()
        await self.response.write(_ENVELOPE.pack(flags, len(payload)) + payload)
