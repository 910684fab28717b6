"""Kubernetes Events (events.k8s.io/v1), sent in the background."""

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from capibara_operator import metrics
from capibara_operator.api.common import GROUP
from capibara_operator.ports.clock import Clock
from capibara_operator.ports.kube import Key, KubeAPI, KubeError, Manifest
from capibara_operator.ports.resources import EVENTS

_logger = logging.getLogger(__name__)

REPORTING_CONTROLLER: Final = f"{GROUP}/operator"
_ACTIONS: Final = {
    "CapibaraService": "ManageService",
    "SandboxProvider": "TestConnection",
    "SandboxRun": "RunCode",
    "SandboxTemplate": "CheckTemplate",
}
_LONGEST_REASON: Final = 128
_LONGEST_NOTE: Final = 1024
_QUEUE_SIZE: Final = 1000
_REMEMBERED: Final = 4096
_SERIES_SECONDS: Final = 360.0
_SERIES_PATCH_SECONDS: Final = 30.0
_BURST: Final = 25.0
_REFILL_PER_SECOND: Final = 1 / 300
_BACKOFFS: Final = (0.5, 2.0, 5.0)


@dataclass(slots=True)
class _Series:
    """An Event that was sent, and how often it has happened since."""

    key: Key
    manifest: Manifest
    count: int
    last_seen: datetime
    last_seen_at: float
    sent_at: float = 0.0
    sent_count: int = 0
    queued: bool = True


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class EventRecorder:
    """``ports.kube.Recorder``: same Events become one series, and each object has a budget.

    An object may emit 25 different Events at once and one more every five minutes, as with the
    recorder of Go controllers.
    """

    def __init__(self, kube: KubeAPI, clock: Clock, *, instance: str) -> None:
        self._kube = kube
        self._clock = clock
        self._instance = instance[:128]
        self._queue: asyncio.Queue[_Series] = asyncio.Queue(_QUEUE_SIZE)
        self._series: OrderedDict[tuple[str, ...], _Series] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def event(self, obj: Manifest, *, warning: bool, reason: str, message: str) -> None:
        """Emit one Event about ``obj`` in the background; never raises, never blocks."""
        try:
            self._event(obj, "Warning" if warning else "Normal", reason, message)
        except Exception:
            _logger.exception("cannot emit an event", extra={"reason": reason})

    async def run(self) -> None:
        """Send what comes in, until cancelled."""
        while True:
            series = await self._queue.get()
            try:
                await self._send(series)
            except Exception:
                _logger.exception("cannot send an event")
            finally:
                self._queue.task_done()

    async def flush(self, *, seconds: float) -> bool:
        """Wait until everything is sent; False when that took longer than ``seconds``."""
        for series in self._series.values():
            if not series.queued and series.count > series.sent_count > 0:
                self._enqueue(series)
        try:
            async with asyncio.timeout(seconds):
                await self._queue.join()
        except TimeoutError:
            _logger.warning("events were lost at the exit", extra={"count": self._queue.qsize()})
            return False
        return True

    def _event(self, obj: Manifest, kind: str, reason: str, message: str) -> None:
        regarding = _reference(obj)
        now = self._clock.monotonic()
        identity = (*sorted(f"{k}={v}" for k, v in regarding.items()), kind, reason, message)
        series = self._series.get(identity)
        if series is not None and now - series.last_seen_at < _SERIES_SECONDS:
            self._repeat(series, now)
            self._series.move_to_end(identity)
            return
        if not self._allowed(regarding.get("uid") or str(regarding), now):
            metrics.EVENTS.labels("limited").inc()
            return
        series = self._new(regarding, kind, reason, message)
        self._series[identity] = series
        self._series.move_to_end(identity)
        if len(self._series) > _REMEMBERED:
            self._series.popitem(last=False)
        self._enqueue(series)

    def _repeat(self, series: _Series, now: float) -> None:
        series.count += 1
        series.last_seen = self._clock.now()
        series.last_seen_at = now
        metrics.EVENTS.labels("aggregated").inc()
        if not series.queued and now - series.sent_at >= _SERIES_PATCH_SECONDS:
            self._enqueue(series)

    def _enqueue(self, series: _Series) -> None:
        try:
            self._queue.put_nowait(series)
            series.queued = True
        except asyncio.QueueFull:
            series.queued = False
            metrics.EVENTS.labels("dropped").inc()

    def _allowed(self, owner: str, now: float) -> bool:
        bucket = self._buckets.setdefault(owner, _Bucket(_BURST, now))
        self._buckets.move_to_end(owner)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        earned = (now - bucket.filled_at) * _REFILL_PER_SECOND
        bucket.tokens, bucket.filled_at = min(_BURST, bucket.tokens + earned), now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _new(self, regarding: dict[str, Any], kind: str, reason: str, message: str) -> _Series:
        now = self._clock.now()
        key = Key(
            regarding.get("namespace") or "default", f"{regarding['name'][:200]}.{time.time_ns():x}"
        )
        manifest: Manifest = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"namespace": key.namespace, "name": key.name},
            "eventTime": _micro_time(now),
            "reportingController": REPORTING_CONTROLLER,
            "reportingInstance": self._instance,
            "action": _ACTIONS.get(regarding["kind"], "Reconcile"),
            "reason": reason[:_LONGEST_REASON],
            "regarding": regarding,
            "note": _cut(message),
            "type": kind,
        }
        return _Series(key, manifest, 1, now, self._clock.monotonic())

    async def _send(self, series: _Series) -> None:
        series.queued = False
        for backoff in (*_BACKOFFS, None):
            try:
                await self._write(series)
            except KubeError as error:
                if backoff is not None and error.transient:
                    await asyncio.sleep(max(backoff, error.retry_after or 0.0))
                    continue
                metrics.EVENTS.labels("failed").inc()
                _logger.warning(
                    "the API server refused an event",
                    extra={"error": str(error), "reason": series.manifest["reason"]},
                )
            else:
                metrics.EVENTS.labels("sent").inc()
            return

    async def _write(self, series: _Series) -> None:
        count = series.count
        if not series.sent_count or not await self._update(series):
            manifest = dict(series.manifest)
            if count > 1:
                manifest["series"] = _series_field(count, series.last_seen)
            await self._create(manifest)
        series.sent_count = count
        series.sent_at = self._clock.monotonic()

    async def _update(self, series: _Series) -> bool:
        """Count on; False when the Event has expired: a new one tells the same."""
        body = {"series": _series_field(series.count, series.last_seen)}
        return await self._kube.patch(EVENTS, series.key, body) is not None

    async def _create(self, manifest: Manifest) -> None:
        try:
            await self._kube.create(EVENTS, manifest)
        except KubeError as error:
            # The answer to an earlier attempt was lost.
            if error.reason != "AlreadyExists":
                raise


def _reference(obj: Manifest) -> dict[str, Any]:
    metadata = obj["metadata"]
    found = {
        "apiVersion": obj.get("apiVersion"),
        "kind": obj.get("kind"),
        "namespace": metadata.get("namespace"),
        "name": metadata["name"],
        "uid": metadata.get("uid"),
    }
    return {name: value for name, value in found.items() if value}


def _series_field(count: int, last_seen: datetime) -> dict[str, Any]:
    return {"count": max(count, 2), "lastObservedTime": _micro_time(last_seen)}


def _micro_time(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cut(message: str) -> str:
    if len(message.encode()) <= _LONGEST_NOTE:
        return message
    return message.encode()[: _LONGEST_NOTE - 3].decode(errors="ignore") + "..."
