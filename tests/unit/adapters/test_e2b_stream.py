"""A command's output as an iterator, however the command and its reader behave."""

import asyncio
from typing import Any

from capibara_operator.adapters.e2b_stream import BUFFERED_PIECES, stream


class Handle:
    """What the SDK gives: a task of its own reads the events and calls back."""

    def __init__(self, on_stdout: Any, pieces: int) -> None:
        self._reader = asyncio.ensure_future(self._read(on_stdout, pieces))

    async def _read(self, on_stdout: Any, pieces: int) -> None:
        for number in range(pieces):
            await on_stdout(f"{number}\n")

    async def wait(self) -> None:
        await self._reader

    async def disconnect(self) -> None:
        self._reader.cancel()
        await asyncio.wait([self._reader])


class Sandbox:
    def __init__(self, pieces: int) -> None:
        self.commands = self
        self._pieces = pieces

    async def run(self, _: str, *, on_stdout: Any, **__: Any) -> Handle:
        return Handle(on_stdout, self._pieces)


async def test_all_pieces_come_and_then_the_end() -> None:
    sandbox: Any = Sandbox(3 * BUFFERED_PIECES)
    pieces = [piece async for piece in await stream(sandbox, "x")]
    assert pieces == [f"{number}\n" for number in range(3 * BUFFERED_PIECES)]


async def test_a_reader_that_leaves_a_full_buffer_is_let_go() -> None:
    before = asyncio.all_tasks()
    sandbox: Any = Sandbox(10 * BUFFERED_PIECES)
    pieces = await stream(sandbox, "x")
    assert await anext(pieces) == "0\n"
    await asyncio.sleep(0.01)
    async with asyncio.timeout(20):
        await pieces.aclose()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
