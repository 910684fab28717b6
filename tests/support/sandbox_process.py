"""Runs the runner for real, as a process of this machine with a home of its own."""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from capibara_operator.core.runs.protocol import (
    DIRECTORY,
    Exit,
    Job,
    LogReader,
    Output,
    Record,
    follow_command,
    job_files,
)

CLOSED_PORT = 9


@dataclass
class Sandbox:
    """A temporary home that stands for a sandbox; ``port`` is the code interpreter's."""

    home: Path
    port: int = CLOSED_PORT

    def upload(self, job: Job) -> None:
        for path, data in job_files(job):
            target = self.home / Path(path).relative_to("/home/user")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)

    async def follower(self, key: str, offset: int = 0) -> asyncio.subprocess.Process:
        """The follow command, as a login shell of a sandbox would run it."""
        command = follow_command(key, offset)
        command = command.replace(DIRECTORY, str(self.home / ".capibara"))
        command = command.replace("python3", sys.executable).replace(
            "from runner.follow",
            f"import runner.kernel; runner.kernel.PORT = {self.port}; from runner.follow",
        )
        return await asyncio.create_subprocess_exec(
            "bash", "-c", command,
            env={"HOME": str(self.home), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2**22,
        )  # fmt: skip

    async def follow(self, key: str, offset: int = 0) -> AsyncIterator[tuple[Record, int]]:
        """Records with the offset behind each."""
        process = await self.follower(key, offset)
        assert process.stdout is not None
        reader = LogReader(key, offset)
        try:
            async for line in process.stdout:
                for record in reader.feed(line.decode("ascii")):
                    yield record, reader.offset
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def run(self, job: Job) -> list[Record]:
        self.upload(job)
        return await self.records(job.key)

    async def records(self, key: str, offset: int = 0) -> list[Record]:
        return [record async for record, _ in self.follow(key, offset)]


def text(records: list[Record], stream: str) -> str:
    return "".join(r.text for r in records if isinstance(r, Output) and r.stream == stream)


def ending(records: list[Record]) -> Exit:
    assert isinstance(records[-1], Exit)
    return records[-1]
