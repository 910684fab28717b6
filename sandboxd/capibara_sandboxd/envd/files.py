"""GET and POST /files: contents of files over plain HTTP."""

import mimetypes
import re
import urllib.parse
import zlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any, Final

from aiohttp import BodyPartReader, StreamReader, web
from aiohttp.hdrs import CONTENT_DISPOSITION

from capibara_sandboxd.errors import ApiError, bad_request, cut_off_on_error
from capibara_sandboxd.guest import frames
from capibara_sandboxd.link import Conversation, GuestError, GuestLink, LinkError

_STATUS: Final = {
    "not_found": HTTPStatus.NOT_FOUND,
    "invalid_argument": HTTPStatus.BAD_REQUEST,
    "permission_denied": HTTPStatus.FORBIDDEN,
    "resource_exhausted": HTTPStatus.INSUFFICIENT_STORAGE,
    "unauthenticated": HTTPStatus.UNAUTHORIZED,
}
_FILE_NAME: Final = re.compile(r'; filename="([^"]*)"')
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


def http_error(error: GuestError) -> ApiError:
    """The HTTP form of a refusal by the agent."""
    return ApiError(_STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR), str(error))


async def read(request: web.Request, link: GuestLink) -> web.StreamResponse:
    """Send one file."""
    path = request.query.get("path", "")
    try:
        async with link.open("read", path=path) as talk:
            head = await talk.read_json()
            return await _send_file(request, talk, str(head.get("path", path)))
    except GuestError as error:
        raise http_error(error) from error


async def _send_file(request: web.Request, talk: Conversation, path: str) -> web.StreamResponse:
    name = PurePosixPath(path).name
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    disposition = f"inline; filename*=utf-8''{urllib.parse.quote(name)}"
    response = web.StreamResponse(
        headers={
            "content-type": kind,
            "content-disposition": disposition,
            "vary": "Accept-Encoding",
        }
    )
    if request.headers.get("Accept-Encoding", "").strip() == "gzip":
        response.enable_compression(web.ContentCoding.gzip)
    await response.prepare(request)
    with cut_off_on_error(request):
        while (frame := await talk.read()) is not None and frame.payload:
            await response.write(frame.payload)
        if frame is None:
            # Without the end of the chunked body the client sees that the file is not whole.
            raise LinkError("the connection to the sandbox ended within a file")
    await response.write_eof()
    return response


async def write(request: web.Request, link: GuestLink) -> web.Response:
    """Store one file (octet-stream or multipart) or several (multipart)."""
    content_type = request.content_type
    path = request.query.get("path")
    if content_type == "multipart/form-data":
        entries = await _write_parts(request, link, path)
    elif content_type == "application/octet-stream":
        if not path:
            raise bad_request("path is required with application/octet-stream")
        entries = [await _write_one(link, path, _chunks(request.content, _encoding(request)))]
    else:
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"content type '{content_type}': use multipart/form-data or application/octet-stream",
        )
    return web.json_response(entries)


def _encoding(request: web.Request) -> str:
    return request.headers.get("Content-Encoding", "identity").strip().lower()


async def _write_parts(
    request: web.Request, link: GuestLink, path: str | None
) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    async for part in _parts(request):
        if not isinstance(part, BodyPartReader) or part.name != "file":
            raise bad_request("every part must be a file named 'file'")
        if path and entries:
            raise bad_request("path names one file, but there are several; use their filenames")
        target = path or _file_name(part)
        if not target:
            raise bad_request("a part has no filename and there is no path")
        entries.append(await _write_one(link, target, _part_chunks(part)))
    return entries


async def _parts(request: web.Request) -> AsyncIterator[object]:
    try:
        async for part in await request.multipart():
            yield part
    except ValueError as error:
        raise bad_request(f"the body is no multipart/form-data: {error}") from error


def _file_name(part: BodyPartReader) -> str | None:
    # aiohttp's own reading of the header strips leading slashes, which here make a path absolute.
    found = _FILE_NAME.search(part.headers.get(CONTENT_DISPOSITION, ""))
    return found[1].replace("%22", '"') if found else part.filename


async def _part_chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(frames.CHUNK_BYTES):
        yield chunk


async def _chunks(content: StreamReader, encoding: str) -> AsyncIterator[bytes]:
    if encoding not in {"identity", "gzip"}:
        raise bad_request(f"Content-Encoding '{encoding}' is not supported; use gzip")
    expand = zlib.decompressobj(_GZIP_WINDOW) if encoding == "gzip" else None
    try:
        async for chunk in content.iter_chunked(frames.CHUNK_BYTES):
            yield expand.decompress(chunk) if expand else chunk
        if expand:
            yield expand.flush()
            if not expand.eof:
                raise bad_request("the gzip body ends too early")
    except zlib.error as error:
        raise bad_request("the body is not gzip") from error


async def _write_one(link: GuestLink, path: str, data: AsyncIterator[bytes]) -> dict[str, Any]:
    try:
        async with link.open("write", path=path) as talk:
            async for chunk in data:
                if chunk:
                    await talk.send(frames.pack(frames.DATA, chunk))
            await talk.send(frames.pack(frames.DATA, b""))
            entry = (await talk.read_json()).get("entry")
    except GuestError as error:
        raise http_error(error) from error
    if not isinstance(entry, dict):
        raise LinkError("the sandbox's agent sent nonsense instead of a file's entry")
    return {"name": entry.get("name"), "path": entry.get("path"), "type": "file"}
