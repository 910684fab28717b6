"""The wire format between daemon and agent: one unix connection per operation.

A frame is one byte of kind, four bytes of length (big-endian), then the payload. The daemon
sends a JSON frame with the operation first; what follows depends on the operation.
"""

import asyncio
import json
import struct
from typing import Any, Final, NamedTuple

JSON: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
DATA: Final = 3  # file contents or standard input; an empty one ends them

MAX_PAYLOAD_BYTES: Final = 64 * 1024 * 1024
CHUNK_BYTES: Final = 32 * 1024
_HEADER: Final = struct.Struct(">BI")


class FrameError(Exception):
    """The other side sent something that is not a frame."""


class Frame(NamedTuple):
    """One message: ``kind`` is one of the constants above."""

    kind: int
    payload: bytes


def pack(kind: int, payload: bytes) -> bytes:
    """Encode one frame."""
    return _HEADER.pack(kind, len(payload)) + payload


def pack_json(value: object) -> bytes:
    """Encode one JSON frame."""
    return pack(JSON, json.dumps(value, separators=(",", ":")).encode())


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """Read one frame; None at the end of the stream, also when it ends within a frame."""
    try:
        kind, length = _HEADER.unpack(await reader.readexactly(_HEADER.size))
        if kind > DATA or length > MAX_PAYLOAD_BYTES:
            raise FrameError(f"frame of kind {kind} with {length} bytes")
        return Frame(kind, await reader.readexactly(length) if length else b"")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def parse_json(frame: Frame) -> dict[str, Any]:
    """Return the object of a JSON frame; anything else raises ``FrameError``."""
    if frame.kind != JSON:
        raise FrameError(f"frame of kind {frame.kind} where JSON was expected")
    try:
        value = json.loads(frame.payload)
    except (ValueError, RecursionError) as error:
        raise FrameError("a JSON frame does not hold JSON") from error
    if not isinstance(value, dict):
        raise FrameError("a JSON frame does not hold an object")
    return value
