"""Idempotency-Key: the same key and body give the same sandbox."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from capibara_sandboxd.errors import ApiError
from capibara_sandboxd.sandbox import Sandbox

_KEPT_SECONDS: Final = 24 * 3600.0
_MAX_KEYS: Final = 100_000


@dataclass(slots=True)
class _Entry:
    digest: str
    work: asyncio.Task[Sandbox]
    since: float


class IdempotentCreates:
    """Creates by key; a failed one frees its key."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    async def run(
        self, key: str, body: Mapping[str, Any], create: Callable[[], Coroutine[Any, Any, Sandbox]]
    ) -> Sandbox:
        """Create under a key, or give the sandbox that was created under it."""
        self._forget_old()
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        entry = self._entries.get(key)
        if entry is None:
            entry = _Entry(digest, asyncio.create_task(create()), time.monotonic())
            self._entries[key] = entry
        elif entry.digest != digest:
            raise ApiError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "this Idempotency-Key was used with another request body",
                error_code="idempotency_request_mismatch",
            )
        try:
            # The caller may go away; who repeats the request shall get this sandbox.
            sandbox = await asyncio.shield(entry.work)
        except Exception:
            if self._entries.get(key) is entry:
                del self._entries[key]
            raise
        if sandbox.ended.is_set():
            raise ApiError(
                HTTPStatus.CONFLICT,
                f"the sandbox of this Idempotency-Key ({sandbox.sandbox_id}) has ended; "
                "use another key for a new one",
                error_code="idempotency_outcome_unknown",
            )
        return sandbox

    def _forget_old(self) -> None:
        limit = time.monotonic() - _KEPT_SECONDS
        while self._entries:
            key = next(iter(self._entries))
            if self._entries[key].since > limit and len(self._entries) < _MAX_KEYS:
                return
            del self._entries[key]
