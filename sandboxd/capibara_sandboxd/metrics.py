"""Prometheus metrics of the daemon."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

RUNNING: Final = Gauge("capibara_sandboxd_sandboxes", "Sandboxes that are running or paused.")
CREATE_SECONDS: Final = Histogram(
    "capibara_sandboxd_create_seconds",
    "Time from a create request to an answering sandbox.",
    buckets=(0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 10),
)
START_FAILURES: Final = Counter(
    "capibara_sandboxd_start_failures_total", "Sandboxes that did not come up."
)
ENDED: Final = Counter("capibara_sandboxd_ended_total", "Sandboxes that ended.", ["reason"])
REQUESTS: Final = Counter(
    "capibara_sandboxd_requests_total", "Answered requests.", ["surface", "method", "status"]
)
REQUEST_SECONDS: Final = Histogram(
    "capibara_sandboxd_request_seconds", "Time to answer a request.", ["surface"]
)
