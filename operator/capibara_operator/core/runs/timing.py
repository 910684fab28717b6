"""How long a run waits for what, and when it tries again."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Timing:
    """Patience, in seconds.

    Attributes:
        start_deadline: From the slot to running code; failures before the code are retried as long.
        reference_grace: For a template or provider that is not there (yet).
        collect_grace: Added to the run's deadline for reading its results.
        release_after: From the deletion of a run until it is let go although its sandbox could not
            be destroyed.
        first_retry: After the first failure; each further one doubles it.
        last_retry: The longest pause between two tries.
    """

    start_deadline: float = 300
    reference_grace: float = 10
    collect_grace: float = 60
    release_after: float = 120
    first_retry: float = 0.5
    last_retry: float = 30

    def backoff(self, failures: int) -> timedelta:
        """The pause after that many failures in a row (1 or more)."""
        seconds = self.first_retry * 2 ** min(max(failures, 1) - 1, 16)
        return timedelta(seconds=min(seconds, self.last_retry))
