"""Builders of services and of what is seen around them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from capibara_operator.core.services.children import desired_deployment, desired_service
from capibara_operator.core.services.model import Service

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
_MISSING: Any = object()


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def make_service() -> Callable[..., Service]:
    """``make_service(endpoints=[...], status={...}, restart="...", generation=2)``."""

    def make(
        *,
        name: str = "backend",
        generation: int = 1,
        restart: str = "",
        status: dict[str, Any] | None = None,
        **spec: Any,
    ) -> Service:
        annotations = {"kubectl.kubernetes.io/restartedAt": restart} if restart else {}
        return Service.parse(
            {
                "metadata": {
                    "name": name,
                    "namespace": "shop",
                    "uid": "uid-1",
                    "generation": generation,
                    "annotations": annotations,
                },
                "spec": {
                    "image": "backend:dev",
                    "ports": [{"name": "http", "port": 8000}],
                    **spec,
                },
                "status": status or {},
            }
        )

    return make


@pytest.fixture
def make_deployment() -> Callable[..., dict[str, Any]]:
    """The Deployment of a service, rolled out with all pods available unless told otherwise."""

    def make(service: Service, *, restarted_at: str = "", **changes: Any) -> dict[str, Any]:
        wanted = changes.pop("wanted", service.spec.replicas)
        available = changes.pop("available", wanted)
        reason = changes.pop("progressing", "NewReplicaSetAvailable")
        deployment = desired_deployment(service, restarted_at=restarted_at)
        metadata = deployment["metadata"] | {
            "uid": "uid-deployment",
            "generation": 3,
            "resourceVersion": "7",
            "annotations": deployment["metadata"]["annotations"]
            | {"deployment.kubernetes.io/revision": "2"},
        }
        status = {
            "observedGeneration": changes.pop("observed", 3),
            "replicas": changes.pop("replicas", wanted),
            "updatedReplicas": changes.pop("updated", wanted),
            "readyReplicas": available,
            "availableReplicas": available,
            "conditions": [
                {"type": "Available", "status": str(available >= wanted > 0)},
                {
                    "type": "Progressing",
                    "status": str(reason != "ProgressDeadlineExceeded"),
                    "reason": reason,
                    "lastUpdateTime": "2026-05-04T11:00:00Z",
                },
                *changes.pop("conditions", []),
            ],
        }
        assert not changes, changes
        spec = deployment["spec"] | {"replicas": wanted}
        return deployment | {"metadata": metadata, "spec": spec, "status": status}

    return make


@pytest.fixture
def make_front() -> Callable[..., dict[str, Any]]:
    """The Service of a service, as the API server has it."""

    def make(service: Service) -> dict[str, Any]:
        front = desired_service(service)
        metadata = front["metadata"] | {"uid": "uid-front", "resourceVersion": "8"}
        return front | {"metadata": metadata, "spec": front["spec"] | {"clusterIP": "10.96.0.9"}}

    return make
