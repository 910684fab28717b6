"""Services on a real API server and controller-manager: start, drift, stop, restart, delete."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

OPERATOR = "capibara6.dev/operator"
HEALTH = {"name": "health", "path": "/health", "periodSeconds": 1, "timeoutSeconds": 1}


@pytest.fixture
def backend(api: Any, kubelet: Any, web: Any, operator_for: Callable[..., Any]) -> Any:
    """The operator, and a service of one pod that is Ready."""
    operator = operator_for(backend=web({"/health": 200}))
    api.apply("backend", endpoints=[HEALTH])
    api.wait("backend", "Ready", "True", "Running")
    return operator


def test_starts_and_says_so(backend: Any, api: Any) -> None:
    status = api.status("backend")
    assert (status["phase"], status["endpointSummary"]) == ("Running", "1/1")
    assert (status["replicaSummary"], status["replicas"]) == ("1/1", 1)
    assert status["selector"] == "capibara6.dev/service=backend"
    assert status["url"] == f"http://backend.{api.namespace}.svc:8000"
    assert status["revision"] == "1"
    front = api.core.read_namespaced_service("backend", api.namespace)
    assert front.spec.cluster_ip
    assert front.spec.selector == {"capibara6.dev/service": "backend"}
    assert ("Normal", "Started") in api.events("backend")
    columns = api.kubectl("get", "capibaraservices").splitlines()[1].split()
    assert columns[:5] == ["backend", "True", "Running", "1/1", "1/1"]


def test_nothing_is_written_at_rest(backend: Any, api: Any, crds_installed: Any) -> None:
    time.sleep(1)
    before = _versions(api)
    writes = _operator_writes(backend)
    time.sleep(4)  # four probe periods
    assert _versions(api) == before
    assert _operator_writes(backend) == writes
    backend.restart()
    time.sleep(3)
    assert _versions(api) == before, "a restart of the operator is no news"


def test_others_fields_stay_and_ours_are_repaired(backend: Any, api: Any) -> None:
    api.kubectl("label", "deployment", "backend", "team=blue")
    api.kubectl("annotate", "service", "backend", "note=keep")
    api.kubectl("set", "image", "deployment/backend", "backend=evil:1")
    api.kubectl("label", "service", "backend", "app.kubernetes.io/part-of=other", "--overwrite")
    api.kubectl("scale", "deployment", "backend", "--replicas=3")

    def repaired() -> bool:
        found, front = api.deployment("backend"), api.get("backend", "service")
        return (
            found.spec.template.spec.containers[0].image == "web:1"
            and found.spec.replicas == 1
            and front["metadata"]["labels"]["app.kubernetes.io/part-of"] == "capibara6"
        )

    _eventually(repaired, "the drift is repaired")
    api.wait("backend", "Ready", "True")
    assert api.deployment("backend").metadata.labels["team"] == "blue"
    assert api.get("backend", "service")["metadata"]["annotations"]["note"] == "keep"


def test_a_field_that_the_spec_gives_up_goes(backend: Any, api: Any) -> None:
    api.apply("backend", endpoints=[HEALTH], env=[{"name": "MODE", "value": "fast"}])
    _eventually(lambda: _env(api) == {"MODE": "fast"}, "the variable is set")
    api.apply("backend", endpoints=[HEALTH])
    _eventually(lambda: _env(api) == {}, "the variable is gone")


def test_stops_and_resumes_with_its_number_of_pods(backend: Any, api: Any) -> None:
    api.kubectl("scale", "capibaraservice", "backend", "--replicas=2")
    api.wait("backend", "Ready", "True", "Running")
    assert api.status("backend")["replicaSummary"] == "2/2"
    _patch(api, '{"spec": {"suspend": true}}')
    api.wait("backend", "Suspended", "True", "Stopped")
    assert api.condition("backend", "Ready")[:2] == ("True", "Stopped"), "so that waiters end"
    assert api.status("backend")["phase"] == "Stopped"
    assert api.pods("backend") == []
    assert api.deployment("backend").spec.replicas == 0
    _patch(api, '{"spec": {"suspend": false}}')
    api.wait("backend", "Ready", "True", "Running")
    assert len(api.pods("backend")) == 2
    reasons = [reason for _, reason in api.events("backend")]
    assert "Stopped" in reasons


def test_the_number_of_pods_survives_an_apply_after_a_stop(backend: Any, api: Any) -> None:
    _patch(api, '{"spec": {"suspend": true}}')
    api.wait("backend", "Suspended", "True")
    _patch(api, '{"spec": {"image": "web:2"}}')
    _eventually(
        lambda: api.deployment("backend").spec.template.spec.containers[0].image == "web:2",
        "the image changes while it is stopped",
    )
    time.sleep(1)
    assert api.deployment("backend").spec.replicas == 0, "an apply must not start it"
    assert api.pods("backend") == []


def test_a_restart_is_handled_once(backend: Any, api: Any) -> None:
    (first,) = api.pods("backend")
    stamp = "2026-05-04T12:00:00Z"
    api.kubectl(
        "annotate", "capibaraservice", "backend", f"kubectl.kubernetes.io/restartedAt={stamp}"
    )
    _eventually(lambda: api.status("backend").get("lastHandledRestartAt") == stamp, "it is handled")
    api.wait("backend", "Ready", "True")
    _eventually(lambda: len(api.pods("backend")) == 1, "the old pod is gone")
    (second,) = api.pods("backend")
    assert second.metadata.name != first.metadata.name
    generation = api.deployment("backend").metadata.generation
    api.kubectl("annotate", "capibaraservice", "backend", "kubectl.kubernetes.io/restartedAt-")
    backend.restart()
    time.sleep(2)
    assert api.deployment("backend").metadata.generation == generation, "once means once"
    assert [reason for _, reason in api.events("backend")].count("Restarted") == 1


def test_a_restart_of_the_deployment_by_kubectl_is_left_alone(backend: Any, api: Any) -> None:
    api.kubectl("annotate", "capibaraservice", "backend", "kubectl.kubernetes.io/restartedAt=T1")
    _eventually(lambda: api.status("backend").get("lastHandledRestartAt") == "T1", "T1 handled")
    api.wait("backend", "Ready", "True")
    api.kubectl("rollout", "restart", "deployment/backend")
    time.sleep(2)
    annotations = api.deployment("backend").spec.template.metadata.annotations
    assert annotations["kubectl.kubernetes.io/restartedAt"] != "T1"
    api.wait("backend", "Ready", "True")


def test_children_go_with_the_service(backend: Any, api: Any) -> None:
    api.kubectl("delete", "capibaraservice", "backend")
    _eventually(
        lambda: not api.deployment("backend") and not api.get("backend", "service"),
        "the garbage collector deletes the children",
    )
    time.sleep(0.5)
    status, page = backend.get("/metrics")
    assert status == 200
    assert f'namespace="{api.namespace}",service="backend"' not in page


def test_deleted_children_come_back(backend: Any, api: Any) -> None:
    api.kubectl("delete", "deployment", "backend")
    api.kubectl("delete", "service", "backend")
    _eventually(
        lambda: api.deployment("backend") and api.get("backend", "service"), "they are back"
    )
    api.wait("backend", "Ready", "True", "Running")


def _versions(api: Any) -> list[tuple[str, str, str]]:
    """Kind, name and version of the service, its children, and the Events of the operator."""
    listed = api.kubectl(
        "get", "capibaraservices,deployments,services,events.events.k8s.io", "-o", "json"
    )
    return sorted(
        (each["kind"], each["metadata"]["name"], each["metadata"]["resourceVersion"])
        for each in json.loads(listed)["items"]
        if each.get("reportingController", OPERATOR) == OPERATOR
    )


def _operator_writes(operator: Any) -> float:
    _, page = operator.get("/metrics")
    lines = [line for line in page.splitlines() if line.startswith("rest_client_requests_total{")]
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if 'method="PATCH"' in line or 'method="POST"' in line
    )


def _env(api: Any) -> dict[str, str]:
    env = api.deployment("backend").spec.template.spec.containers[0].env or []
    return {each.name: each.value for each in env}


def _patch(api: Any, body: str) -> None:
    api.kubectl("patch", "capibaraservice", "backend", "--type=merge", "-p", body)


def _eventually(check: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline, f"not within 30 s: {what}"
        time.sleep(0.1)
