"""The ``e2b`` SDK, tuned before and after its import.

Everything of it comes through here: whoever imported it first elsewhere would import it untuned.
"""

import logging
import os
from contextvars import ContextVar
from dataclasses import dataclass

# The SDK reads these once, when it is imported. Each followed command holds a connection where
# the provider speaks HTTP/1.1; repeating a call is the caller's business, not the SDK's.
os.environ.setdefault("E2B_MAX_CONNECTIONS", "400")
os.environ.setdefault("E2B_CONNECTION_RETRIES", "0")

import e2b
import httpx
from e2b import E2B, AsyncSandbox
from e2b.api import client_async
from e2b.retry import AsyncRetryableTransport, parse_retry_after
from e2b.sandbox.filesystem.filesystem import WriteEntry

__all__ = ["E2B", "Answer", "AsyncSandbox", "WriteEntry", "e2b", "last_answer"]

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


# The SDK has no hook for it; tests/unit/adapters/test_e2b.py notices if this stops working.
setattr(client_async, "AsyncRetryableTransport", _NotingTransport)  # noqa: B010 - not exported
