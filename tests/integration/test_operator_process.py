"""The operator as a process: start, stop, probes, metrics, and that it writes nothing at rest."""

from __future__ import annotations

import json
import time
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
    assert time.monotonic() - started < 5
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
    operator = operator_process(KUBECONFIG=str(kubeconfig)).start(wait_ready=False)
    deadline = time.monotonic() + 20
    text = ""
    while time.monotonic() < deadline and "forbidden" not in text:
        time.sleep(0.1)
        status, text = operator.get("/readyz")
        assert status in {0, 503}
    assert "the list of sandboxruns is missing: 403 Forbidden: " in text
    assert "ClusterRole" in text
    assert operator.get("/healthz")[0] == 200
    assert operator.stop() == 0


def test_at_rest_it_writes_nothing(
    operator_process: Any, crds_installed: Any, namespace: str
) -> None:
    operator = operator_process().start()
    agent = "capibara-operator/"
    time.sleep(1)
    before = len(crds_installed.audit_log.read_text().splitlines())
    time.sleep(4)
    records = [
        json.loads(line) for line in crds_installed.audit_log.read_text().splitlines()[before:]
    ]
    ours = [r for r in records if r["userAgent"].startswith(agent) and namespace in json.dumps(r)]
    writes = [r for r in ours if r["verb"] not in {"get", "list", "watch"}]
    assert writes == []
    operator.stop()


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
