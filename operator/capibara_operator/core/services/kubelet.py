"""The kubelet's probes of a service's container."""

from typing import Final

from capibara_operator.api.service import CapibaraServiceSpec, ServiceEndpoint
from capibara_operator.core.services.model import Object
from capibara_operator.core.services.probing import port_number

_STARTUP_PERIOD_SECONDS: Final = 1
_TCP_PERIOD_SECONDS: Final = 5
_TCP_TIMEOUT_SECONDS: Final = 2
_FAILURE_THRESHOLD: Final = 3


def kubelet_probes(spec: CapibaraServiceSpec) -> dict[str, Object]:
    """Start-up, liveness and readiness probes by the name of their field.

    Without a readiness endpoint the first port has to accept connections. Without a liveness
    endpoint there is no liveness probe: a guess would restart what merely is busy. The start-up
    probe asks every second, so that a quick service is ready at once, and gives a slow one the
    progress deadline.
    """
    ready = _named(spec, spec.readiness_endpoint)
    live = _named(spec, spec.liveness_endpoint)
    start = _named(spec, spec.startup_endpoint) or live or ready
    probes = {
        "startupProbe": _startup(spec, start),
        "readinessProbe": _http(spec, ready) if ready else _tcp(spec),
    }
    if live:
        probes["livenessProbe"] = _http(spec, live)
    return probes


def _named(spec: CapibaraServiceSpec, name: str | None) -> ServiceEndpoint | None:
    return next((each for each in spec.endpoints if each.name == name), None)


def _startup(spec: CapibaraServiceSpec, endpoint: ServiceEndpoint | None) -> Object:
    probe = _http(spec, endpoint) if endpoint else _tcp(spec)
    return probe | {
        "periodSeconds": _STARTUP_PERIOD_SECONDS,
        "failureThreshold": max(spec.progress_deadline_seconds, _FAILURE_THRESHOLD),
    }


def _http(spec: CapibaraServiceSpec, endpoint: ServiceEndpoint) -> Object:
    return {
        "httpGet": {
            "path": endpoint.path,
            "port": port_number(spec, endpoint.port),
            "scheme": "HTTP",
        },
        "periodSeconds": endpoint.period_seconds,
        "timeoutSeconds": endpoint.timeout_seconds,
        "failureThreshold": endpoint.failure_threshold,
    }


def _tcp(spec: CapibaraServiceSpec) -> Object:
    return {
        "tcpSocket": {"port": spec.ports[0].port},
        "periodSeconds": _TCP_PERIOD_SECONDS,
        "timeoutSeconds": _TCP_TIMEOUT_SECONDS,
        "failureThreshold": _FAILURE_THRESHOLD,
    }
