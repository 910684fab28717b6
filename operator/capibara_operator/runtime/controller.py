"""Runs a reconciler over the keys of a work queue."""

import asyncio
import logging
import time
import uuid
from dataclasses import dataclass
from typing import Final, Protocol

from capibara_operator import logs, metrics
from capibara_operator.ports.kube import Key, KubeError
from capibara_operator.ports.sandboxes import SandboxError
from capibara_operator.runtime.workqueue import QueueClosedError, WorkQueue

_logger = logging.getLogger(__name__)

_RECONCILE_DEADLINE_SECONDS: Final = 300.0
_SHORTEST_REQUEUE_SECONDS: Final = 0.001
_EXPECTED: Final = (KubeError, SandboxError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Result:
    """When to look at the key again: in ``requeue_after`` seconds, or when it changes (None)."""

    requeue_after: float | None = None


class Reconciler(Protocol):
    """Brings one object nearer to its desired state."""

    async def reconcile(self, key: Key) -> Result:
        """Look at everything anew and act; safe to repeat and to cancel at any await.

        An exception means: log it and try again after a growing delay.
        """
        ...


class TerminalError(Exception):
    """Raised by a reconciler where trying again is useless until the object changes."""


class Controller:
    """A work queue, its workers and their reconciler."""

    def __init__(
        self,
        name: str,
        reconciler: Reconciler,
        *,
        workers: int = 4,
        deadline: float = _RECONCILE_DEADLINE_SECONDS,
        queue: WorkQueue[Key] | None = None,
    ) -> None:
        self.name = name
        self.queue = WorkQueue[Key](name) if queue is None else queue
        self._reconciler = reconciler
        self._workers = workers
        self._deadline = deadline
        self._stopping = False  # only then is a cancellation meant
        metrics.MAX_CONCURRENT_RECONCILES.labels(name).set(workers)
        self._active = metrics.ACTIVE_WORKERS.labels(name)
        self._seconds = metrics.RECONCILE_SECONDS.labels(name)

    def enqueue(self, key: Key, *, delay: float = 0.0, priority: int = 0) -> None:
        """Have the key reconciled in ``delay`` seconds."""
        self.queue.add(key, delay=delay, priority=priority)

    async def run(self) -> None:
        """Work until ``stop`` is called, or this is cancelled."""
        workers = [
            asyncio.create_task(self._work(), name=f"{self.name}-worker-{number}")
            for number in range(self._workers)
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            self._stopping = True
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def close(self) -> None:
        """Start nothing more; ``run`` returns when the work under way has ended."""
        self.queue.close()

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except QueueClosedError:
                return
            try:
                with self._active.track_inprogress():
                    await self._process(key)
            finally:
                self.queue.done(key)

    async def _process(self, key: Key) -> None:
        started = time.perf_counter()
        with logs.bound(
            controller=self.name,
            namespace=key.namespace,
            name=key.name,
            reconcileID=uuid.uuid4().hex,
        ):
            outcome = await self._attempt(key)
        self._seconds.observe(time.perf_counter() - started)
        metrics.RECONCILE_TOTAL.labels(self.name, outcome).inc()

    async def _attempt(self, key: Key) -> str:
        deadline = asyncio.timeout(self._deadline)
        try:
            async with deadline:
                result = await self._reconciler.reconcile(key)
        except asyncio.CancelledError:
            if self._stopping:
                raise
            # Libraries cancel the task that they run in by mistake; the worker must live on.
            _uncancel()
            return self._failed(key, RuntimeError("the reconciliation was cancelled from inside"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker must live on
            return self._failed(key, self._overdue() if deadline.expired() else error)
        self.queue.forget(key)
        if result.requeue_after is None:
            return "success"
        self.queue.add(key, delay=max(result.requeue_after, _SHORTEST_REQUEUE_SECONDS))
        return "requeue_after"

    def _overdue(self) -> Exception:
        metrics.RECONCILE_TIMEOUTS.labels(self.name).inc()
        return TimeoutError(f"the reconciliation took longer than {self._deadline:.0f} s")

    def _failed(self, key: Key, error: Exception) -> str:
        metrics.RECONCILE_ERRORS.labels(self.name).inc()
        if isinstance(error, TerminalError):
            metrics.RECONCILE_TERMINAL_ERRORS.labels(self.name).inc()
            _logger.warning("reconciliation failed for good", extra={"error": str(error)})
            return "error"
        delay = self._retry(key, error)
        fields = {"error": str(error), "retryInSeconds": round(delay, 3)}
        if isinstance(error, _EXPECTED):
            _logger.warning("reconciliation failed, will retry", extra=fields)
        else:
            metrics.RECONCILE_PANICS.labels(self.name).inc()
            _logger.error("reconciliation crashed, will retry", extra=fields, exc_info=error)
        return "error"

    def _retry(self, key: Key, error: Exception) -> float:
        after = getattr(error, "retry_after", None)
        return self.queue.retry(key, at_least=after or 0.0)


def _uncancel() -> None:
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
