"""What users and accidents do to services and runs on a real node."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest

from support.devcluster import eventually

pytestmark = [pytest.mark.e2e]
_SYSTEM = "capibara-system"


def condition(obj: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions = obj.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


def reason(demo: Any, name: str) -> str:
    return str(condition(demo.get("capibaraservice", name), "Ready").get("reason"))


def provider_metric(demo: Any, name: str) -> float:
    path = "/api/v1/namespaces/capibara-sandboxd/services/capibara-sandboxd:3000/proxy/metrics"
    for line in demo.cluster.kubectl("get", "--raw", path).splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise AssertionError(f"sandboxd has no metric {name}")


def test_a_broken_endpoint_degrades_and_mends(demo: Any) -> None:
    service = demo.get("capibaraservice", "broken-endpoint")
    assert condition(service, "WorkloadAvailable")["status"] == "True"
    assert condition(service, "Ready")["reason"] == "EndpointsDegraded"
    assert "nothing" in condition(service, "Ready")["message"]
    mended = [
        {"name": "health", "path": "/health"},
        {"name": "nothing", "path": "/api/v1/query", "expect": {"statuses": [200]}},
    ]
    patch = json.dumps({"spec": {"endpoints": mended}})
    demo.kubectl("patch", "capibaraservice", "broken-endpoint", "--type=merge", "-p", patch)
    eventually(lambda: reason(demo, "broken-endpoint") == "Running", "it is Running", 60)
    demo.kubectl("delete", "capibaraservice", "broken-endpoint")
    eventually(
        lambda: "broken-endpoint" not in demo.kubectl("get", "deployments"),
        "its Deployment is collected",
        60,
    )


def test_stop_start_and_restart(demo: Any) -> None:
    def pods() -> set[str]:
        found = demo.get("pods", "-l", "capibara6.dev/service=frontend")["items"]
        return {
            pod["metadata"]["uid"] for pod in found if "deletionTimestamp" not in pod["metadata"]
        }

    def suspend(on: bool) -> None:
        patch = json.dumps({"spec": {"suspend": on}})
        demo.kubectl("patch", "capibaraservice", "frontend", "--type=merge", "-p", patch)

    suspend(True)
    eventually(lambda: reason(demo, "frontend") == "Stopped" and not pods(), "it is stopped", 60)
    assert condition(demo.get("capibaraservice", "frontend"), "Suspended")["status"] == "True"
    suspend(False)
    eventually(lambda: reason(demo, "frontend") == "Running", "it runs again", 60)
    before = pods()
    demo.kubectl(
        *("annotate", "capibaraservice", "frontend", "--overwrite"),
        f"kubectl.kubernetes.io/restartedAt=2026-01-01T00:00:{int(time.time()) % 60:02}Z",
    )
    eventually(
        lambda: pods().isdisjoint(before) and reason(demo, "frontend") == "Running",
        "other pods run",
        60,
    )


def test_a_service_whose_image_is_missing_says_so(demo: Any) -> None:
    demo.apply(
        {
            "apiVersion": "capibara6.dev/v1alpha1",
            "kind": "CapibaraService",
            "metadata": {"name": "no-image"},
            "spec": {
                "image": "localhost/capibara6/nothing:dev",
                "imagePullPolicy": "Never",
                "ports": [{"name": "http", "port": 8000}],
            },
        }
    )
    eventually(
        lambda: (
            "ErrImageNeverPull"
            in condition(demo.get("capibaraservice", "no-image"), "Ready").get("message", "")
        ),
        "the message names the kubelet's reason",
        60,
    )
    demo.kubectl("delete", "capibaraservice", "no-image")


def test_killing_the_operator_in_the_middle_of_a_run_changes_nothing(demo: Any) -> None:
    name = f"survivor-{uuid.uuid4().hex[:6]}"
    created_before = provider_metric(demo, "capibara_sandboxd_create_seconds_count")
    code = "import time\nfor n in range(12):\n    print('line', n, flush=True)\n    time.sleep(1)\n"
    demo.apply(
        {
            "apiVersion": "capibara6.dev/v1alpha1",
            "kind": "SandboxRun",
            "metadata": {"name": name},
            "spec": {"code": code, "taskType": "QuickScript"},
        }
    )
    eventually(
        lambda: demo.get("sandboxrun", name).get("status", {}).get("phase") == "Running",
        "it is Running",
        60,
    )
    sandbox = demo.get("sandboxrun", name)["status"]["sandboxID"]
    demo.cluster.kubectl(
        *("delete", "pods", "-n", _SYSTEM, "--all", "--grace-period=0", "--force", "--wait=false")
    )
    eventually(
        lambda: demo.get("sandboxrun", name)["status"]["phase"] in {"Succeeded", "Failed"},
        "it has ended",
        120,
    )
    status = demo.get("sandboxrun", name)["status"]
    assert (status["phase"], status["exitCode"]) == ("Succeeded", 0), status
    assert status["result"]["stdout"]["tail"].splitlines() == [f"line {n}" for n in range(12)]
    assert [attempt["sandboxID"] for attempt in status["attempts"]] == [sandbox]
    assert provider_metric(demo, "capibara_sandboxd_create_seconds_count") == created_before + 1
    assert provider_metric(demo, "capibara_sandboxd_sandboxes") == 0
    eventually(
        lambda: "1/1" in demo.cluster.kubectl("get", "deployments", "-n", _SYSTEM),
        "the operator is back",
        60,
    )
