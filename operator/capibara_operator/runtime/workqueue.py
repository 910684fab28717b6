"""A queue of keys with the semantics of controller-runtime's priority work queue.

A key is queued once, however often it is added; a key that is added while it is being worked on is
queued again when that work is done; a key is never worked on twice at the same time.
"""

import asyncio
import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

from capibara_operator import metrics

K = TypeVar("K")

_FIRST_RETRY_SECONDS: Final = 0.1
_LAST_RETRY_SECONDS: Final = 300.0
_JITTER: Final = 0.2


class QueueClosedError(Exception):
    """The queue was closed and hands out nothing more."""


class WorkQueue(Generic[K]):
    """Keys that are due, keys that are due later, and keys that are being worked on.

    All times are the running loop's. Not thread-safe: use it from its loop only.
    """

    def __init__(
        self,
        name: str,
        *,
        first_retry: float = _FIRST_RETRY_SECONDS,
        last_retry: float = _LAST_RETRY_SECONDS,
    ) -> None:
        self.name = name
        self._first_retry = first_retry
        self._last_retry = last_retry
        self._due: _Heap[K] = _Heap()
        self._due_since: dict[K, float] = {}
        self._later: _Heap[K] = _Heap()
        self._later_priority: dict[K, int] = {}
        self._working: dict[K, float] = {}
        self._dirty: dict[K, int] = {}
        self._failures: dict[K, int] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        # The loop's clock, kept because metrics may be read outside of the loop.
        self._time: Callable[[], float] = time.monotonic
        self._random = random.Random()  # noqa: S311 - jitter is no secret
        self._metrics = metrics.QueueMetrics(
            name,
            depth=lambda: self.depth,
            unfinished=self.unfinished_seconds,
            longest=self.longest_running_seconds,
        )

    def add(self, key: K, *, delay: float = 0.0, priority: int = 0) -> None:
        """Queue a key, due in ``delay`` seconds; of several adds the earliest holds.

        Due keys are taken by priority (highest first), then by age.
        """
        if self._closed:
            return
        if delay > 0:
            self._add_later(key, self._now() + delay, priority)
        else:
            self._add_now(key, priority)

    def retry(self, key: K, *, at_least: float = 0.0) -> float:
        """Queue a key whose work failed, after its back-off; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._first_retry * 2.0 ** min(failures, 32), self._last_retry)
        delay *= 1 + self._random.uniform(-_JITTER, _JITTER)
        delay = max(delay, at_least)
        self._metrics.retried()
        self.add(key, delay=delay)
        return delay

    def forget(self, key: K) -> None:
        """Start the back-off of a key anew: its work succeeded."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """How often in a row the work on a key failed."""
        return self._failures.get(key, 0)

    async def get(self) -> K:
        """Wait for a key that is due and take it; call ``done`` when its work ends.

        Raises ``QueueClosedError`` once the queue is closed.
        """
        while not self._due:
            if self._closed:
                raise QueueClosedError(self.name)
            await self._wait()
        key = self._due.pop()
        now = self._now()
        self._working[key] = now
        self._metrics.taken(now - self._due_since.pop(key))
        return key

    def done(self, key: K) -> None:
        """End the work on a key; it is due again if it was added meanwhile."""
        self._metrics.worked(self._now() - self._working.pop(key))
        priority = self._dirty.pop(key, None)
        if priority is not None:
            self._make_due(key, priority)

    def close(self) -> None:
        """Take and hand out no more keys: a new start looks at everything anew."""
        self._closed = True
        self._dirty.clear()
        self._due, self._later = _Heap(), _Heap()
        self._due_since.clear()
        self._later_priority.clear()
        self._arm()
        for getter in self._getters:
            if not getter.done():
                getter.set_result(None)

    @property
    def depth(self) -> int:
        """The number of keys that are due and not taken yet."""
        return len(self._due)

    @property
    def delayed(self) -> int:
        """The number of keys that are due later."""
        return len(self._later)

    @property
    def working(self) -> int:
        """The number of keys that are being worked on."""
        return len(self._working)

    def unfinished_seconds(self) -> float:
        """The sum of the ages of the work that is under way."""
        return sum((self._time() - started for started in self._working.values()), 0.0)

    def longest_running_seconds(self) -> float:
        """The age of the oldest work that is under way."""
        return max((self._time() - started for started in self._working.values()), default=0.0)

    def _add_now(self, key: K, priority: int) -> None:
        self._later.discard(key)
        priority = max(priority, self._later_priority.pop(key, priority))
        if key in self._working:
            if key not in self._dirty:
                self._metrics.added()
            self._dirty[key] = max(priority, self._dirty.get(key, priority))
        elif key in self._due:
            if -priority < self._due.rank(key):
                self._due.push(key, -priority)
        else:
            self._metrics.added()
            self._make_due(key, priority)

    def _add_later(self, key: K, ready_at: float, priority: int) -> None:
        # Work that is about to start sees whatever this one was to look at.
        if key in self._due or key in self._dirty:
            return
        if key not in self._later or ready_at < self._later.rank(key):
            self._later.push(key, ready_at)
        self._later_priority[key] = max(priority, self._later_priority.get(key, priority))
        self._arm()

    def _make_due(self, key: K, priority: int) -> None:
        self._due.push(key, -priority)
        self._due_since[key] = self._now()
        self._wake_one()

    def _arm(self) -> None:
        """Set the one timer to the earliest delayed key."""
        first = self._later.first_rank()
        if self._timer is not None:
            if first is not None and self._timer.when() <= first and not self._timer.cancelled():
                return
            self._timer.cancel()
            self._timer = None
        if first is not None:
            self._timer = asyncio.get_running_loop().call_at(first, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._now()
        while (first := self._later.first_rank()) is not None and first <= now:
            key = self._later.pop()
            self._add_now(key, self._later_priority.pop(key))
        self._arm()

    async def _wait(self) -> None:
        getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._getters.append(getter)
        try:
            await getter
        except asyncio.CancelledError:
            # A wake-up that reached a cancelled getter belongs to the next one.
            if self._due and getter.done() and not getter.cancelled():
                self._wake_one()
            raise
        finally:
            with suppress(ValueError):
                self._getters.remove(getter)

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _now(self) -> float:
        self._time = asyncio.get_running_loop().time
        return self._time()


class _Heap(Generic[K]):
    """Keys by rank, lowest first and oldest first, with cheap replacing and removing."""

    def __init__(self) -> None:
        self._ranks: dict[K, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._tickets = itertools.count()

    def push(self, key: K, rank: float) -> None:
        """Add a key, or give it another rank."""
        ticket = next(self._tickets)
        self._ranks[key] = (rank, ticket)
        heapq.heappush(self._heap, (rank, ticket, key))
        if len(self._heap) > 2 * len(self._ranks) + 64:
            self._heap = [(*ranked, each) for each, ranked in self._ranks.items()]
            heapq.heapify(self._heap)

    def pop(self) -> K:
        """Remove and return the first key."""
        self._skip_stale()
        *_, key = heapq.heappop(self._heap)
        del self._ranks[key]
        return key

    def discard(self, key: K) -> None:
        """Remove a key if it is there."""
        self._ranks.pop(key, None)

    def rank(self, key: K) -> float:
        """The rank of a key that is there."""
        return self._ranks[key][0]

    def first_rank(self) -> float | None:
        """The rank of the first key."""
        self._skip_stale()
        return self._heap[0][0] if self._heap else None

    def _skip_stale(self) -> None:
        while self._heap:
            rank, ticket, key = self._heap[0]
            if self._ranks.get(key) == (rank, ticket):
                return
            heapq.heappop(self._heap)

    def __len__(self) -> int:
        return len(self._ranks)

    def __contains__(self, key: K) -> bool:
        return key in self._ranks
