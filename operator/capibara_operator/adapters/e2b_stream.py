"""A background command's stdout as an async iterator, with bounded buffering."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from capibara_operator.adapters.e2b_sdk import AsyncSandbox, e2b
from capibara_operator.ports.sandboxes import CommandExitError

BUFFERED_PIECES: Final = 64
STDERR_CHARS: Final = 2_048
OPEN_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 5.0


async def stream(sandbox: AsyncSandbox, command: str) -> AsyncGenerator[str, None]:
    """Start ``command``; returns when it has started.

    The iterator raises ``CommandExitError`` for any exit code but 0, and the SDK's exceptions.
    A reader that falls behind holds the command back; closing the iterator leaves it running.
    """
    pieces: asyncio.Queue[str | None] = asyncio.Queue(BUFFERED_PIECES)
    errors = _Tail()
    # With any other timeout the SDK may cancel the task that started the command.
    handle = await sandbox.commands.run(
        command,
        background=True,
        on_stdout=pieces.put,
        on_stderr=errors.add,
        timeout=0,
        request_timeout=OPEN_SECONDS,
        retain_output=False,
    )
    return _pieces(handle, pieces, errors)


async def _pieces(
    handle: e2b.AsyncCommandHandle[None], pieces: asyncio.Queue[str | None], errors: "_Tail"
) -> AsyncGenerator[str, None]:
    reading = True

    async def tell_end() -> None:
        try:
            await handle.wait()
        finally:
            # Without a reader nobody would ever make room for it.
            if reading:
                await pieces.put(None)

    end = asyncio.ensure_future(tell_end())
    try:
        while (piece := await pieces.get()) is not None:
            yield piece
        await end
    except e2b.CommandExitException as error:
        raise CommandExitError(error.exit_code, errors.text) from error
    finally:
        reading = False
        end.cancel()
        await asyncio.gather(end, _disconnect(handle), return_exceptions=True)


async def _disconnect(handle: e2b.AsyncCommandHandle[None]) -> None:
    async with asyncio.timeout(CLOSE_SECONDS):
        await handle.disconnect()


class _Tail:
    """The end of what a command wrote to stderr."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, piece: str) -> None:
        self.text = (self.text + piece)[-STDERR_CHARS:]
