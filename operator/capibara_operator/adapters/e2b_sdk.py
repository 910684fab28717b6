"""The ``e2b`` SDK, tuned before and after its import. Everything of it comes through here."""

import logging
import os
from contextvars import ContextVar
from dataclasses import dataclass

# Each followed command holds a connection where the provider speaks HTTP/1.1; the SDK reads its
# pool limit once, when it is imported.
os.environ.setdefault("E2B_MAX_CONNECTIONS", "400")

import httpx
from e2b import E2B, AsyncSandbox
from e2b.api import client_async
from e2b.retry import AsyncRetryableTransport, parse_retry_after

__all__ = ["E2B", "Answer", "AsyncSandbox", "last_answer"]

# Its access log would carry the sandboxes' addresses at DEBUG.
logging.getLogger("pyqwest").setLevel(logging.WARNING)


@dataclass(slots=True)
class Answer:
    """What the SDK's exceptions leave out of the last answer of the control plane."""

    status: int = 0
    retry_after: float | None = None


last_answer: ContextVar[Answer | None] = ContextVar("last_answer", default=None)
"""Set to an ``Answer`` before a call; the transport below fills it."""


class _NotingTransport(AsyncRetryableTransport):
    """The SDK's own transport, which also notes the status and Retry-After of each answer."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if (answer := last_answer.get()) is not None:
            answer.status = response.status_code
            answer.retry_after = parse_retry_after(response.headers.get("Retry-After"))
        return response


# The SDK has no hook for it; tests/contract/test_provider_faults.py notices if this stops working.
setattr(client_async, "AsyncRetryableTransport", _NotingTransport)  # noqa: B010 - not exported
