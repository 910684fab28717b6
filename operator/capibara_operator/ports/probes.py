"""What the services' controller needs of a prober, as a Protocol."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from capibara_operator.api.service import EndpointStatus
from capibara_operator.core.services.probing import Check
from capibara_operator.ports.kube import Key


class EndpointProber(Protocol):
    """Probes the endpoints of services over and over, in the background."""

    def watch(
        self,
        key: Key,
        *,
        checks: Sequence[Check],
        ips: Sequence[str],
        known: Mapping[str, EndpointStatus],
    ) -> None:
        """Probe these endpoints of a service at these pods from now on, instead of before.

        ``known`` is what an earlier process found; it holds until probes say otherwise.
        """
        ...

    def forget(self, key: Key) -> None:
        """Probe a service no more."""
        ...

    def results(self, key: Key) -> Mapping[str, EndpointStatus]:
        """What is known by endpoint; the same object for as long as nothing changes."""
        ...

    def listen(self, wake: Callable[[Key], None]) -> None:
        """Call ``wake`` with a service's key whenever its results change."""
        ...
