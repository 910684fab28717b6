"""The daemon's side of the connection to a sandbox's agent.

The agent runs beside code that nobody vouches for: what it answers is checked.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from .guest import frames


class LinkError(Exception):
    """The agent is gone or answered nonsense."""


class GuestError(Exception):
    """The agent refused an operation: a Connect code and a message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def raise_error(answer: dict[str, Any]) -> dict[str, Any]:
    """Raise what an answer names as its error; otherwise return the answer."""
    error = answer.get("error")
    if isinstance(error, dict):
        raise GuestError(str(error.get("code", "internal")), str(error.get("message", "")))
    return answer


class Conversation:
    """One operation under way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send one encoded frame, waiting while the agent is slow."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError as error:
            raise LinkError("the connection to the sandbox ended") from error

    async def read(self) -> frames.Frame | None:
        """The next frame; None when the agent closed the connection."""
        try:
            return await frames.read_frame(self._reader)
        except frames.FrameError as error:
            raise LinkError(f"the sandbox's agent sent nonsense: {error}") from error

    async def read_json(self) -> dict[str, Any]:
        """The next frame, which must be JSON and no error."""
        frame = await self.read()
        if frame is None:
            raise LinkError("the connection to the sandbox ended")
        try:
            return raise_error(frames.parse_json(frame))
        except frames.FrameError as error:
            raise LinkError(f"the sandbox's agent sent nonsense: {error}") from error


class GuestLink:
    """Opens conversations with the agent behind one unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.asynccontextmanager
    async def open(self, operation: str, **fields: object) -> AsyncIterator[Conversation]:
        """Begin an operation; leaving the block closes the connection."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.path)
        except OSError as error:
            raise LinkError("the sandbox's agent does not answer") from error
        try:
            conversation = Conversation(reader, writer)
            await conversation.send(frames.pack_json({"op": operation, **fields}))
            yield conversation
        finally:
            writer.close()

    async def call(
        self, operation: str, *, timeout_seconds: float = 60.0, **fields: object
    ) -> dict[str, Any]:
        """Run an operation that has one answer."""
        try:
            async with asyncio.timeout(timeout_seconds), self.open(operation, **fields) as talk:
                return await talk.read_json()
        except TimeoutError as error:
            raise LinkError(f"no answer of the agent in {timeout_seconds:g} s") from error
