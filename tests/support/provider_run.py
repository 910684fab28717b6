"""A job from its creation to its end in a sandbox of a real provider."""

import time
import uuid
from contextlib import aclosing
from typing import Any

from capibara_operator.adapters.e2b import E2BSandboxes
from capibara_operator.core.runs.protocol import (
    Job,
    LogReader,
    Output,
    Record,
    follow_command,
    job_files,
)
from capibara_operator.ports.sandboxes import CreateRequest, File


class ProviderRun:
    """Creates a sandbox, uploads, follows; ``first_output_seconds`` counts from the create."""

    def __init__(self, api: E2BSandboxes) -> None:
        self.api = api
        self.stages: dict[str, float] = {}
        self._sandboxes: list[str] = []

    async def __call__(
        self, *, template: str = "quick-script", files: tuple[File, ...] = (), **fields: Any
    ) -> list[Record]:
        """The records of one job; ``fields`` are the ``Job``'s."""
        began = time.perf_counter()
        defaults: dict[str, Any] = {"key": f"{uuid.uuid4()}-1", "deadline_seconds": 60.0}
        job = Job(**(defaults | fields))
        info = await self.api.create(CreateRequest(template, {}, job.key, 120))
        self._sandboxes.append(info.sandbox_id)
        self.stages["created"] = time.perf_counter() - began
        await self.upload(info.sandbox_id, job, *files)
        self.stages["uploaded"] = time.perf_counter() - began
        records = []
        reader = LogReader(job.key)
        async with aclosing(self.api.follow(info.sandbox_id, follow_command(job.key))) as pieces:
            async for piece in pieces:
                records += reader.feed(piece)
                if any(isinstance(record, Output) for record in records):
                    self.stages.setdefault("first output", time.perf_counter() - began)
        self.stages["ended"] = time.perf_counter() - began
        return records

    async def upload(self, sandbox_id: str, job: Job, *files: File) -> None:
        """Everything in one request."""
        program = [File(path, data) for path, data in job_files(job)]
        await self.api.upload(sandbox_id, [*program, *files])

    async def aclose(self) -> None:
        """Kill the sandboxes."""
        for sandbox_id in self._sandboxes:
            await self.api.kill(sandbox_id)
