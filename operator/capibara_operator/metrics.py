"""Everything that the operator measures, in the default Prometheus registry.

The names of the first three sections are those of every Go operator, so that stock dashboards and
alerts work unchanged.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from prometheus_client import Counter, Gauge, Histogram, Info, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]

_QUEUE_BUCKETS: Final = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100, 1000)
_RECONCILE_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7),
    *(0.8, 0.9, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5, 6, 7, 8, 9, 10),
    *(15, 20, 25, 30, 40, 50, 60),
)
_REQUEST_BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)

# --- Controllers ---------------------------------------------------------------------------------

RECONCILE_TOTAL: Final = Counter(
    "controller_runtime_reconcile_total",
    "Reconciliations per controller and result.",
    ("controller", "result"),
)
RECONCILE_ERRORS: Final = Counter(
    "controller_runtime_reconcile_errors_total",
    "Reconciliations that ended in an error, per controller.",
    ("controller",),
)
RECONCILE_TERMINAL_ERRORS: Final = Counter(
    "controller_runtime_terminal_reconcile_errors_total",
    "Reconciliations that ended in an error that is not retried, per controller.",
    ("controller",),
)
RECONCILE_PANICS: Final = Counter(
    "controller_runtime_reconcile_panics_total",
    "Reconciliations that ended in an unexpected exception, per controller.",
    ("controller",),
)
RECONCILE_TIMEOUTS: Final = Counter(
    "controller_runtime_reconcile_timeouts_total",
    "Reconciliations that exceeded their deadline, per controller.",
    ("controller",),
)
RECONCILE_SECONDS: Final = Histogram(
    "controller_runtime_reconcile_time_seconds",
    "Time per reconciliation, per controller.",
    ("controller",),
    buckets=_RECONCILE_BUCKETS,
)
MAX_CONCURRENT_RECONCILES: Final = Gauge(
    "controller_runtime_max_concurrent_reconciles",
    "Workers per controller.",
    ("controller",),
)
ACTIVE_WORKERS: Final = Gauge(
    "controller_runtime_active_workers",
    "Workers that are busy, per controller.",
    ("controller",),
)

# --- Work queues ---------------------------------------------------------------------------------

_QUEUE_LABELS: Final = ("name", "controller")
_DEPTH = Gauge("workqueue_depth", "Keys that are due.", _QUEUE_LABELS)
_ADDS = Counter("workqueue_adds_total", "Keys that were added.", _QUEUE_LABELS)
_RETRIES = Counter(
    "workqueue_retries_total", "Keys that were added again after an error.", _QUEUE_LABELS
)
_QUEUE_SECONDS = Histogram(
    "workqueue_queue_duration_seconds",
    "Time that a key waits in the queue before it is worked on.",
    _QUEUE_LABELS,
    buckets=_QUEUE_BUCKETS,
)
_WORK_SECONDS = Histogram(
    "workqueue_work_duration_seconds",
    "Time that the work on a key takes.",
    _QUEUE_LABELS,
    buckets=_QUEUE_BUCKETS,
)
_UNFINISHED_SECONDS = Gauge(
    "workqueue_unfinished_work_seconds",
    "Sum of the ages of the work that is under way.",
    _QUEUE_LABELS,
)
_LONGEST_SECONDS = Gauge(
    "workqueue_longest_running_processor_seconds",
    "Age of the oldest work that is under way.",
    _QUEUE_LABELS,
)


class QueueMetrics:
    """The metrics of one work queue. Times are in seconds."""

    def __init__(
        self,
        name: str,
        *,
        depth: Callable[[], int],
        unfinished: Callable[[], float],
        longest: Callable[[], float],
    ) -> None:
        self._adds = _ADDS.labels(name, name)
        self._retries = _RETRIES.labels(name, name)
        self._queue_seconds = _QUEUE_SECONDS.labels(name, name)
        self._work_seconds = _WORK_SECONDS.labels(name, name)
        _DEPTH.labels(name, name).set_function(depth)
        _UNFINISHED_SECONDS.labels(name, name).set_function(unfinished)
        _LONGEST_SECONDS.labels(name, name).set_function(longest)

    def added(self) -> None:
        """A key came in that was not in the queue."""
        self._adds.inc()

    def retried(self) -> None:
        """A key is added again because its work failed."""
        self._retries.inc()

    def taken(self, seconds: float) -> None:
        """A key was taken after this time in the queue."""
        self._queue_seconds.observe(seconds)

    def worked(self, seconds: float) -> None:
        """The work on a key took this long."""
        self._work_seconds.observe(seconds)


# --- Requests to the API server ------------------------------------------------------------------

REST_REQUESTS: Final = Counter(
    "rest_client_requests_total",
    "Requests to the API server by status code, method and host.",
    ("code", "method", "host"),
)
REST_SECONDS: Final = Histogram(
    "rest_client_request_duration_seconds",
    "Time per request to the API server, retries apart.",
    ("verb", "host"),
    buckets=_REQUEST_BUCKETS,
)
REST_RETRIES: Final = Counter(
    "rest_client_request_retries_total",
    "Requests to the API server that were sent again.",
    ("code", "verb", "host"),
)

# --- The operator itself -------------------------------------------------------------------------

BUILD_INFO: Final = Info("capibara_build", "Version of the operator.")
EVENTS: Final = Counter(
    "capibara_kubernetes_events_total",
    "Kubernetes Events by outcome: sent, aggregated, limited, dropped or failed.",
    ("outcome",),
)
WATCH_EVENTS: Final = Counter(
    "capibara_watch_events_total",
    "Watch events that brought news, by resource and type.",
    ("resource", "type"),
)
WATCH_SWEPT: Final = Counter(
    "capibara_watch_missed_changes_total",
    "Changes that the watch did not tell and the periodic list found, by resource.",
    ("resource",),
)
OBJECTS: Final = Gauge(
    "capibara_cached_objects",
    "Objects in memory, by resource.",
    ("resource",),
)
LOOP_LAG: Final = Gauge(
    "capibara_event_loop_lag_seconds",
    "Last measured delay of the event loop.",
)

# --- Endpoints of services -----------------------------------------------------------------------

PROBES: Final = Counter(
    "capibara_endpoint_probes_total",
    "Probes of endpoints by result: Healthy, or the reason of the failure.",
    ("result",),
)
PROBE_SECONDS: Final = Histogram(
    "capibara_endpoint_probe_duration_seconds",
    "Time per probe of an endpoint.",
)
_ENDPOINT_HEALTHY = Gauge(
    "capibara_endpoint_healthy",
    "1 while an endpoint of a service answers as expected, 0 while it fails, absent if unknown.",
    ("namespace", "service", "endpoint"),
)


def set_endpoint(namespace: str, service: str, endpoint: str, *, state: float | None) -> None:
    """Publish the state of an endpoint: 1, 0, or None for unknown."""
    if state is None:
        forget_endpoint(namespace, service, endpoint)
    else:
        _ENDPOINT_HEALTHY.labels(namespace, service, endpoint).set(state)


def forget_endpoint(namespace: str, service: str, endpoint: str) -> None:
    """Publish an endpoint no more."""
    with suppress(KeyError):
        _ENDPOINT_HEALTHY.remove(namespace, service, endpoint)


# --- Providers of sandboxes ----------------------------------------------------------------------

PROVIDER_REQUESTS: Final = Counter(
    "capibara_provider_requests_total",
    "Requests to a provider by operation and code: ok, Cancelled, or the fault.",
    ("provider", "operation", "code"),
)
PROVIDER_REQUEST_SECONDS: Final = Histogram(
    "capibara_provider_request_seconds",
    "Time per request to a provider.",
    ("provider", "operation"),
    buckets=_REQUEST_BUCKETS,
)

# --- Sandbox providers ---------------------------------------------------------------------------

PROVIDER_TESTS: Final = Counter(
    "capibara_provider_connection_tests_total",
    "Connection tests by provider and result: Connected, or the reason of the failure.",
    ("provider", "result"),
)
_PROVIDER_READY = Gauge(
    "capibara_provider_ready",
    "1 while the provider answers and takes the API key, else 0.",
    ("provider",),
)


def set_provider(provider: str, problem: str) -> None:
    """Publish the outcome of a connection test; ``problem`` is empty where it passed."""
    PROVIDER_TESTS.labels(provider, problem or "Connected").inc()
    _PROVIDER_READY.labels(provider).set(0 if problem else 1)


def forget_provider(provider: str) -> None:
    """Publish a provider no more."""
    with suppress(KeyError):
        _PROVIDER_READY.remove(provider)


# --- Runs ----------------------------------------------------------------------------------------

RUNS_FINISHED: Final = Counter(
    "capibara_sandboxrun_finished_total",
    "Runs that ended, by phase and reason.",
    ("phase", "reason"),
)
RUN_STAGE_SECONDS: Final = Histogram(
    "capibara_sandboxrun_stage_duration_seconds",
    "Time per stage of a run: queued, create, upload, execute, collect.",
    ("stage",),
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
RUN_FAULTS: Final = Counter(
    "capibara_sandboxrun_provider_faults_total",
    "Calls to providers that failed while working on runs, by action and fault.",
    ("action", "fault"),
)
RUN_STREAM_RECONNECTS: Final = Counter(
    "capibara_sandboxrun_stream_reconnects_total",
    "How often the connection to a job's log was made again.",
)
RUN_STREAMS: Final = Gauge(
    "capibara_sandboxrun_streams",
    "Jobs whose log is being followed.",
)
SLOTS_HELD: Final = Gauge(
    "capibara_provider_slots_held",
    "Runs that have, or are about to have, a sandbox, by provider.",
    ("provider",),
)
SLOTS_WAITING: Final = Gauge(
    "capibara_provider_slots_waiting",
    "Runs that wait for a sandbox, by provider.",
    ("provider",),
)
SANDBOXES_REAPED: Final = Counter(
    "capibara_provider_sandboxes_reaped_total",
    "Leftover sandboxes that the orphan sweep destroyed, by provider.",
    ("provider",),
)
RUNS_EXPIRED: Final = Counter(
    "capibara_sandboxrun_expired_total",
    "Runs that were deleted because their time to live was over.",
)
