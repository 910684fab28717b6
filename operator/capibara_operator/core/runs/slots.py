"""Fair admission of runs to a provider that takes only so many sandboxes.

Pure data: time is an argument, in seconds of any clock that never goes back.
"""

import math
from dataclasses import dataclass, field
from typing import Final

_UNLIMITED: Final = 10**9


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider takes: sandboxes at a time and creations a second; None is no limit."""

    sandboxes: int | None = None
    creates_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to a request for a slot.

    ``woken`` are other runs that got one meanwhile; ``retry_after`` is in seconds, None where
    only a released slot helps.
    """

    granted: bool
    reason: str = ""
    retry_after: float | None = None
    woken: tuple[str, ...] = ()


@dataclass(slots=True)
class Slots:
    """The slots of one provider: who holds one and who waits, by uid of the run.

    Of those that wait, the next is the oldest of the namespace that was served longest ago.
    """

    limits: Limits = field(default_factory=Limits)
    holders: set[str] = field(default_factory=set)
    _waiting: dict[str, dict[str, None]] = field(default_factory=dict)
    _namespaces: dict[str, str] = field(default_factory=dict)
    _tokens: float = math.inf
    _refilled_at: float = 0.0
    _blocked_until: float = 0.0
    _shrunk_to: int = _UNLIMITED
    _shrunk_until: float = 0.0

    def request(self, uid: str, namespace: str, *, now: float) -> Admission:
        """Ask for a slot; asking again keeps the place in the queue."""
        if uid in self.holders:
            return Admission(granted=True)
        if uid not in self._namespaces:
            self._namespaces[uid] = namespace
            self._waiting.setdefault(namespace, {})[uid] = None
        admitted = self.admit(now=now)
        woken = tuple(each for each in admitted if each != uid)
        if uid in self.holders:
            return Admission(granted=True, woken=woken)
        return Admission(False, self._why(now), self._retry_after(now), woken)

    def admit(self, *, now: float) -> tuple[str, ...]:
        """Give free slots to those that wait, in order; returns their uids."""
        admitted: list[str] = []
        while self._namespaces and self._free(now) > 0 and self._take_token(now):
            namespace, queue = next(iter(self._waiting.items()))
            uid = next(iter(queue))
            self._leave_queue(uid)
            if namespace in self._waiting:  # to the end: round robin over namespaces
                self._waiting[namespace] = self._waiting.pop(namespace)
            self.holders.add(uid)
            admitted.append(uid)
        return tuple(admitted)

    def due(self, *, now: float) -> tuple[str, ...]:
        """Admit, and add the first of those that now wait for a time, so that it asks when.

        Whoever was told to wait for a released slot has set itself no time.
        """
        admitted = self.admit(now=now)
        if not self._namespaces or self._retry_after(now) is None:
            return admitted
        first = next(iter(next(iter(self._waiting.values()))))
        return (*admitted, first)

    def hold(self, uid: str) -> None:
        """Record that a run has a sandbox already, whatever the limits say."""
        self._leave_queue(uid)
        self.holders.add(uid)

    def release(self, uid: str) -> None:
        """Give a slot back, or leave the queue; harmless twice."""
        self.holders.discard(uid)
        self._leave_queue(uid)

    def shrink(self, uid: str, *, now: float, seconds: float) -> None:
        """The provider is full with what is there now: take no more for a while."""
        self.release(uid)
        self._shrunk_to = len(self.holders)
        self._shrunk_until = now + seconds

    def block(self, uid: str, *, now: float, seconds: float) -> None:
        """The provider asked for a pause: create nothing for a while."""
        self.release(uid)
        self._blocked_until = max(self._blocked_until, now + seconds)

    @property
    def waiting(self) -> int:
        """How many runs wait for a slot."""
        return len(self._namespaces)

    def _leave_queue(self, uid: str) -> None:
        namespace = self._namespaces.pop(uid, None)
        if namespace is None:
            return
        queue = self._waiting[namespace]
        queue.pop(uid, None)
        if not queue:
            del self._waiting[namespace]

    def _free(self, now: float) -> int:
        limit = _UNLIMITED if self.limits.sandboxes is None else self.limits.sandboxes
        if now < self._shrunk_until:
            limit = min(limit, self._shrunk_to)
        return limit - len(self.holders)

    def _take_token(self, now: float) -> bool:
        if now < self._blocked_until:
            return False
        rate = self.limits.creates_per_second
        if rate is None:
            return True
        self._refill(now, rate)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _refill(self, now: float, rate: float) -> None:
        burst = max(1.0, rate)
        self._tokens = min(burst, self._tokens + (now - self._refilled_at) * rate)
        self._refilled_at = now

    def _why(self, now: float) -> str:
        if self._free(now) <= 0:
            return "every sandbox that the provider allows at a time is in use"
        if now < self._blocked_until:
            return "the provider asked for a pause"
        return "the provider's rate of creations is used up"

    def _retry_after(self, now: float) -> float | None:
        if self._free(now) <= 0:
            return self._shrunk_until - now if now < self._shrunk_until else None
        if now < self._blocked_until:
            return self._blocked_until - now
        rate = self.limits.creates_per_second
        if rate is None:
            return None
        return max(0.0, (self.waiting - self._tokens) / rate)
