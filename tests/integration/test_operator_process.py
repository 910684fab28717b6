"""The operator as a process: start, stop, probes, metrics, and that it writes nothing at rest."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

EXPECTED_METRICS = {
    "controller_runtime_active_workers",
    "controller_runtime_max_concurrent_reconciles",
    "controller_runtime_reconcile",
    "controller_runtime_reconcile_errors",
    "controller_runtime_reconcile_panics",
    "controller_runtime_reconcile_time_seconds",
    "controller_runtime_reconcile_timeouts",
    "controller_runtime_terminal_reconcile_errors",
    "process_cpu_seconds",
    "process_resident_memory_bytes",
    "rest_client_request_duration_seconds",
    "rest_client_requests",
    "workqueue_adds",
    "workqueue_depth",
    "workqueue_longest_running_processor_seconds",
    "workqueue_queue_duration_seconds",
    "workqueue_retries",
    "workqueue_unfinished_work_seconds",
    "workqueue_work_duration_seconds",
}


def test_no_copy_of_a_key_is_left_in_the_temporary_folder(
    operator_process: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    operator_process(TMPDIR=str(folder)).start()
    assert list(folder.iterdir()) == []


def test_starts_serves_its_pages_and_stops_with_zero(operator_process: Any) -> None:
    operator = operator_process().start()
    assert operator.get("/healthz") == (200, "ok\n")
    assert operator.get("/readyz") == (200, "ok\n")
    status, page = operator.get("/metrics")
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(page)}
    assert families.keys() >= EXPECTED_METRICS
    requests = families["rest_client_requests"].samples
    assert {"code", "method", "host"} == set(requests[0].labels)
    assert any(sample.labels["code"] == "200" and sample.value > 0 for sample in requests)
    assert not any(name.endswith("_created") for name in families)

    started = time.monotonic()
    assert operator.stop() == 0
    assert time.monotonic() - started < 20
    levels = {line["level"] for line in operator.log_lines()}
    assert levels == {"info"}, operator.log()


def test_log_lines_are_json_with_the_agreed_keys(operator_process: Any) -> None:
    operator = operator_process().start()
    operator.stop()
    lines = operator.log().splitlines()
    for line in lines:
        assert {"ts", "level", "logger", "msg"} <= json.loads(line).keys()
    assert json.loads(lines[-1])["msg"] == "stopped"


def test_wrong_settings_end_with_code_2_and_name_the_variable(operator_process: Any) -> None:
    operator = operator_process(
        CAPIBARA_RUN_WORKERS="many", CAPIBARA_METRICS_BIND_ADDRESS="nowhere"
    )
    with pytest.raises(AssertionError, match="exited with 2"):
        operator.start()
    log = operator.log()
    assert "CAPIBARA_RUN_WORKERS: " in log
    assert "CAPIBARA_METRICS_BIND_ADDRESS: " in log
    assert "many" in log
    assert "Traceback" not in log


def test_a_missing_kubeconfig_is_one_clear_line(operator_process: Any, tmp_path: Any) -> None:
    operator = operator_process(KUBECONFIG=str(tmp_path / "absent"))
    with pytest.raises(AssertionError, match="exited with 1"):
        operator.start(seconds=20)
        operator.wait_ready(seconds=20)
    errors = [line for line in operator.log_lines() if line["level"] == "error"]
    assert len(errors) == 1
    assert "absent does not exist" in errors[0]["error"]
    assert "KUBECONFIG" in errors[0]["error"]
    assert "stacktrace" not in errors[0]


def test_missing_permissions_keep_it_unready_and_are_named(
    operator_process: Any, crds_installed: Any, tmp_path: Any, namespace: str
) -> None:
    kubeconfig = powerless(crds_installed, namespace, tmp_path)
    operator = operator_process(
        KUBECONFIG=str(kubeconfig), CAPIBARA_CLUSTER_ID="known", CAPIBARA_LOG_FORMAT="json"
    ).start(wait_ready=False)
    deadline = time.monotonic() + 20
    text = ""
    while time.monotonic() < deadline and "sandboxruns is missing: 403" not in text:
        time.sleep(0.1)
        status, text = operator.get("/readyz")
        assert status in {0, 503}
    assert "the list of sandboxruns is missing: 403 Forbidden: " in text
    assert "ClusterRole" in text
    assert operator.get("/healthz")[0] == 200
    assert operator.stop() == 0


def test_at_rest_it_writes_nothing(
    operator_process: Any, crds_installed: Any, namespace: str, operator_namespace: str
) -> None:
    manifests = json.dumps({"kind": "List", "apiVersion": "v1", "items": objects(namespace)})
    catalogue = json.dumps(TEMPLATE | {"metadata": {"name": "t", "namespace": operator_namespace}})
    operator = operator_process().start()
    crds_installed.kubectl("apply", "-f", "-", input=manifests)
    crds_installed.kubectl("apply", "-f", "-", input=catalogue)
    try:
        assert until_quiet(crds_installed, namespace) >= 4, "statuses and children were written"
        before = len(writes(crds_installed, namespace))
        time.sleep(12)  # longer than the period in which a failing provider is tested again
        assert writes(crds_installed, namespace)[before:] == []
        operator.restart()
        time.sleep(5)
        assert writes(crds_installed, namespace)[before:] == [], "nor after a restart"
    finally:
        crds_installed.kubectl("delete", "sandboxprovider", namespace)


def test_deletions_while_it_is_down_are_noticed(
    operator_process: Any, crds_installed: Any, namespace: str
) -> None:
    service, provider = objects(namespace)
    crds_installed.kubectl("apply", "-f", "-", input=json.dumps(service))
    operator = operator_process().start()
    assert cached(operator, "capibaraservices") == 1
    operator.kill9()
    crds_installed.kubectl("delete", "capibaraservice", "web", f"-n{namespace}")
    operator.start()
    assert cached(operator, "capibaraservices") == 0
    assert provider["kind"] == "SandboxProvider"


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.3])
def test_a_signal_at_any_moment_of_the_start_ends_it_with_zero(
    operator_process: Any, seconds: float
) -> None:
    operator = operator_process().start(wait_ready=False)
    time.sleep(seconds)
    assert operator.stop() == 0, operator.log()


def test_a_signal_while_it_waits_for_permissions_ends_it(
    operator_process: Any, crds_installed: Any, tmp_path: Any, namespace: str
) -> None:
    kubeconfig = powerless(crds_installed, namespace, tmp_path)
    operator = operator_process(KUBECONFIG=str(kubeconfig)).start(wait_ready=False)
    assert operator.stop(seconds=10) == 0


def test_after_kill_9_it_starts_again(operator_process: Any) -> None:
    operator = operator_process().start()
    operator.kill9()
    assert operator.get("/readyz")[0] == 0
    operator.start()
    assert operator.get("/readyz") == (200, "ok\n")
    assert operator.stop() == 0


def powerless(cluster: Any, namespace: str, folder: Any) -> Any:
    """A kubeconfig of a service account that may do nothing."""
    token = cluster.kubectl("create", "token", "default", f"--namespace={namespace}").stdout.strip()
    config = json.loads(
        cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json").stdout
    )
    config["users"] = [{"name": "powerless", "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = "powerless"
    path = folder / "powerless.kubeconfig"
    path.write_text(json.dumps(config))
    return path


TEMPLATE: dict[str, Any] = {
    "apiVersion": "capibara6.dev/v1alpha1",
    "kind": "SandboxTemplate",
    "spec": {"templateID": "default"},
}


def objects(namespace: str) -> list[dict[str, Any]]:
    """A service, and a provider that does not answer."""
    service = {
        "apiVersion": "capibara6.dev/v1alpha1",
        "kind": "CapibaraService",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "image": "example.invalid/web:1",
            "ports": [{"name": "http", "port": 8000}],
            "endpoints": [{"name": "health", "path": "/health"}],
        },
    }
    provider = {
        "apiVersion": "capibara6.dev/v1alpha1",
        "kind": "SandboxProvider",
        "metadata": {"name": namespace},
        "spec": {
            "apiURL": "http://127.0.0.1:9",
            "sandboxURL": "http://127.0.0.1:9",
            "credentialsSecretRef": {"name": "absent", "key": "key"},
            "namespaceSelector": {},
        },
    }
    return [service, provider]


def writes(cluster: Any, namespace: str) -> list[str]:
    """The operator's writes that concern a namespace, as ``verb url``."""
    found = []
    for text in cluster.audit_log.read_text().splitlines():
        record = json.loads(text)
        if (
            record["userAgent"].startswith("capibara-operator/")
            and record["verb"] not in {"get", "list", "watch"}
            and namespace in record["requestURI"]
        ):
            found.append(f"{record['verb']} {record['requestURI']}")
    return found


def until_quiet(cluster: Any, namespace: str, *, seconds: float = 60.0) -> int:
    """Wait until there was no write for three seconds; returns the number of writes."""
    deadline = time.monotonic() + seconds
    count, since = 0, time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.3)
        now = len(writes(cluster, namespace))
        if now != count:
            count, since = now, time.monotonic()
        elif count and time.monotonic() - since > 3:
            return count
    raise AssertionError(f"never quiet: {writes(cluster, namespace)[-10:]}")


def cached(operator: Any, resource: str) -> float:
    """The number of objects that the operator holds."""
    page = operator.get("/metrics")[1]
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "capibara_cached_objects" and sample.labels["resource"] == resource:
                return sample.value
    raise AssertionError(f"no gauge for {resource}")
