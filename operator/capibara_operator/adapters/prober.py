"""Probes the endpoints of all services: one scheduler, one HTTP session."""

import asyncio
import heapq
import itertools
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from capibara_operator import metrics
from capibara_operator.adapters.probe_http import ProbeClient
from capibara_operator.api.service import EndpointState, EndpointStatus
from capibara_operator.core.services.probing import (
    ADDRESS_REFUSED,
    Address,
    Check,
    Outcome,
    Track,
    record,
    refusal,
    verdict,
)
from capibara_operator.ports.clock import Clock
from capibara_operator.ports.kube import Key

_logger = logging.getLogger(__name__)

_MAX_IN_FLIGHT: Final = 256
_JITTER: Final = 0.1
_UNSETTLED_PERIOD_SECONDS: Final = 1.0
_CLOSE_GRACE_SECONDS: Final = 1.0


@dataclass(slots=True, eq=False)
class _Slot:
    """One endpoint of a service at one address: a pod's, or ``given`` by the settings."""

    key: Key
    check: Check
    address: Address
    given: bool
    track: Track = field(default_factory=Track)
    watched: bool = True


@dataclass(slots=True)
class _Watched:
    """All that is probed for one service."""

    slots: dict[tuple[Check, Address], _Slot] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    results: Mapping[str, EndpointStatus] = field(default_factory=dict)


class Prober:
    """Probes each endpoint at each pod in its own period; wakes the listener on news only.

    Connects to nothing but the given IP addresses, never to a loopback or link-local one.
    ``overrides`` replace the pods' addresses: (namespace, service, port) -> address, which may be
    a loopback one. ``settling_period`` in seconds holds until an endpoint has its first verdict.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        overrides: Mapping[tuple[str, str, int], Address] | None = None,
        max_in_flight: int = _MAX_IN_FLIGHT,
        settling_period: float = _UNSETTLED_PERIOD_SECONDS,
    ) -> None:
        self._clock = clock
        self._overrides = overrides or {}
        self._settling_period = settling_period
        self._services: dict[Key, _Watched] = {}
        self._due: list[tuple[float, int, _Slot]] = []
        self._tickets = itertools.count()
        self._reaching: set[_Slot] = set()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._gate = asyncio.Semaphore(max_in_flight)
        self._news = asyncio.Event()
        self._wake: Callable[[Key], None] = lambda _: None
        self._random = random.Random()  # noqa: S311 - jitter is no secret
        self._client = ProbeClient()

    def listen(self, wake: Callable[[Key], None]) -> None:
        """Call ``wake`` with a service's key whenever its results change."""
        self._wake = wake

    def watch(
        self,
        key: Key,
        *,
        checks: Sequence[Check],
        ips: Sequence[str],
        known: Mapping[str, EndpointStatus],
    ) -> None:
        """Probe these endpoints of a service at these pods from now on, instead of before."""
        watched = self._services.get(key)
        if watched is None:
            watched = self._services[key] = _Watched(results=dict(known))
        wanted = self._wanted(key, checks, ips)
        for gone in watched.slots.keys() - wanted.keys():
            self._drop(watched.slots.pop(gone))
        for (check, address), given in wanted.items():
            if (check, address) not in watched.slots:
                slot = _Slot(key, check, address, given)
                watched.slots[check, address] = slot
                # Spread after a restart of the operator; at once where someone waits for news.
                spread = check.period if _settled(known.get(check.endpoint)) else 0.0
                self._schedule(slot, self._random.uniform(0, spread))
        self._redefine(key, watched, checks)
        self._publish(key, wake=False)

    def forget(self, key: Key) -> None:
        """Probe a service no more."""
        watched = self._services.pop(key, None)
        if watched is None:
            return
        for slot in watched.slots.values():
            self._drop(slot)
        for name in watched.checks:
            metrics.forget_endpoint(*key, name)

    def results(self, key: Key) -> Mapping[str, EndpointStatus]:
        """What is known by endpoint; the same object for as long as nothing changes."""
        watched = self._services.get(key)
        return watched.results if watched else {}

    async def run(self) -> None:
        """Probe until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            while self._due and self._due[0][0] <= loop.time():
                slot = heapq.heappop(self._due)[2]
                if slot.watched:
                    await self._gate.acquire()
                    self._start(slot)
            timer = loop.call_at(self._due[0][0], self._news.set) if self._due else None
            await self._news.wait()
            if timer is not None:
                timer.cancel()

    async def aclose(self) -> None:
        """End the probes that are under way and close the session."""
        for task in self._in_flight:
            task.cancel()
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=_CLOSE_GRACE_SECONDS)
        await self._client.aclose()

    def _wanted(
        self, key: Key, checks: Sequence[Check], ips: Sequence[str]
    ) -> dict[tuple[Check, Address], bool]:
        """What to probe; the value tells whether the address is given by the settings."""
        found: dict[tuple[Check, Address], bool] = {}
        for check in checks:
            override = self._overrides.get((*key, check.port))
            if override is not None and ips:
                found[check, override] = True
            elif override is None:
                found |= {(check, Address(ip, check.port)): False for ip in ips}
        return found

    @staticmethod
    def _redefine(key: Key, watched: _Watched, checks: Sequence[Check]) -> None:
        """Forget what is known of endpoints that are gone, or are now another question."""
        new = {check.endpoint: check for check in checks}
        stale = {name for name, old in watched.checks.items() if new.get(name) != old}
        for name in stale:
            metrics.forget_endpoint(*key, name)
        watched.results = {
            name: found
            for name, found in watched.results.items()
            if name in new and name not in stale
        }
        watched.checks = new

    def _drop(self, slot: _Slot) -> None:
        slot.watched = False
        self._reaching.discard(slot)

    def _schedule(self, slot: _Slot, delay: float) -> None:
        due = asyncio.get_running_loop().time() + delay
        heapq.heappush(self._due, (due, next(self._tickets), slot))
        if self._due[0][2] is slot:
            self._news.set()

    def _start(self, slot: _Slot) -> None:
        task = asyncio.create_task(self._probe(slot), name=f"probe-{slot.check.endpoint}")
        self._in_flight.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._gate.release()

    async def _probe(self, slot: _Slot) -> None:
        started = self._clock.monotonic()
        try:
            outcome = await self._ask(slot)
        except Exception:  # a probe that crashes must stay in the schedule
            _logger.exception("probe crashed", extra={"endpoint": slot.check.endpoint})
            outcome = Outcome("InternalError", reached=False)
        if slot.watched:
            self._take_in(slot, outcome, self._clock.monotonic() - started)

    async def _ask(self, slot: _Slot) -> Outcome:
        if not slot.given and refusal(slot.address.ip):
            return Outcome(ADDRESS_REFUSED, reached=False)
        return await self._client.ask(slot.check, slot.address)

    def _take_in(self, slot: _Slot, outcome: Outcome, seconds: float) -> None:
        metrics.PROBES.labels(outcome.reason or "Healthy").inc()
        metrics.PROBE_SECONDS.observe(seconds)
        slot.track = record(slot.track, outcome, threshold=slot.check.failure_threshold)
        period = slot.check.period
        if slot.track.state is None:
            period = min(period, self._settling_period)
        self._schedule(slot, period * (1 + self._random.uniform(-_JITTER, _JITTER)))
        before = bool(self._reaching)
        (self._reaching.add if outcome.reached else self._reaching.discard)(slot)
        # Whether anything is reached at all decides about every service, not only this one.
        changed = [slot.key] if before == bool(self._reaching) else list(self._services)
        for key in changed:
            self._publish(key)

    def _publish(self, key: Key, *, wake: bool = True) -> None:
        watched = self._services[key]
        tracks: dict[str, list[Track]] = {name: [] for name in watched.checks}
        for slot in watched.slots.values():
            tracks[slot.check.endpoint].append(slot.track)
        results = {
            name: verdict(
                check,
                tracks[name],
                reached_anywhere=bool(self._reaching),
                last=watched.results.get(name),
                now=self._clock.now(),
            )
            for name, check in watched.checks.items()
        }
        if results == watched.results and wake:
            return
        for name, found in results.items():
            metrics.set_endpoint(*key, name, state=_METRIC_STATES[found.state])
        if results != watched.results:
            watched.results = results
            if wake:
                self._wake(key)


_METRIC_STATES: Final = {
    EndpointState.HEALTHY: 1.0,
    EndpointState.FAILING: 0.0,
    EndpointState.UNKNOWN: None,
}


def _settled(known: EndpointStatus | None) -> bool:
    return known is not None and known.state is not EndpointState.UNKNOWN
