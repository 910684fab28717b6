"""Follows the log of one job, over as many connections as it takes."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from capibara_operator import metrics
from capibara_operator.core.runs.protocol import EXIT_LOCKED, LogReader, follow_command
from capibara_operator.core.runs.records import ProtocolError
from capibara_operator.core.runs.seen import StreamEnd
from capibara_operator.core.runs.transcript import Transcript
from capibara_operator.ports.sandboxes import CommandExitError, Fault, SandboxAPI, SandboxError

_logger = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS: Final = 0.2
_LAST_BACKOFF_SECONDS: Final = 15.0
_MAX_EMPTY_ENDS: Final = 5


class LogStream:
    """Starts the job or attaches to it, and goes on with a transcript until the job's exit.

    ``connect`` gives the provider's API; it is asked again for each connection, since the key
    may have been replaced meanwhile.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[SandboxAPI]],
        sandbox_id: str,
        key: str,
        transcript: Transcript,
    ) -> None:
        self._connect = connect
        self._sandbox_id = sandbox_id
        self._key = key
        self._transcript = transcript
        self._failures = 0
        self._empty_ends = 0

    async def read(self) -> tuple[StreamEnd, str] | None:
        """Read to the end: None at the job's exit, else why there will be none."""
        while True:
            try:
                await self._read_once()
            except CommandExitError as error:
                if error.exit_code == EXIT_LOCKED:
                    return StreamEnd.LOCKED, "another job took the sandbox"
                said = error.stderr.strip().splitlines()[-1:] or ["it said nothing"]
                return StreamEnd.BROKEN, f"exit code {error.exit_code}, {said[0][:200]}"
            except ProtocolError as error:
                return StreamEnd.GARBLED, str(error)
            except SandboxError as error:
                if error.fault is Fault.NOT_FOUND:
                    return StreamEnd.GONE, error.message
                _logger.info(
                    "lost the connection to a job's log, will reconnect",
                    extra={"sandboxID": self._sandbox_id, "error": error.message},
                )
            if self._transcript.exit is not None:
                return None
            if self._empty_ends >= _MAX_EMPTY_ENDS:
                return StreamEnd.GARBLED, "the job's log ends without an exit record"
            metrics.RUN_STREAM_RECONNECTS.inc()
            await asyncio.sleep(self._backoff())

    async def _read_once(self) -> None:
        before = self._transcript.offset
        api = await self._connect()
        reader = LogReader(self._key, self._transcript.offset)
        pieces = api.follow(self._sandbox_id, follow_command(self._key, self._transcript.offset))
        try:
            async for piece in pieces:
                for record in reader.feed(piece):
                    self._transcript.add(record)
                self._transcript.offset = reader.offset
                if self._transcript.exit is not None:
                    return
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()
            if self._transcript.offset > before:
                self._failures = self._empty_ends = 0
        if self._transcript.offset == before:
            self._empty_ends += 1

    def _backoff(self) -> float:
        self._failures += 1
        longest = min(
            _LAST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures, 10)
        )
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret
