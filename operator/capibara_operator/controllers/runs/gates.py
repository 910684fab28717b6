"""The slots of all providers, and the runs that hold them."""

from datetime import timedelta

from capibara_operator import metrics
from capibara_operator.api.provider import ProviderLimits
from capibara_operator.controllers.runs.track import Track
from capibara_operator.core.runs.seen import Slot
from capibara_operator.core.runs.slots import Limits, Slots
from capibara_operator.ports.clock import Clock


class Gates:
    """One set of slots for each provider. Methods return the uids of runs to look at now."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots: dict[str, Slots] = {}

    def set_limits(self, provider: str, limits: ProviderLimits) -> None:
        """What the provider's spec allows from now on."""
        self._of(provider).limits = Limits(
            sandboxes=limits.max_concurrent_sandboxes,
            creates_per_second=float(limits.creates_per_second),
        )

    def request(self, track: Track, provider: str) -> tuple[str, ...]:
        """Ask for a slot and note the answer in ``track.slot``."""
        slots = self._of(provider)
        admission = slots.request(track.uid, track.key.namespace, now=self._clock.monotonic())
        now = self._clock.now()
        since = track.queued_since or now
        track.queued_since = since
        track.slot_provider = provider
        if admission.granted:
            waited = round((now - since).total_seconds() * 1000)
            track.slot = Slot(granted=True, since=now)
            track.stages = track.stages.with_queued(waited)
        else:
            retry_at = None
            if admission.retry_after is not None:
                retry_at = now + timedelta(seconds=admission.retry_after)
            track.slot = Slot(False, since, admission.reason, retry_at)
        return admission.woken

    def hold(self, track_uid: str, provider: str) -> None:
        """A run has a sandbox already."""
        self._of(provider).hold(track_uid)

    def release(self, track: Track) -> tuple[str, ...]:
        """Give back the run's slot, wherever it is."""
        provider = track.slot_provider
        track.slot = None
        if not provider:
            return ()
        slots = self._of(provider)
        slots.release(track.uid)
        return slots.due(now=self._clock.monotonic())

    def shrink(self, track: Track, seconds: float) -> None:
        """The provider is full: the run waits, and nobody else is let in for a while."""
        slots = self._of(track.slot_provider)
        slots.shrink(track.uid, now=self._clock.monotonic(), seconds=seconds)
        track.slot = None

    def block(self, track: Track, seconds: float) -> None:
        """The provider asked for a pause: the run waits, and nobody else is let in."""
        slots = self._of(track.slot_provider)
        slots.block(track.uid, now=self._clock.monotonic(), seconds=seconds)
        track.slot = None

    def _of(self, provider: str) -> Slots:
        slots = self._slots.get(provider)
        if slots is None:
            slots = self._slots[provider] = Slots()
            held = metrics.SLOTS_HELD.labels(provider)
            held.set_function(lambda: float(len(slots.holders)))
            metrics.SLOTS_WAITING.labels(provider).set_function(lambda: float(slots.waiting))
        return slots
