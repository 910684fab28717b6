"""The fixtures that other tests build on."""

from __future__ import annotations

import json
from typing import Any


def test_control_plane_runs_admission_and_garbage_collection(
    control_plane: Any, namespace: str
) -> None:
    control_plane.kubectl("create", "configmap", "owner", f"--namespace={namespace}")
    listed = control_plane.kubectl(
        "get", "serviceaccounts", f"--namespace={namespace}", "-o", "name"
    )
    assert "serviceaccount/default" in listed.stdout


def test_audit_log_names_each_write(control_plane: Any, namespace: str) -> None:
    control_plane.kubectl("create", "configmap", "counted", f"--namespace={namespace}")
    control_plane.kubectl(
        "patch",
        "configmap",
        "counted",
        f"--namespace={namespace}",
        "--patch",
        '{"data": {"a": "b"}}',
    )
    records = [json.loads(line) for line in control_plane.audit_log.read_text().splitlines()]
    verbs = [
        record["verb"]
        for record in records
        if record.get("objectRef", {}).get("name") == "counted"
        and record["objectRef"].get("namespace") == namespace
        and record["verb"] != "get"
    ]
    assert verbs == ["create", "patch"]
