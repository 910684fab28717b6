"""The demo's services: three that start in order, and one with an endpoint broken on purpose."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from capibara_devcluster.demo.commands import Cluster
from capibara_devcluster.demo.story import Story

IN_ORDER = ("integrated-server", "backend", "frontend")
BROKEN_SERVICE = "broken-endpoint"
_READY_TIMEOUT_SECONDS = 90


def start(cluster: Cluster, story: Story, manifests: Path) -> None:
    """Apply the three services and wait until all are Ready."""
    cluster.kubectl("apply", "--server-side", "-k", str(manifests))

    def not_ready() -> str | None:
        services = {s["metadata"]["name"]: s for s in cluster.get("capibaraservices")["items"]}
        left = [
            f"{name}: {_reason(services.get(name, {}))}"
            for name in IN_ORDER
            if _condition(services.get(name, {}), "Ready").get("status") != "True"
        ]
        return ", ".join(left) or None

    story.wait("the three services are Ready", not_ready, seconds=_READY_TIMEOUT_SECONDS)
    story.show("kubectl get capibaraservices", cluster.kubectl("get", "capibaraservices"))
    services = {s["metadata"]["name"]: s for s in cluster.get("capibaraservices")["items"]}
    for name in IN_ORDER:
        story.check(
            _condition(services[name], "Ready").get("status") == "True",
            f"service {name} is Ready, endpoints {services[name]['status']['endpointSummary']}",
        )


def restart(cluster: Cluster, names: tuple[str, ...]) -> None:
    """Ask for a restart of services, as ``kubectl rollout restart`` does for Deployments."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for name in names:
        cluster.kubectl(
            "annotate",
            "capibaraservice",
            name,
            "--overwrite",
            f"kubectl.kubernetes.io/restartedAt={now}",
        )


def show_broken(cluster: Cluster, story: Story, manifest: Path) -> None:
    """Apply a service whose process runs and whose endpoint does not answer as it should."""
    cluster.kubectl("delete", "capibaraservice", "--ignore-not-found", BROKEN_SERVICE)
    cluster.kubectl("apply", "--server-side", "-f", str(manifest))

    def not_degraded() -> str | None:
        service = cluster.get("capibaraservice", BROKEN_SERVICE)
        degraded = _condition(service, "Ready").get("reason") == "EndpointsDegraded"
        known = all(e["state"] != "Unknown" for e in service["status"].get("endpoints", []))
        return None if degraded and known else _reason(service)

    story.wait("the broken endpoint is noticed", not_degraded, seconds=_READY_TIMEOUT_SECONDS)
    story.show(
        f"kubectl get capibaraservice {BROKEN_SERVICE}",
        cluster.kubectl("get", "capibaraservice", BROKEN_SERVICE),
    )
    service = cluster.get("capibaraservice", BROKEN_SERVICE)
    message = _condition(service, "Ready")["message"]
    story.say(message)
    failing = [e["name"] for e in service["status"]["endpoints"] if e["state"] != "Healthy"]
    runs = _condition(service, "WorkloadAvailable").get("status") == "True"
    story.check(
        runs and failing == ["nothing"] and "nothing" in message,
        f"service {BROKEN_SERVICE}: the process runs, and the endpoint {failing} is named",
    )


def _condition(service: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions = service.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


def _reason(service: dict[str, Any]) -> str:
    return str(_condition(service, "Ready").get("reason", "not seen yet"))
