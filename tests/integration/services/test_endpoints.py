"""Endpoints, dependencies and failures of services on a real API server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

FAST = {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 2}
HEALTH = {"name": "health", "path": "/health", **FAST}
QUERY = {"name": "query", "path": "/api/v1/query", **FAST}


def test_a_broken_endpoint_is_named_and_heals(
    api: Any, kubelet: Any, web: Any, operator_for: Callable[..., Any]
) -> None:
    server = web({"/health": 200, "/api/v1/query": 500})
    operator = operator_for(backend=server)
    api.apply("backend", endpoints=[HEALTH, QUERY])
    message = api.wait("backend", "Ready", "False", "EndpointsDegraded")
    assert message == "1/2 endpoints failing: query (GET /api/v1/query: HTTP500)"
    status = api.status("backend")
    assert (status["phase"], status["endpointSummary"]) == ("Degraded", "1/2")
    assert api.condition("backend", "WorkloadAvailable")[0] == "True", "the process runs"
    types = [each["type"] for each in status["conditions"]]
    assert not {"Reconciling", "Stalled"} & set(types), "Degraded is Ready=False alone"
    (health, query) = status["endpoints"]
    assert health["state"] == "Healthy"
    assert (query["state"], query["reason"], query["consecutiveFailures"]) == (
        "Failing",
        "HTTP500",
        2,
    )
    columns = api.kubectl("get", "capibaraservices").splitlines()[1].split()
    assert columns[1:4] == ["False", "EndpointsDegraded", "1/2"]

    version = api.service("backend")["metadata"]["resourceVersion"]
    time.sleep(3)
    assert api.service("backend")["metadata"]["resourceVersion"] == version, "failing on is no news"
    label = f'namespace="{api.namespace}",service="backend"'
    metric = f'capibara_endpoint_healthy{{endpoint="query",{label}}} 0.0'
    assert metric in operator.get("/metrics")[1]

    server.answers["/api/v1/query"] = 200
    api.wait("backend", "Ready", "True", "Running")
    events = api.events("backend")
    assert ("Warning", "EndpointDegraded") in events
    assert ("Normal", "EndpointRecovered") in events


def test_an_optional_endpoint_only_reports(
    api: Any, kubelet: Any, web: Any, operator_for: Callable[..., Any]
) -> None:
    operator_for(backend=web({"/health": 200}))
    api.apply("backend", endpoints=[HEALTH, {**QUERY, "required": False}])
    api.wait("backend", "EndpointsHealthy", "True", "OptionalEndpointsFailing")
    api.wait("backend", "Ready", "True", "Running")
    assert api.status("backend")["endpointSummary"] == "1/2"


def test_a_loopback_address_is_not_probed_and_unreached_is_unknown(
    api: Any, kubelet: Any, web: Any, operator_for: Callable[..., Any]
) -> None:
    kubelet.ip = "127.0.0.1"
    server = web({"/health": 200})
    operator_for()  # no overrides
    ports = [{"name": "http", "port": server.port}]
    api.apply("backend", ports=ports, endpoints=[HEALTH])
    api.wait("backend", "Ready", "Unknown", "NothingReached")
    assert api.condition("backend", "Reconciling")[0] == "True"
    assert api.condition("backend", "WorkloadAvailable")[0] == "True"
    assert api.status("backend")["endpoints"][0]["state"] == "Unknown"
    assert ("Warning", "EndpointDegraded") not in api.events("backend")
    assert server.requests == []


def test_services_start_in_the_order_of_their_dependencies(
    api: Any, kubelet: Any, web: Any, operator_for: Callable[..., Any]
) -> None:
    model = web({"/health": 503})
    operator_for(
        integrated_server=model, backend=web({"/health": 200}), frontend=web({"/health": 200})
    )
    api.apply("frontend", endpoints=[HEALTH], dependsOn=[{"name": "backend"}])
    message = api.wait("frontend", "Ready", "False", "DependencyNotFound")
    assert "backend does not exist" in message
    api.apply("backend", endpoints=[HEALTH], dependsOn=[{"name": "integrated-server"}])
    api.apply("integrated-server", endpoints=[HEALTH])
    api.wait("integrated-server", "Ready", "False", "EndpointsDegraded")
    message = api.wait("backend", "Ready", "False", "DependencyNotReady")
    assert "integrated-server is not healthy at all its endpoints yet" in message
    time.sleep(1)
    assert api.deployment("backend") is None
    assert api.deployment("frontend") is None

    model.answers["/health"] = 200
    api.wait("frontend", "Ready", "True", "Running")
    started = [
        api.deployment(name).metadata.creation_timestamp
        for name in ("integrated-server", "backend", "frontend")
    ]
    assert started == sorted(started)

    model.answers["/health"] = 503
    api.wait("integrated-server", "Ready", "False", "EndpointsDegraded")
    api.wait("backend", "DependenciesReady", "False", "DependencyNotReady")
    time.sleep(1)
    assert api.deployment("backend").spec.replicas == 1, "a flap stops nobody"
    assert api.condition("backend", "Ready")[0] == "True"


def test_a_cycle_is_refused_with_its_path_and_ends(
    api: Any, kubelet: Any, web: Any, operator_for: Callable[..., Any]
) -> None:
    good = web({"/health": 200})
    operator_for(a=good, b=good, c=good)
    api.apply("a", endpoints=[HEALTH], dependsOn=[{"name": "b"}])
    api.apply("b", endpoints=[HEALTH], dependsOn=[{"name": "c"}])
    api.apply("c", endpoints=[HEALTH], dependsOn=[{"name": "a"}])
    for name, path in {"a": "a -> b -> c -> a", "b": "b -> c -> a -> b"}.items():
        assert path in api.wait(name, "Stalled", "True", "DependencyCycle")
        assert api.deployment(name) is None
    assert ("Warning", "DependencyCycle") in api.events("a")
    api.apply("c", endpoints=[HEALTH], dependsOn=[])
    for name in ("c", "b", "a"):
        api.wait(name, "Ready", "True", "Running")


def test_what_keeps_a_pod_from_working_is_in_the_message(
    api: Any, kubelet: Any, operator_for: Callable[..., Any]
) -> None:
    kubelet.behaviour |= {"crashing": "crash", "imageless": "no-image", "slow": "pending"}
    operator_for()
    for name in ("crashing", "imageless", "slow"):
        api.apply(name, progressDeadlineSeconds=600 if name != "slow" else 3)
    _contains(api, "crashing", "CrashLoopBackOff (exit code 3)")
    _contains(api, "imageless", "ErrImageNeverPull (image 'web:1')")
    message = api.wait("slow", "Stalled", "True", "ProgressDeadlineExceeded")
    assert "no progress for 3 s: 0/1 pods are available" in message
    kubelet.behaviour["slow"] = "ready"
    api.wait("slow", "Ready", "True", "Running")


def test_somebody_elses_object_of_the_same_name_is_not_taken(
    api: Any, kubelet: Any, operator_for: Callable[..., Any]
) -> None:
    api.kubectl("create", "service", "clusterip", "backend", "--tcp=80:80")
    before = api.get("backend", "service")
    operator_for()
    api.apply("backend")
    message = api.wait("backend", "Stalled", "True", "NameTaken")
    assert "does not belong to this service; delete it, or rename backend" in message
    assert (
        api.get("backend", "service")["metadata"]["resourceVersion"]
        == (before["metadata"]["resourceVersion"])
    )


def test_what_the_api_server_refuses_is_said(
    api: Any, kubelet: Any, operator_for: Callable[..., Any]
) -> None:
    operator_for()
    # The CRD's schema cannot know that a resource name has to be qualified.
    api.apply("backend", resources={"limits": {"not a resource": "1"}})
    message = api.wait("backend", "Stalled", "True", "InvalidSpec")
    assert "not a resource" in message
    api.apply("backend", resources={"limits": {"cpu": "1000m"}})
    api.wait("backend", "Ready", "True", "Running")
    generation = api.deployment("backend").metadata.generation
    time.sleep(1)
    assert api.deployment("backend").metadata.generation == generation


def _contains(api: Any, name: str, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in api.condition(name, "Ready")[2]:
        assert time.monotonic() < deadline, (text, api.status(name))
        time.sleep(0.1)
